"""Opens models of any format for prediction: finished runs, which need torch, or ONNX files, which do not."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.models.prediction.prepared import PredictionOptions, PreparedPrediction
from medssl.volume import Volume

ONNX_SUFFIX = ".onnx"


@runtime_checkable
class PredictingModels(Protocol):
    """Models that predict together, or each its own cases."""

    def prepare(self, options: PredictionOptions) -> PreparedPrediction:
        """Loads the models in this process."""

    def prepare_in_worker(self, options: PredictionOptions, num_threads: int) -> PreparedPrediction:
        """Loads the models in one of several worker processes; `num_threads` 0 leaves the number of threads open."""

    def list_scans(self, source: Path, split: str, modality: str) -> list[ScanRef]:
        """Lists the scans to predict: those of a folder, or of a split of a manifest."""

    def require_device(self, name: str) -> None:
        """Raises BadInput if this machine does not have a device."""


def open_models(paths: Sequence[Path], source: Path | None = None, split: str = "") -> PredictingModels:
    """Returns the models at some paths.

    Args:
        paths: Folders of finished finetunings, or ONNX files that `medssl publish` wrote; several form an ensemble.
        source: A store's manifest.csv, or a folder of scans.
        split: The split of the manifest; `held-out` lets each run predict the cases that it held out.

    Raises:
        BadInput: If runs and files are mixed.
    """
    is_onnx = {path.suffix == ONNX_SUFFIX for path in paths}
    if len(is_onnx) > 1:
        raise BadInput("runs and ONNX files cannot predict together; give only runs, or publish each with --onnx")
    module = "medssl.models.portable.onnx_models" if is_onnx == {True} else "medssl.models.prediction_setup"
    models: PredictingModels = import_module(module).open_models(paths, source, split)
    return models


@dataclass(frozen=True)
class WorkerPredictor:
    """Predicts cases in worker processes, each of which loads the models with its first case.

    Args:
        paths: The paths of the models.
        source: The source of the scans.
        split: The split of the source.
        options: How the models predict.
        num_threads: The number of threads of each process; 0 leaves it as it is.
    """

    paths: tuple[Path, ...]
    source: Path
    split: str
    options: PredictionOptions
    num_threads: int = 0

    @classmethod
    def create(
        cls, paths: Sequence[Path], source: Path, split: str, options: PredictionOptions, num_local_workers: int
    ) -> "WorkerPredictor":
        """Returns what predicts scans.

        Args:
            paths: The paths of the models.
            source: A store's manifest.csv, or a folder of scans.
            split: The split of the manifest.
            options: How the models predict.
            num_local_workers: The number of processes that share the processors of this machine; 0 for a cluster.

        Raises:
            BadInput: If local processes lack the requested device.
        """
        if options.device and num_local_workers:
            open_models(paths).require_device(options.device)
        calibration = options.calibration.absolute() if options.calibration else None
        num_threads = max(1, (os.cpu_count() or 1) // num_local_workers) if num_local_workers else 0
        absolute = tuple(path.absolute() for path in paths)
        return cls(absolute, source.absolute(), split, replace(options, calibration=calibration), num_threads)

    def __call__(self, volume: Volume, case: str) -> PredictionSource:
        """Predicts a case while the result is read."""
        return _load_once(self).stream(volume, case)


@lru_cache(maxsize=1)
def _load_once(predictor: WorkerPredictor) -> PreparedPrediction:
    """Loads the models in a worker process."""
    models = open_models(predictor.paths, predictor.source, predictor.split)
    return models.prepare_in_worker(predictor.options, predictor.num_threads)
