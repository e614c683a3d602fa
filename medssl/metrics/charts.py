"""Charts of scores, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medssl.files import atomic
from medssl.metrics.calibration import Reliability
from medssl.metrics.case_scores import Row
from medssl.metrics.lesions import Outcome, curve

INK = "#334155"
TINTS = ("#0e7490", "#b45309", "#be185d", "#4d7c0f", "#6d28d9", "#a16207")


def boxplot(rows: Sequence[Row], path: Path, tolerance_mm: float) -> None:
    """Dice, NSD and HD95 of every label: each case a point, quartiles as a box."""
    names = list(dict.fromkeys(row.label for row in rows))
    titles = {"dice": "Dice", "nsd": f"NSD at {tolerance_mm:g} mm", "hd95_mm": "HD95 (mm)"}
    figure = Figure(figsize=(4 + 1.2 * len(names), 3.6), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        values = [np.array([getattr(row, metric) for row in rows if row.label == name]) for name in names]
        axes.boxplot(values, tick_labels=names, showfliers=False, medianprops={"color": TINTS[0], "linewidth": 2})
        for n, points in enumerate(values, 1):
            spread = np.linspace(-0.15, 0.15, len(points)) if len(points) > 1 else np.zeros(1)
            axes.plot(n + spread, points, ".", color=INK, alpha=0.45, markersize=4)
        axes.set_title(title)
        axes.tick_params(axis="x", rotation=30 if len(names) > 2 else 0)
        if metric != "hd95_mm":
            axes.set_ylim(-0.02, 1.02)
    _save(figure, path)


def froc(
    outcomes: Mapping[str, Sequence[Outcome]], bounds: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path
) -> None:
    """Sensitivity against false alarms a scan, a line a kind of lesion.

    `bounds` are the intervals of each kind's sensitivity, by rate of false alarms, drawn as bars.
    """
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for tint, (name, of) in zip(TINTS * len(outcomes), outcomes.items(), strict=False):
        points = curve(of)
        rates, shares = np.append(points.false_per_scan, 8), np.append(points.sensitivity, points.sensitivity[-1:])
        axes.step(rates[: len(shares)], shares, where="post", color=tint, label=name)
        bars = [(float(at), told["low"], told["high"]) for at, told in bounds[name].items() if told["low"] is not None]
        axes.vlines(*zip(*bars, strict=True) if bars else ([], [], []), color=tint, alpha=0.5, linewidth=2)
    axes.set_xscale("symlog", base=2, linthresh=1 / 8)
    axes.set_xticks([0, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["0", "1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlabel="false alarms a scan", ylabel="sensitivity", xlim=(0, 8), ylim=(0, 1.02))
    axes.set_title("a hit overlaps; for the CPM, its centre lies in the lesion", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def reliability(of: Mapping[str, Reliability], path: Path) -> None:
    """How often a confidence is right, a panel each: on the diagonal where scores mean what they say."""
    figure = Figure(figsize=(4.2 * len(of), 4.2), layout="constrained")
    for axes, (name, bins) in zip(figure.subplots(1, len(of), squeeze=False)[0], of.items(), strict=True):
        low, some = np.arange(len(bins.count)) / len(bins.count), bins.count > 0
        share = bins.hits[some] / bins.count[some]
        axes.bar(low[some], share, width=1 / len(low), align="edge", color=TINTS[0], alpha=0.7)
        axes.plot([0, 1], [0, 1], "--", color=INK)
        for left in low[~some]:
            axes.axvspan(left, left + 1 / len(low), color=INK, alpha=0.06, linewidth=0)
        axes.set(
            xlabel="confidence" + " (grey: none)" * (not some.all()), ylabel="share right", xlim=(0, 1), ylim=(0, 1)
        )
        axes.set_title(f"{name}, ECE {bins.ece():.3f}")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic(path) as part:
        figure.savefig(part, dpi=110)
