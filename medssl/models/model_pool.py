"""Members: finished finetunings, one or several, as one way to predict."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from medssl.errors import BadInput, Doubt
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.predictor import Prediction, Predictor
from medssl.inference.test_time_augmentation import View, views
from medssl.models.trained_model import Network, predictor
from medssl.run import Run
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
    pool = pooled(runs, mirror, device, channels)
    if isinstance(pool, Detector):
        return replace(pool, calibrate=calibration.score)
    if len(runs) == 1 and not mirror:
        return replace(pool.members[0], temperature=calibration.temperature)
    return replace(pool, temperature=calibration.temperature)


def pooled(runs: Sequence[Run], mirror: bool, device: str, channels: tuple[int, ...] = ()) -> Ensemble | Detector:
    """The runs as one, uncalibrated, in mirrored views on request.

    Views are mirrored along the axes that every training mirrored, and along none that would swap left and right names.
    """
    agreed(runs)
    ways = looks(runs) if mirror else (View(),)
    several = [predictor(run, device, channels) for run in runs]
    dense = tuple(one for one in several if isinstance(one, Predictor))
    boxed = [one for one in several if isinstance(one, Detector) and one.crop == Network.of(runs[0]).crop]
    if len(dense) == len(runs):
        return Ensemble(dense, ways)
    if len(boxed) < len(runs):
        raise BadInput(f"{runs[0].path}: only segmentations, or only detectors of one crop, go together")
    voxels, boxes = ([network for one in boxed for network in getattr(one, name)] for name in ("voxels", "boxes"))
    return replace(boxed[0], voxels=tuple(voxels), boxes=tuple(boxes), views=ways)


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
