"""Prepares ONNX files for the prediction of many cases, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.data.ingest.read_source import ScanRef, list_scans
from medssl.errors import BadInput
from medssl.files import sha256
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.onnx_network import OnnxNetwork, require_provider
from medssl.inference.predictor import Predictor
from medssl.inference.sliding_window import OVERLAP
from medssl.inference.test_time_augmentation import MirrorView, mirror_views
from medssl.models.portable.portable_model import BOX_CORNERS, BOX_SCORES, PROBABILITY, PortableModel
from medssl.models.prediction.prepared import PooledPredictor, PredictionOptions, PreparedPrediction

SHARED_FIELDS = ("in_channels", "normalization", "spacing_mm", "labels", "patch_size", "head", "mirror_axes")


@dataclass(frozen=True)
class OnnxModels:
    """ONNX files as models that predict.

    Args:
        paths: The files; several form an ensemble.
        models: Their metadata.
    """

    paths: tuple[Path, ...]
    models: tuple[PortableModel, ...]

    def prepare(self, options: PredictionOptions, num_threads: int = 0) -> PreparedPrediction:
        """Loads the files.

        Args:
            options: How they predict.
            num_threads: The number of threads; 0 for the default of `OnnxNetwork.open`.

        Raises:
            BadInput: If the files do not fit together, or an option is impossible.
        """
        if options.channels or options.precision != "fp32" or options.calibration:
            raise BadInput("--channels, --precision and --calibration need the run itself; an ONNX file is complete")
        device, first = require_provider(options.device or "cpu"), self.models[0]
        networks = [
            OnnxNetwork.open(path, model.in_channels, model.patch_size, device, num_threads)
            for path, model in zip(self.paths, self.models, strict=True)
        ]
        for network, model in zip(networks, self.models, strict=True):
            network.require_classes(PROBABILITY, max(model.labels) + 1)
        views = _list_views(first, self.paths[0]) if options.tta else (MirrorView(),)
        calibration = first.calibration if len(self.models) == 1 else Calibration()
        calibration.check_augmentation(options.tta)
        build = _build_segmenter if first.head == "segment" else _build_detector
        predictor = build(_Setup(networks, first, views, calibration, options))
        return PreparedPrediction((predictor,), first, self._describe(), calibration, options)

    def prepare_in_worker(self, options: PredictionOptions, num_threads: int) -> PreparedPrediction:
        """Loads the files in one of several worker processes."""
        return self.prepare(options, num_threads)

    def list_scans(self, source: Path, split: str, modality: str) -> list[ScanRef]:
        """Lists the scans to predict: those of a folder, or of a split of a manifest."""
        return list_scans(source, split, modality)

    def require_device(self, name: str) -> None:
        """Raises BadInput if onnxruntime cannot use a device."""
        require_provider(name)

    def _describe(self) -> Mapping[str, Any]:
        """Returns what an index states about the files."""
        entries = [{"run": str(path), "weights_sha256": sha256(path)} for path in self.paths]
        if len(entries) == 1:
            return entries[0]
        return {name: ", ".join(entry[name] for entry in entries) for name in entries[0]} | {"runs": entries}


def open_models(paths: Sequence[Path], source: Path | None, split: str) -> OnnxModels:
    """Opens ONNX files; the arguments are those of `medssl.models.prediction.open_models.open_models`.

    Raises:
        BadInput: If a file was not published by medssl, or the files have different inputs or classes.
    """
    if split == "held-out":
        raise BadInput("--split held-out: an ONNX file does not know which cases its run held out; give the runs")
    first, *others = models = [PortableModel.read(path) for path in paths]
    for path, model in zip(paths[1:], others, strict=True):
        different = [name for name in SHARED_FIELDS if getattr(model, name) != getattr(first, name)]
        if different:
            raise BadInput(f"{path}: its {', '.join(different)} differ from {paths[0]}; predict each alone")
    return OnnxModels(tuple(paths), tuple(models))


@dataclass(frozen=True)
class _Setup:
    """What a predictor is built from: opened files of one kind, and how they predict."""

    networks: Sequence[OnnxNetwork]
    model: PortableModel
    views: tuple[MirrorView, ...]
    calibration: Calibration
    options: PredictionOptions

    @property
    def overlap(self) -> float:
        """The fraction of a window that overlaps the next one."""
        return OVERLAP if self.options.overlap is None else self.options.overlap


def _build_segmenter(setup: _Setup) -> PooledPredictor:
    """Returns the predictor of one file, or the ensemble of several files or views."""
    model, options = setup.model, setup.options
    members = tuple(
        Predictor(
            network.select_outputs([PROBABILITY]), model.prepare, model.patch_size, model.labels, setup.overlap,
            options.batch_size, organs=model.list_organs(), crop_body_mm=options.crop_body_mm,
        )
        for network in setup.networks
    )  # fmt: skip
    if len(members) * len(setup.views) == 1:
        return replace(members[0], temperature=setup.calibration.temperature)
    return Ensemble(members, setup.views, setup.calibration.temperature)


def _build_detector(setup: _Setup) -> PooledPredictor:
    """Returns the detector of one or several files."""
    model = setup.model
    voxels, boxes = (
        tuple(network.select_outputs(names) for network in setup.networks if set(names) <= set(model.outputs))
        for names in ((PROBABILITY,), (BOX_SCORES, BOX_CORNERS))
    )
    return Detector(
        voxels, boxes, model.prepare, model.patch_size, model.labels, setup.overlap, setup.options.batch_size,
        model.min_score, setup.views, setup.calibration.calibrate_score,
    )  # fmt: skip


def _list_views(model: PortableModel, path: Path) -> tuple[MirrorView, ...]:
    """Returns the mirrored views that the network was trained on."""
    views = mirror_views(model.mirror_axes, model.labels)
    if len(views) == 1:
        raise BadInput(f"{path}: trained without mirrored crops; predict without --tta")
    return views
