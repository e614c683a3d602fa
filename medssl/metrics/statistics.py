"""Computes bootstrap confidence intervals over patients, and permutation tests of paired differences."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Statistic = Callable[[Int[np.ndarray, "n"]], float]
Patients = Sequence[Hashable]


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval, which holds the fraction `level` of the resamples."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def format(self, style: str = ".3f") -> str:
        """Returns the estimate and the interval as text, with a format for each number."""
        estimate, low, high = (format(number, style) for number in (self.estimate, self.low, self.high))
        return f"{estimate} [{low}, {high}]"


def is_significant(difference: Interval, p: float) -> bool:
    """Returns whether a difference is significant: p < 0.05, and its interval excludes 0."""
    return p < 0.05 and (difference.low > 0 or difference.high < 0)


def small_sample_warning(patients: int) -> str:
    """Returns a warning if there are too few patients for a significant difference, else an empty string.

    The p-value of a two-sided permutation test of n patients is at least 2 / 2^n, which is above 0.05 for n <= 5.
    """
    if patients > 5:
        return ""
    count = "one patient" if patients == 1 else f"{patients} patients"
    return f"{count}: intervals are too narrow, and p cannot go below {2 / 2**patients:.2g}"


def bootstrap_interval(patients: Patients, statistic: Statistic, draws: int = 2000, seed: int = 0) -> Interval:
    """Returns the 95 % percentile bootstrap interval of a statistic.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993. Patients are resampled with all of their cases,
    since the cases of one patient are not independent. Resamples whose statistic is not finite (an AUROC without a
    healthy case) are left out.

    Args:
        patients: The patient of each case.
        statistic: Computes the statistic from indices of cases, which may repeat.
        draws: The number of resamples.
        seed: The seed of the resampling.
    """
    owner = _number_patients(patients)
    cases = [np.flatnonzero(owner == n) for n in range(owner.max(initial=-1) + 1)]
    rng = np.random.default_rng(seed)
    resamples = [np.concatenate([cases[n] for n in rng.integers(0, len(cases), len(cases))]) for _ in range(draws)]
    return _percentile_interval(
        statistic(np.arange(len(owner))), np.array([statistic(indices) for indices in resamples]), 0.95
    )


def mean_interval(
    values: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the mean over cases and seeds with its interval, for which cases and seeds are resampled independently.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (https://arxiv.org/abs/0712.1111); the interval
    is conservative. With one seed it is the plain bootstrap.

    Args:
        values: The value of each case for each seed.
        patients: The patient of each case; cases are then resampled by patient.
        draws: The number of resamples.
        seed: The seed of the resampling.
        level: The level of the interval.
    """
    owner = _number_patients(range(values.shape[1]) if patients is None else patients)
    rng = np.random.default_rng(seed)
    s, c = (rng.multinomial(n, np.full(n, 1 / n), draws) for n in (len(values), int(owner.max()) + 1))
    weights = [w / w.sum(1, keepdims=True) for w in (s, c[:, owner])]
    return _percentile_interval(float(values.mean()), ((weights[0] @ values) * weights[1]).sum(1), level)


def crossed_interval(
    statistic: Callable[[int, Int[np.ndarray, "n"]], float],
    seeds: int,
    patients: Patients,
    draws: int = 500,
    seed: int = 0,
) -> Interval:
    """Returns the interval as `mean_interval` does, for any statistic of the index of a seed and indices of cases."""
    owner, rng = _number_patients(patients), np.random.default_rng(seed)
    cases = [np.flatnonzero(owner == n) for n in range(int(owner.max()) + 1)]

    def draw_resample() -> float:
        indices = np.concatenate([cases[n] for n in rng.integers(0, len(cases), len(cases))])
        chosen, times = np.unique(rng.integers(0, seeds, seeds), return_counts=True)
        return float(np.average([statistic(int(n), indices) for n in chosen], weights=times))

    all_cases = np.arange(len(owner))
    estimate = float(np.mean([statistic(n, all_cases) for n in range(seeds)]))
    return _percentile_interval(estimate, np.array([draw_resample() for _ in range(draws)]), 0.95)


def crossed_permutation_p(
    difference: Callable[[Bool[np.ndarray, "cases"]], float], patients: Patients, draws: int = 500, seed: int = 0
) -> float:
    """Returns the p-value as `permutation_p` does, for any statistic.

    Args:
        difference: Computes the difference of two arms after swapping the masked cases between them.
        patients: The patient of each case.
        draws: The number of permutations, including the identity.
        seed: The seed of the permutations.

    Returns:
        The p-value; NaN if the difference is NaN.
    """
    owner, rng = _number_patients(patients), np.random.default_rng(seed)
    observed = abs(difference(np.zeros(len(owner), bool)))
    if np.isnan(observed):
        return float("nan")
    permuted = [abs(difference(rng.random(int(owner.max()) + 1)[owner] < 0.5)) for _ in range(draws - 1)]
    return (1 + sum(value >= observed - 1e-12 for value in permuted)) / draws


def difference_interval(
    a: Float[np.ndarray, "seeds cases"],
    b: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of a - b, paired by case and by seed, with its 95 % interval."""
    return mean_interval(a - b, patients, draws, seed)


def permutation_p(
    a: Float[np.ndarray, "seeds cases"],
    b: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Returns the two-sided p-value of the difference of means, by swapping a and b within patients.

    A patient is swapped in all cases and seeds at once, since these are not independent; the test does not generalize
    to other seeds. All swaps are computed if there are at most `draws`; else the identity counts as one of the draws,
    so that p is never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010,
    https://doi.org/10.2202/1544-6115.1585).
    """
    gaps = np.bincount(_number_patients(range(a.shape[1]) if patients is None else patients), weights=(a - b).mean(0))
    n = gaps.size
    if 2**n <= draws:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, n))
        signs[0] = 1
    rounding = 1e-12 * max(1.0, float(np.abs(gaps).sum()))
    return float((np.abs(signs @ gaps) >= abs(gaps.sum()) - rounding).mean())


def _number_patients(patients: Patients) -> Int[np.ndarray, "cases"]:
    """Returns the number of the patient of each case, from 0 in the order of the first cases."""
    numbers = {patient: n for n, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients], int)


def _percentile_interval(estimate: float, values: Float[np.ndarray, "d"], level: float) -> Interval:
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(estimate, float("nan"), float("nan"), level)
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high), level)
