"""Finds out whether a training stopped before its plateau, from the curves in its folder."""

import csv
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from medssl.render import report
from medssl.run import Run
from medssl.training.loggers import CURVES, FOLDER

log = logging.getLogger(__name__)

MIN_POINTS = 6  # of a curve; fewer show no trend
MIN_CHANGE = 0.03  # of the level of a curve over the last half of its points
MIN_PROBE_GAIN = 0.01  # Dice of the dense probe above that of an untrained encoder


def find_trend(values: Sequence[float] | Float[np.ndarray, "n"]) -> float:
    """Returns the change of a curve over its last half, relative to its level there; 0 if it is on a plateau.

    A change counts if a straight line through the last half of the points changes by at least 3 % of their mean, and
    its slope is at least twice its standard error.
    """
    if len(values) < MIN_POINTS:
        return 0.0
    last = np.array(values[len(values) // 2 :], float)
    x = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float((x * last).sum() / np.square(x).sum())
    residual = last - last.mean() - slope * x
    error = math.sqrt(float(np.square(residual).sum()) / max(1, len(last) - 2) / float(np.square(x).sum()))
    change = slope * (len(last) - 1) / max(1e-9, abs(float(last.mean())))
    return change if abs(change) >= MIN_CHANGE and abs(slope) >= 2 * error else 0.0


def describe_unfinished(curves: Mapping[str, Sequence[float]], metric: str = "") -> str:
    """Returns how a training was still improving when it stopped; "" if its curves are flat or too short.

    Args:
        curves: The values of each epoch, by name; `loss`, and with validation `val_...`.
        metric: The name of the validation score that selects the weights; "" without validation.
    """
    trends = {"training loss": -find_trend(curves.get("loss", ()))}
    if metric:
        trends = {"validation score": find_trend(curves.get(f"val_{metric}", ()))} | trends
    for name, improvement in trends.items():
        if improvement > 0:
            verb = "rising" if name == "validation score" else "falling"
            return (
                f"stopped before its plateau: its {name} was still {verb}, by {improvement:.0%} over the last half of"
                " its epochs; train for more epochs"
            )
    return ""


def describe_unmoved_probe(scores: Mapping[str, float]) -> str:
    """Returns that a pretraining learnt nothing that its dense probe can read; "" if it did, or had no probe."""
    if not {"probe_dice", "probe_dice_random"} <= scores.keys():
        return ""
    trained, untrained = scores["probe_dice"], scores["probe_dice_random"]
    if not trained < untrained + MIN_PROBE_GAIN:
        return ""
    return (
        f"has not moved its probe: Dice {trained:.3f} on its frozen features, {untrained:.3f} on those of an untrained"
        " encoder; train for more epochs, or choose another objective"
    )


def warn_about_unfinished(run: Run, scores: Mapping[str, float], metric: str = "") -> None:
    """Logs a warning and notes it in run.json if a training stopped before its plateau or its probe has not moved."""
    messages = [m for m in (describe_unmoved_probe(scores), describe_unfinished(read_curves(run), metric)) if m]
    if not messages:
        return
    log.warning("%s: the training %s", run.path, "; it ".join(messages))
    earlier = run.metadata.get("alarm")
    run.update_metadata(alarm="; it ".join([*([earlier] if earlier else []), *messages]))
    report.write(run)


def read_curves(run: Run) -> dict[str, list[float]]:
    """Reads the values of each epoch that the loggers wrote, by name."""
    path = run.path / FOLDER / CURVES
    curves: dict[str, list[float]] = {}
    if not path.is_file():
        return curves
    for row in csv.DictReader(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        for name, text in row.items():
            if name and text:
                curves.setdefault(name, []).append(float(text))
    return curves
