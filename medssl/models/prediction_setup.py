"""Prepares runs for the prediction of many cases: what predicts a volume, and what the index states about it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import torch

from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import Precision
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.models.fold_assignment import FoldAssignment
from medssl.models.model_pool import PooledPredictor, adjust_inference, load_predictor, require_same_inputs
from medssl.models.trained_model import TrainedModel, default_device, require_device
from medssl.run import Run
from medssl.volume import Volume

OVERLAP = 0.5
PRECISION: Precision = "fp32"


@dataclass(frozen=True)
class PredictionOptions:
    """How runs predict.

    Args:
        tta: Whether mirrored views are averaged.
        calibration: A file that `medssl calibrate` wrote; None for the run's own.
        channels: The network channels that the scans have; () for all.
        device: The torch device; empty for a GPU if there is one.
        batch_size: The number of windows per forward pass.
        overlap: The fraction of a window that overlaps the next one.
        precision: "fp32" or "bf16".
    """

    tta: bool = False
    calibration: Path | None = None
    channels: tuple[int, ...] = ()
    device: str = ""
    batch_size: int = 2
    overlap: float = OVERLAP
    precision: Precision = PRECISION

    def to_index_fields(self) -> dict[str, Any]:
        """Returns the options that change results, as far as they are not the default."""
        fields = {"channels": list(self.channels), "tta": self.tta}
        window = {"overlap": self.overlap, "precision": self.precision}
        defaults = {"overlap": OVERLAP, "precision": PRECISION}
        return {k: v for k, v in fields.items() if v} | {k: v for k, v in window.items() if v != defaults[k]}


@dataclass(frozen=True, eq=False)
class PreparedPrediction:
    """Loaded runs.

    Args:
        assignment: The runs, and the cases that each of them predicts.
        predictors: One predictor for each group of runs.
        network: The inputs and the classes of the runs.
        calibration: The calibration of the runs.
        options: How the runs predict.
    """

    assignment: FoldAssignment
    predictors: tuple[PooledPredictor, ...]
    network: TrainedModel
    calibration: Calibration
    options: PredictionOptions

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights; of several runs, their hashes."""
        return str(self.assignment.describe_model()["weights_sha256"])

    def stream(self, volume: Volume, case: str) -> PredictionSource:
        """Predicts a case while the result is read."""
        return self.assignment.stream(volume, case, self.predictors)

    def open_writer(self, folder: Path, cases: Sequence[str], resume: bool, **options: Any) -> PredictionWriter:
        """Returns a writer for the predictions of cases.

        Args:
            folder: The predictions folder.
            cases: The cases that are to be predicted.
            resume: Whether the folder may exist already.
            **options: Further options of the command that change how scans are read.
        """
        open_folder = PredictionWriter.resume if resume else PredictionWriter.create
        return open_folder(
            folder,
            self.network.labels,
            self.assignment.describe_model(),
            self.network.list_kinds(),
            uncertainty=self._describe_uncertainty(),
            requested=list(cases),
            options=options | self.options.to_index_fields(),
            **self.calibration.to_index_fields(),
        )

    def _describe_uncertainty(self) -> str:
        """Returns what the uncertainty files measure; empty if one prediction is made."""
        first, tta = self.predictors[0], self.options.tta
        sources = ["runs"] * (len(self.assignment.run_groups()[0]) > 1) + ["mirrored views"] * tta
        has_several = isinstance(first, Ensemble | Detector) and first.num_predictions > 1
        return f"disagreement of {' and '.join(sources)}" if has_several else ""


@dataclass(frozen=True)
class WorkerPredictor:
    """Predicts cases in worker processes, each of which loads the runs with its first case.

    Args:
        runs: The folders of the runs.
        run_of_case: The cases that one run alone predicts, each with the index of its run.
        options: How the runs predict.
        num_threads: The number of threads of each process; 0 leaves it as it is.
    """

    runs: tuple[Path, ...]
    run_of_case: tuple[tuple[str, int], ...]
    options: PredictionOptions
    num_threads: int = 0

    @classmethod
    def create(
        cls, assignment: FoldAssignment, options: PredictionOptions, num_local_workers: int
    ) -> "WorkerPredictor":
        """Returns what predicts the cases of an assignment.

        Args:
            assignment: The runs, and the cases that each of them predicts.
            options: How they predict.
            num_local_workers: The number of processes that share the processors of this machine; 0 for a cluster.
        """
        if options.device and num_local_workers:
            require_device(options.device)
        runs = tuple(run.path.absolute() for run in assignment.runs)
        calibration = options.calibration.absolute() if options.calibration else None
        num_threads = max(1, (os.cpu_count() or 1) // num_local_workers) if num_local_workers else 0
        cases = tuple(assignment.run_of_case.items())
        return cls(runs, cases, replace(options, calibration=calibration), num_threads)

    def __call__(self, volume: Volume, case: str) -> PredictionSource:
        """Predicts a case while the result is read."""
        return _load_once(self).stream(volume, case)


@lru_cache(maxsize=1)
def _load_once(predictor: WorkerPredictor) -> PreparedPrediction:
    """Loads the runs in a worker process, on a GPU that it shares with as few others as possible."""
    if predictor.num_threads:
        torch.set_num_threads(predictor.num_threads)
    runs, options = [Run.open(path) for path in predictor.runs], predictor.options
    device = choose_worker_device(options.device or default_device(), current_process().name, torch.cuda.device_count())
    return prepare_prediction(
        runs, replace(options, device=device), FoldAssignment(tuple(runs), dict(predictor.run_of_case))
    )


def choose_worker_device(device: str, process_name: str, num_gpus: int) -> str:
    """Returns the device of a worker process: workers whose names end in consecutive numbers take the GPUs in turn.

    Args:
        device: The requested device; "cuda" leaves the choice of the GPU open.
        process_name: The name of the process, for example "ForkServerProcess-3".
        num_gpus: The number of GPUs of this machine.
    """
    number = process_name.rpartition("-")[2]
    return f"cuda:{int(number) % num_gpus}" if device == "cuda" and num_gpus and number.isdigit() else device


def prepare_prediction(
    runs: Sequence[Run], options: PredictionOptions, assignment: FoldAssignment | None = None
) -> PreparedPrediction:
    """Loads runs.

    Args:
        runs: Finished finetuning runs; several form an ensemble.
        options: How they predict.
        assignment: The cases that each run predicts; None lets all runs predict every case together.

    Raises:
        BadInput: If the runs do not fit together, or the device or another option is impossible.
    """
    device = require_device(options.device) if options.device else default_device()
    network = require_same_inputs(runs)
    assignment = assignment or FoldAssignment(tuple(runs))
    if assignment.run_of_case and options.calibration:
        raise BadInput(
            "--calibration: held-out cases are predicted without calibration; leave it out, evaluate, then calibrate"
        )
    calibration = Calibration() if assignment.run_of_case else Calibration.load(runs, options.calibration)
    load = partial(load_predictor, tta=options.tta, calibration=calibration, device=device, channels=options.channels)
    predictors = tuple(
        adjust_inference(load(group), options.batch_size, options.overlap, options.precision)
        for group in assignment.run_groups()
    )
    return PreparedPrediction(assignment, predictors, network, calibration, options)
