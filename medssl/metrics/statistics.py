"""Computes confidence intervals over patients and seeds, and tests of paired differences."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

Statistic = Callable[[Int[np.ndarray, "n"]], float]
Patients = Sequence[Hashable]


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval of the given level."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def format(self, style: str = ".3f") -> str:
        """Returns the estimate and the interval as text, with a format for each number."""
        estimate, low, high = (format(number, style) for number in (self.estimate, self.low, self.high))
        return f"{estimate} [{low}, {high}]"

    def clip(self, low: float, high: float) -> "Interval":
        """Returns the interval without the part that the quantity cannot reach."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


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
    """Returns the 95 % bootstrap interval of a statistic, widened for few patients.

    Patients are resampled with all of their cases, since the cases of one patient are not independent. The percentiles
    are expanded as in Hesterberg, "What teachers should know about the bootstrap" (2015), section 5.3,
    https://arxiv.org/abs/1411.5279: with n patients, plain percentiles are too narrow by sqrt((n - 1) / n) and by the
    ratio of a normal to a t quantile. Resamples whose statistic is not finite (an AUROC without a healthy case) are
    left out.

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
    values = np.array([statistic(indices) for indices in resamples])
    return _expanded_percentile_interval(statistic(np.arange(len(owner))), values, len(cases), 0.95)


@dataclass(frozen=True)
class CrossedEstimate:
    """A mean over patients and seeds, both of which are samples, with its standard error.

    Args:
        estimate: The mean.
        standard_error: Its standard error over other patients and other seeds.
        degrees_of_freedom: The degrees of freedom of the t distribution of their ratio.
    """

    estimate: float
    standard_error: float
    degrees_of_freedom: float

    def interval(self, level: float = 0.95) -> Interval:
        """Returns the t interval."""
        half = float(stats.t.ppf((1 + level) / 2, self.degrees_of_freedom)) * self.standard_error
        return Interval(self.estimate, self.estimate - half, self.estimate + half, level)

    def p_value(self) -> float:
        """Returns the two-sided p-value of the t test that the mean is 0; it is below 0.05 if the interval excludes 0.

        A permutation test that flips the signs of whole seeds could not go below 2 / 2^5 = 0.06 with five seeds.
        """
        if not self.standard_error > 0:
            return float("nan") if np.isnan(self.estimate + self.standard_error) else float(self.estimate == 0)
        return 2 * float(stats.t.sf(abs(self.estimate) / self.standard_error, self.degrees_of_freedom))

    @classmethod
    def from_mean_squares(
        cls, estimate: float, by_seed: float, by_patient: float, residual: float, seeds: int, patients: int
    ) -> "CrossedEstimate":
        """Combines the variances of a two-way layout with random rows and columns.

        The variance of the mean is by_seed + by_patient - residual, and at least each of the first two. Its degrees of
        freedom are those of Satterthwaite, "An approximate distribution of estimates of variance components" (1946),
        https://doi.org/10.2307/3002019, averaged with those of the seeds alone where these are fewer: the former are
        too optimistic with few seeds (`python -m benchmarks.coverage` prints what the intervals cover).

        Args:
            estimate: The mean.
            by_seed: Variance of the means of seeds, divided by the number of seeds.
            by_patient: Variance of the means of patients, divided by the number of patients.
            residual: Variance of what remains, divided by both numbers.
            seeds: The number of seeds, at least 2.
            patients: The number of patients; with one, the interval is over seeds alone.
        """
        variance = max(by_seed + by_patient - residual, by_seed, by_patient)
        if not variance > 0 or patients == 1:
            return cls(estimate, math.sqrt(variance), seeds - 1)
        parts = by_seed**2 / (seeds - 1) + by_patient**2 / (patients - 1)
        satterthwaite = variance**2 / (parts + residual**2 / ((seeds - 1) * (patients - 1)))
        return cls(estimate, math.sqrt(variance), min(satterthwaite, (satterthwaite + seeds - 1) / 2))


def estimate_crossed_mean(values: Float[np.ndarray, "seeds cases"], patients: Patients) -> CrossedEstimate:
    """Estimates the mean over cases and at least two seeds by an analysis of variance.

    Args:
        values: The value of each case for each seed.
        patients: The patient of each case; one with several cases has as much weight as its cases together.
    """
    owner, mean = _number_patients(patients), float(values.mean())
    s, n = len(values), int(owner.max()) + 1
    # The deviation of each patient from the mean, weighted so that the plain mean over patients is that over cases.
    sums = np.stack([np.bincount(owner, weights=row - mean, minlength=n) for row in values]) * n / len(owner)
    by_seed, by_patient = sums.mean(1), sums.mean(0)
    residual = sums - by_seed[:, None] - by_patient + sums.mean()
    return CrossedEstimate.from_mean_squares(
        mean,
        float(by_seed.var(ddof=1)) / s,
        float(by_patient.var(ddof=1)) / n if n > 1 else 0.0,
        float(np.square(residual).sum()) / max(1, (s - 1) * (n - 1)) / (s * n),
        s,
        n,
    )


def estimate_crossed_statistic(
    statistic: Callable[[int, Int[np.ndarray, "n"]], float],
    seeds: int,
    patients: Patients,
    draws: int = 500,
    seed: int = 0,
) -> CrossedEstimate:
    """Estimates the mean over at least two seeds of any statistic of the index of a seed and indices of cases.

    The variance over patients comes from a bootstrap, with the same resamples for all seeds.
    """
    owner, rng = _number_patients(patients), np.random.default_rng(seed)
    n = int(owner.max()) + 1
    cases = [np.flatnonzero(owner == patient) for patient in range(n)]
    resamples = [np.concatenate([cases[m] for m in rng.integers(0, n, n)]) for _ in range(draws)]
    values = np.array([[statistic(number, indices) for number in range(seeds)] for indices in resamples])
    values = values[np.isfinite(values).all(1)]
    by_seed = np.array([statistic(number, np.arange(len(owner))) for number in range(seeds)])
    correction = n / (n - 1) if n > 1 else 0.0
    mean = values.mean(1, keepdims=True) if len(values) else np.full((1, 1), np.nan)
    return CrossedEstimate.from_mean_squares(
        float(by_seed.mean()),
        float(by_seed.var(ddof=1)) / seeds,
        correction * float(mean.var()),
        correction * float((values - mean).var(0).sum()) / ((seeds - 1) * seeds) if len(values) else float("nan"),
        seeds,
        n,
    )


def mean_interval(
    values: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Returns the mean over cases and seeds with its interval.

    With several seeds it is a t interval over other patients and other seeds; with one seed it is the bootstrap over
    patients of `bootstrap_interval`, without other seeds.

    Args:
        values: The value of each case for each seed.
        patients: The patient of each case; None for one case each.
        draws: The number of resamples of the bootstrap.
        seed: The seed of the resampling.
        level: The level of the interval.
    """
    patients = range(values.shape[1]) if patients is None else patients
    if len(values) > 1:
        return estimate_crossed_mean(values, patients).interval(level)
    owner = _number_patients(patients)
    n = int(owner.max()) + 1
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)[:, owner]
    means = (weights @ values[0]) / weights.sum(1)
    return _expanded_percentile_interval(float(values.mean()), means, n, level)


def compare_paired(
    a: Float[np.ndarray, "seeds cases"], b: Float[np.ndarray, "seeds cases"], patients: Patients
) -> tuple[Interval, float]:
    """Returns the mean of a - b, paired by case and by seed, with its 95 % interval, and the p-value of no difference.

    With several seeds both are of the t distribution of `estimate_crossed_mean`; with one, of other patients alone.
    """
    if len(a) > 1:
        crossed = estimate_crossed_mean(a - b, patients)
        return crossed.interval(), crossed.p_value()
    return mean_interval(a - b, patients), permutation_p(a, b, patients)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p-values of a family of tests adjusted for their number; a NaN stays NaN and does not count.

    Holm, "A simple sequentially rejective multiple test procedure" (1979), https://www.jstor.org/stable/4615733.
    """
    order = sorted((n for n, p in enumerate(p_values) if not np.isnan(p)), key=lambda n: p_values[n])
    adjusted, largest = [float("nan")] * len(p_values), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[n]))
        adjusted[n] = largest
    return adjusted


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


def permutation_p(
    a: Float[np.ndarray, "seeds cases"],
    b: Float[np.ndarray, "seeds cases"],
    patients: Patients | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Returns the two-sided p-value of the difference of means, by swapping a and b within patients.

    A patient is swapped in all cases and seeds at once, since these are not independent; the test does not generalize
    to other seeds: `compare_paired` uses it for one seed. All swaps are computed if there are at most `draws`; else the
    identity counts as one of the draws, so that p is never 0 (Phipson and Smyth, "Permutation p-values should never be
    zero", 2010, https://doi.org/10.2202/1544-6115.1585).
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


def _expanded_percentile_interval(
    estimate: float, values: Float[np.ndarray, "d"], patients: int, level: float
) -> Interval:
    """Returns the percentiles of bootstrap values that suit the number of patients; see `bootstrap_interval`."""
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(estimate, float("nan"), float("nan"), level)
    tail = 0.0
    if patients > 1:
        tail = float(stats.norm.cdf(-math.sqrt(patients / (patients - 1)) * stats.t.ppf((1 + level) / 2, patients - 1)))
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(estimate, float(low), float(high), level)
