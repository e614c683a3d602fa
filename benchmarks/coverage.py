"""How often the intervals of few-label tables hold the truth, and how often they claim a difference that is none.

usage: python -m benchmarks.coverage [TABLES]; every number is a share of simulated tables without any effect.
"""

import sys

import numpy as np
from jaxtyping import Float

from medssl.metrics.statistics import estimate_crossed_mean

SEEDS, PATIENTS = (2, 3, 5, 8), (20, 39)
# Standard deviations of paired differences between seeds, between patients, and of what remains.
SPREADS = {"equal": (0.02, 0.02, 0.03), "patients": (0.02, 0.06, 0.06), "no seeds": (0.0, 0.06, 0.06)}


def main(tables: int = 2000) -> None:
    """Prints the coverage of the corrected interval and that of the percentiles of the pigeonhole bootstrap."""
    columns = ("spread", "patients", "seeds", "t interval covers", "percentiles cover", "p < 0.05, t test")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, spread in SPREADS.items():
        for patients in PATIENTS:
            for seeds in SEEDS:
                covered, plain, claimed = measure(spread, seeds, patients, tables)
                print(f"| {name} | {patients} | {seeds} | {covered:.3f} | {plain:.3f} | {claimed:.3f} |", flush=True)


def measure(spread: tuple[float, float, float], seeds: int, patients: int, tables: int) -> tuple[float, float, float]:
    """Returns the coverage of both intervals and the rate of false claims over simulated tables."""
    rng = np.random.default_rng((seeds, patients))
    results = []
    for _ in range(tables):
        values = draw_differences(rng, spread, seeds, patients)
        crossed = estimate_crossed_mean(values, range(patients))
        interval, (low, high) = crossed.interval(), _percentiles(values, rng)
        results.append((interval.low <= 0 <= interval.high, low <= 0 <= high, crossed.p_value() < 0.05))
    covered, plain, claimed = np.mean(results, 0).tolist()
    return covered, plain, claimed


def draw_differences(
    rng: np.random.Generator, spread: tuple[float, float, float], seeds: int, patients: int
) -> Float[np.ndarray, "seeds patients"]:
    """Draws paired differences of two arms that are equally good."""
    by_seed, by_patient, rest = spread
    return (
        rng.normal(0, by_seed, (seeds, 1))
        + rng.normal(0, by_patient, patients)
        + rng.normal(0, rest, (seeds, patients))
    )


def _percentiles(values: Float[np.ndarray, "seeds patients"], rng: np.random.Generator) -> tuple[float, float]:
    """Returns the 95 % percentiles of means of which seeds and patients are resampled independently."""
    s, n = (rng.multinomial(count, np.full(count, 1 / count), 400) / count for count in values.shape)
    low, high = np.quantile(((s @ values) * n).sum(1), (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
