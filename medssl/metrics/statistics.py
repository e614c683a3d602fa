"""Statistics over cases: bootstrap confidence intervals, and a permutation test of a paired difference."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Statistic = Callable[[Int[np.ndarray, "n"]], float]
Patients = Sequence[Hashable]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that a share `level` of the resamples falls in."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def said(self, style: str = ".3f") -> str:
        """The estimate and the interval as words, each number in a format."""
        estimate, low, high = (format(number, style) for number in (self.estimate, self.low, self.high))
        return f"{estimate} [{low}, {high}]"


def shown(gap: Interval, p: float) -> bool:
    """Whether a difference may be spoken of: only where its interval and the permutation test agree."""
    return p < 0.05 and (gap.low > 0 or gap.high < 0)


def caution(patients: int) -> str:
    """What has to be said beside intervals and p of so few patients that they cannot show anything; else nothing.

    A two-sided test that swaps n patients cannot go below 2 / 2^n, which is above 0.05 up to five.
    """
    if patients > 5:
        return ""
    said = "one patient" if patients == 1 else f"{patients} patients"
    return f"{said}: intervals are narrower than what is unknown, and p cannot go below {2 / 2**patients:.2g}"


def interval(patients: Patients, statistic: Statistic, draws: int = 2000, seed: int = 0) -> Interval:
    """A percentile bootstrap of any statistic of case numbers (drawn with repeats), given the patient of each case.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993. Patients are drawn, each with all of its cases, for
    the cases of one patient are no independent ones. Resamples on which the statistic is not a number (an AUROC without
    a healthy case) are left out.
    """
    owner = _numbers(patients)
    cases = [np.flatnonzero(owner == n) for n in range(owner.max(initial=-1) + 1)]
    rng = np.random.default_rng(seed)
    drawn = [np.concatenate([cases[n] for n in rng.integers(0, len(cases), len(cases))]) for _ in range(draws)]
    return _interval(statistic(np.arange(len(owner))), np.array([statistic(at) for at in drawn]), 0.95)


def mean_interval(
    values: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The mean over cases and seeds, with both drawn anew: cases are crossed with seeds, neither repeats the other.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (https://arxiv.org/abs/0712.1111): its interval
    is on the wide side. With one seed it is the plain bootstrap. Cases are drawn by patient where `patients` are told.
    """
    owner = _numbers(range(values.shape[1]) if patients is None else patients)
    rng = np.random.default_rng(seed)
    s, c = (rng.multinomial(n, np.full(n, 1 / n), draws) for n in (len(values), int(owner.max()) + 1))
    shares = [w / w.sum(1, keepdims=True) for w in (s, c[:, owner])]
    return _interval(float(values.mean()), ((shares[0] @ values) * shares[1]).sum(1), level)


def crossed_interval(
    statistic: Callable[[int, Int[np.ndarray, "n"]], float],
    seeds: int,
    patients: Patients,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """As `mean_interval`, for what is no mean over cases: a statistic of a seed's number and of case numbers."""
    owner, rng = _numbers(patients), np.random.default_rng(seed)
    cases = [np.flatnonzero(owner == n) for n in range(int(owner.max()) + 1)]

    def drawn() -> float:
        at = np.concatenate([cases[n] for n in rng.integers(0, len(cases), len(cases))])
        chosen, times = np.unique(rng.integers(0, seeds, seeds), return_counts=True)
        return float(np.average([statistic(int(n), at) for n in chosen], weights=times))

    whole = np.arange(len(owner))
    estimate = float(np.mean([statistic(n, whole) for n in range(seeds)]))
    return _interval(estimate, np.array([drawn() for _ in range(draws)]), 0.95)


def swapped_p(
    gap: Callable[[Bool[np.ndarray, "cases"]], float], patients: Patients, draws: int = 500, seed: int = 0
) -> float:
    """As `permutation_p`, for what is no mean over cases: the gap between two arms that swapped some of the cases.

    Not a number where the gap is none.
    """
    owner, rng = _numbers(patients), np.random.default_rng(seed)
    found = abs(gap(np.zeros(len(owner), bool)))
    if np.isnan(found):
        return float("nan")
    others = [abs(gap(rng.random(int(owner.max()) + 1)[owner] < 0.5)) for _ in range(draws - 1)]
    return (1 + sum(other >= found - 1e-12 for other in others)) / draws


def difference(
    a: Float[np.ndarray, "seeds cases"],
    b: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a minus b, paired by case and by seed, with its 95 % interval."""
    return mean_interval(a - b, patients, draws, seed)


def permutation_p(
    a: Float[np.ndarray, "seeds cases"],
    b: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """How often a difference of means this large would come from swapping a and b within patients (two-sided).

    A patient is swapped in all cases and seeds at once, since these are not independent: nothing is said of other
    seeds. All swaps are tried where there are no more than `draws`; else the identity counts as one of the draws, so
    that p is never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010,
    https://doi.org/10.2202/1544-6115.1585).
    """
    gaps = np.bincount(_numbers(range(a.shape[1]) if patients is None else patients), weights=(a - b).mean(0))
    n = gaps.size
    if 2**n <= draws:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, n))
        signs[0] = 1
    rounding = 1e-12 * max(1.0, float(np.abs(gaps).sum()))
    return float((np.abs(signs @ gaps) >= abs(gaps.sum()) - rounding).mean())


def _numbers(patients: Patients) -> Int[np.ndarray, "cases"]:
    """Patients as numbers from 0, in the order of their first case."""
    known = {patient: n for n, patient in enumerate(dict.fromkeys(patients))}
    return np.array([known[patient] for patient in patients], int)


def _interval(estimate: float, drawn: Float[np.ndarray, "d"], level: float) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Interval(estimate, float("nan"), float("nan"), level)
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high), level)
