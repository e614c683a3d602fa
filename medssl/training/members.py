"""Members: finished finetunings, one or several, as one way to predict."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from medssl.errors import BadInput, Doubt
from medssl.predict.calibration import Calibration
from medssl.predict.ensemble import Ensemble
from medssl.predict.mirror import View, views
from medssl.predict.predictor import Prediction, Predictor
from medssl.run import Run
from medssl.training.network import Network, predictor
from medssl.volume import Volume

Predict = Callable[[Volume, str], Prediction]
SHARED = ("in_channels", "recipe", "spacing_mm", "labels")


def together(
    runs: Sequence[Run], mirror: bool, calibration: Calibration, device: str, channels: tuple[int, ...] = ()
) -> Predict:
    """What these runs predict: alone as it is, several by the mean of their probabilities; mirrored on request.

    For scans that lack some of the channels, `channels` names those they have.
    """
    if mirror != calibration.mirror and calibration.weights_sha256:
        said = "with" if calibration.mirror else "without"
        warnings.warn(f"these runs were calibrated {said} --mirror; what is predicted now is not", Doubt, stacklevel=2)
    if len(runs) > 1 or mirror:
        return replace(pooled(runs, mirror, device, channels), temperature=calibration.temperature)
    alone = predictor(runs[0], device, channels)
    return replace(alone, temperature=calibration.temperature) if isinstance(alone, Predictor) else alone


def pooled(runs: Sequence[Run], mirror: bool, device: str, channels: tuple[int, ...] = ()) -> Ensemble:
    """The runs as one, uncalibrated, in mirrored views on request.

    Views are mirrored along the axes that every training mirrored, and along none that would swap left and right names.
    """
    agreed(runs)
    several = [predictor(run, device, channels) for run in runs]
    dense = tuple(one for one in several if isinstance(one, Predictor))
    if len(dense) < len(several):
        raise BadInput(f"{runs[0].path}: only runs that give every voxel a class can be pooled or mirrored")
    return Ensemble(dense, looks(runs) if mirror else (View(),))


def agreed(runs: Sequence[Run]) -> Network:
    """The network of the first run; BadInput where another one takes other input or names other classes."""
    first, *others = [Network.of(run) for run in runs]
    for run, network in zip(runs[1:], others, strict=True):
        apart = [name for name in SHARED if getattr(network, name) != getattr(first, name)]
        if apart:
            raise BadInput(f"{run.path}: another {', '.join(apart)} than {runs[0].path}; predict each alone")
    return first


def looks(runs: Sequence[Run]) -> tuple[View, ...]:
    """The mirrored views that all runs know from training."""
    flips = [run.settings().get("augment", {}).get("flip", (False,) * 3) for run in runs]
    found = views([axis for axis in range(3) if all(flip[axis] for flip in flips)], agreed(runs).labels)
    if len(found) == 1:
        raise BadInput(f"{runs[0].path}: was never trained on mirrored crops (augment.flip); predict without --mirror")
    return found


def provenance(runs: Sequence[Run]) -> dict[str, Any]:
    """Which runs predicted, for the index of a predictions folder."""
    each = [{"run": str(run.path), "weights_sha256": run.card["weights_sha256"]} for run in runs]
    if len(each) == 1:
        return each[0]
    return {name: ", ".join(one[name] for one in each) for name in each[0]} | {"runs": each}
