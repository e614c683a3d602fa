"""Statistics over cases: bootstrap confidence intervals, and a permutation test of a paired difference."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Statistic = Callable[[Int[np.ndarray, "n"]], float]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that a share `level` of the resamples falls in."""

    estimate: float
    low: float
    high: float
    level: float = 0.95


def interval(cases: int, statistic: Statistic, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """A percentile bootstrap over cases of any statistic of case numbers (drawn with repeats).

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993. Resamples on which the statistic is not a number
    (an AUROC without a healthy case) are left out.
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([statistic(rng.integers(0, cases, cases)) for _ in range(draws)])
    return _interval(statistic(np.arange(cases)), drawn, level)


def mean_interval(
    values: Float[np.ndarray, "seeds cases"], draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean over cases and seeds, with both drawn anew: cases are crossed with seeds, neither repeats the other.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (https://arxiv.org/abs/0712.1111): its interval
    is on the wide side. With one seed it is the plain bootstrap over cases.
    """
    seeds, cases = values.shape
    rng = np.random.default_rng(seed)
    s = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    c = rng.multinomial(cases, np.full(cases, 1 / cases), draws) / cases
    return _interval(float(values.mean()), np.einsum("ds,sc,dc->d", s, values, c, optimize=True), level)


def difference(
    a: Float[np.ndarray, "seeds cases"], b: Float[np.ndarray, "seeds cases"], draws: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of a minus b, paired by case and by seed, with its 95 % interval."""
    return mean_interval(a - b, draws, seed)


def permutation_p(
    a: Float[np.ndarray, "seeds cases"], b: Float[np.ndarray, "seeds cases"], draws: int = 10_000, seed: int = 0
) -> float:
    """How often a difference of means this large would come from swapping a and b within cases (two-sided).

    A case is swapped in all seeds at once, since its seeds are no independent cases. All swaps are tried where there
    are no more than `draws`; else the identity counts as one of the draws, so that p is never 0 (Phipson and Smyth,
    "Permutation p-values should never be zero", 2010, https://doi.org/10.2202/1544-6115.1585).
    """
    per_case = (a - b).mean(0)
    n = per_case.size
    if 2**n <= draws:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice((-1.0, 1.0), (draws, n))
        signs[0] = 1
    means = np.abs(signs @ per_case)
    return float((means >= abs(per_case.sum()) - 1e-12 * max(1.0, np.abs(per_case).sum())).mean())


def _interval(estimate: float, drawn: Float[np.ndarray, "d"], level: float) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return Interval(estimate, float("nan"), float("nan"), level)
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high), level)
