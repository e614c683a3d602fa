"""Plots scores to PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medssl.files import atomic_file
from medssl.metrics.calibration import Reliability
from medssl.metrics.case_scores import CaseScore
from medssl.metrics.lesions import MatchResult, compute_operating_points
from medssl.metrics.statistics import Interval

INK = "#334155"
TINTS = ("#0e7490", "#b45309", "#be185d", "#4d7c0f", "#6d28d9", "#a16207")


def plot_scores(rows: Sequence[CaseScore], path: Path, tolerance_mm: float) -> None:
    """Plots Dice, NSD and HD95 of each label, with a point per case and a box at the quartiles."""
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


def plot_intervals(intervals: Mapping[str, Interval], title: str, path: Path) -> None:
    """Plots estimates with their intervals, one line each, from top to bottom."""
    figure = Figure(figsize=(5.6, 0.9 + 0.32 * len(intervals)), layout="constrained")
    axes, places = figure.subplots(), -np.arange(len(intervals))
    axes.hlines(places, *([getattr(i, end) for i in intervals.values()] for end in ("low", "high")), color=TINTS[0])
    axes.plot([interval.estimate for interval in intervals.values()], places, "o", color=TINTS[0], markersize=5)
    axes.set_yticks(places, list(intervals))
    axes.set(title=title, xlim=(0, 1), ylim=(places[-1] - 0.6, 0.6))
    axes.grid(alpha=0.3, axis="x")
    _save(figure, path)


def plot_froc(
    outcomes: Mapping[str, Sequence[MatchResult]], bounds: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path
) -> None:
    """Plots the sensitivity against the false positives per scan (FROC), with one line per kind of lesion.

    Args:
        outcomes: The match results of the scans, by kind of lesion.
        bounds: The interval of the sensitivity, by kind of lesion and false positives per scan; drawn as bars.
        path: The PNG file.
    """
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for tint, (name, results) in zip(TINTS * len(outcomes), outcomes.items(), strict=False):
        points = compute_operating_points(results)
        rates, shares = np.append(points.false_per_scan, 8), np.append(points.sensitivity, points.sensitivity[-1:])
        axes.step(rates[: len(shares)], shares, where="post", color=tint, label=name)
        bars = [(float(rate), b["low"], b["high"]) for rate, b in bounds[name].items() if b["low"] is not None]
        axes.vlines(*zip(*bars, strict=True) if bars else ([], [], []), color=tint, alpha=0.5, linewidth=2)
    axes.set_xscale("symlog", base=2, linthresh=1 / 8)
    axes.set_xticks([0, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["0", "1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlabel="false positives per scan", ylabel="sensitivity", xlim=(0, 8), ylim=(0, 1.02))
    axes.set_title("a hit overlaps a lesion (for the CPM: its centre lies in one)", fontsize="small")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_reliability(diagrams: Mapping[str, Reliability], path: Path) -> None:
    """Plots reliability diagrams side by side; calibrated scores lie on the diagonal."""
    figure = Figure(figsize=(4.2 * len(diagrams), 4.2), layout="constrained")
    for axes, (name, bins) in zip(figure.subplots(1, len(diagrams), squeeze=False)[0], diagrams.items(), strict=True):
        low, has_samples = np.arange(len(bins.count)) / len(bins.count), bins.count > 0
        share = bins.hits[has_samples] / bins.count[has_samples]
        axes.bar(low[has_samples], share, width=1 / len(low), align="edge", color=TINTS[0], alpha=0.7)
        axes.plot([0, 1], [0, 1], "--", color=INK)
        for start in low[~has_samples]:
            axes.axvspan(start, start + 1 / len(low), color=INK, alpha=0.06, linewidth=0)
        axes.set(
            xlabel="confidence" + " (grey: none)" * (not has_samples.all()), ylabel="accuracy", xlim=(0, 1), ylim=(0, 1)
        )
        axes.set_title(f"{name}, ECE {bins.ece():.3f}")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as part:
        figure.savefig(part, dpi=110)
