"""Loads one or several finetuning runs as one predictor, with optional test-time augmentation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.sliding_window import Network, Precision
from medssl.inference.test_time_augmentation import MirrorView, mirror_views
from medssl.models.prediction.interface import ModelInterface
from medssl.models.prediction.prepared import PooledPredictor
from medssl.models.trained_model import build_predictor, read_interface
from medssl.run import Run

INPUT_FIELDS = ("in_channels", "normalization", "spacing_mm", "labels", "steps")


def load_predictor(
    runs: Sequence[Run], tta: bool, calibration: Calibration, device: str, channels: tuple[int, ...] = ()
) -> PooledPredictor:
    """Returns what maps a volume and a case id to a calibrated prediction.

    Args:
        runs: Finished finetuning runs; the probabilities of several are averaged.
        tta: Test-time augmentation: average over mirrored views too.
        calibration: The calibration of these runs.
        device: The torch device that predicts.
        channels: The network channels that the scans have, in the order of the scans; () for all.
    """
    calibration.check_augmentation(tta)
    pool = pool_models(runs, tta, device, channels)
    if isinstance(pool, Detector):
        return replace(pool, calibrate=calibration.calibrate_score)
    if len(runs) == 1 and not tta:
        return replace(pool.members[0], temperature=calibration.temperature)
    return replace(pool, temperature=calibration.temperature)


def pool_models(runs: Sequence[Run], tta: bool, device: str, channels: tuple[int, ...] = ()) -> Ensemble | Detector:
    """Pools runs into one uncalibrated ensemble or detector; the arguments are those of `load_predictor`.

    Raises:
        BadInput: The runs have different inputs, or mix segmentation with detection.
    """
    require_same_inputs(runs)
    views = tta_views(runs) if tta else (MirrorView(),)
    predictors = [build_predictor(run, device, channels) for run in runs]
    segmenters = tuple(predictor for predictor in predictors if isinstance(predictor, Predictor))
    if len(segmenters) == len(runs):
        return Ensemble(segmenters, views)
    crop = read_interface(runs[0]).patch_size
    detectors = [predictor for predictor in predictors if isinstance(predictor, Detector) and predictor.crop == crop]
    if len(detectors) < len(runs):
        raise BadInput(f"{runs[0].path}: only segmentation runs, or detection runs of one patch_size, can be pooled")
    return replace(
        detectors[0],
        voxel_networks=tuple(network for detector in detectors for network in detector.voxel_networks),
        box_networks=tuple(network for detector in detectors for network in detector.box_networks),
        views=views,
    )


def adjust_inference(
    predictor: PooledPredictor,
    batch_size: int,
    overlap: float | None,
    precision: Precision = "fp32",
    crop_body_mm: float | None = None,
) -> PooledPredictor:
    """Returns a predictor with other settings of its sliding window.

    Args:
        predictor: A predictor, ensemble or detector.
        batch_size: The number of windows per forward pass, which changes no result but for rounding.
        overlap: The fraction of a window that overlaps the next one; None leaves it as it is.
        precision: "fp32", or "bf16" for networks in mixed precision, which is faster and slightly different.
        crop_body_mm: The distance from the body up to which a segmentation predicts voxels; None predicts all.
    """
    if isinstance(predictor, Ensemble):
        members = (
            adjust_inference(member, batch_size, overlap, precision, crop_body_mm) for member in predictor.members
        )
        return replace(predictor, members=tuple(member for member in members if isinstance(member, Predictor)))
    if isinstance(predictor, Detector):
        voxel_networks, box_networks = (
            tuple(_set_precision(network, precision) for network in networks)
            for networks in (predictor.voxel_networks, predictor.box_networks)
        )
        predictor = replace(predictor, voxel_networks=voxel_networks, box_networks=box_networks)
    else:
        network = _set_precision(predictor.network, precision)
        predictor = replace(predictor, network=network, crop_body_mm=crop_body_mm)
    return replace(predictor, batch_size=batch_size, overlap=predictor.overlap if overlap is None else overlap)


def _set_precision(network: Network, precision: Precision) -> Network:
    return replace(network, precision=precision) if isinstance(network, TorchNetwork) else network


def require_same_inputs(runs: Sequence[Run]) -> ModelInterface:
    """Returns the model of the first run; raises BadInput if another run has other inputs or classes."""
    first, *others = [read_interface(run) for run in runs]
    for run, model in zip(runs[1:], others, strict=True):
        different = [name for name in INPUT_FIELDS if getattr(model, name, None) != getattr(first, name, None)]
        if different:
            raise BadInput(f"{run.path}: its {', '.join(different)} differ from {runs[0].path}; predict each alone")
    return first


def tta_views(runs: Sequence[Run]) -> tuple[MirrorView, ...]:
    """Returns the mirrored views that all runs were trained on, identity first.

    A view is left out if mirroring would swap left and right class names that have no counterpart.
    """
    views = mirror_views(list_mirror_axes(runs), require_same_inputs(runs).labels)
    if len(views) == 1:
        raise BadInput(f"{runs[0].path}: trained without mirrored crops (augment.flip); predict without --tta")
    return views


def list_mirror_axes(runs: Sequence[Run]) -> list[int]:
    """Returns the axes along which the training of all runs mirrored."""
    flips = [run.read_settings().get("augment", {}).get("flip", (False,) * 3) for run in runs]
    return [axis for axis in range(3) if all(flip[axis] for flip in flips)]


def describe_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns path and weight digest of the runs, for the index of a predictions folder."""
    entries = [{"run": str(run.path), "weights_sha256": run.metadata["weights_sha256"]} for run in runs]
    if len(entries) == 1:
        return entries[0]
    return {name: ", ".join(entry[name] for entry in entries) for name in entries[0]} | {"runs": entries}
