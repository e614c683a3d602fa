"""Prepares runs for the prediction of many cases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import current_process
from pathlib import Path

import torch

from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.models.fold_assignment import FoldAssignment
from medssl.models.model_pool import adjust_inference, load_predictor, require_same_inputs
from medssl.models.prediction.prepared import PredictionOptions, PreparedPrediction
from medssl.models.trained_model import default_device, require_device
from medssl.run import Run


@dataclass(frozen=True)
class RunModels:
    """Finished runs as models that predict.

    Args:
        assignment: The runs, and the cases that each of them predicts.
    """

    assignment: FoldAssignment

    def prepare(self, options: PredictionOptions) -> PreparedPrediction:
        """Loads the runs.

        Raises:
            BadInput: If the runs do not fit together, or the device or another option is impossible.
        """
        assignment, runs = self.assignment, self.assignment.runs
        device = require_device(options.device) if options.device else default_device()
        network = require_same_inputs(runs)
        if assignment.run_of_case and options.calibration:
            raise BadInput(
                "--calibration: held-out cases are predicted without calibration; leave it out, evaluate, then "
                "calibrate"
            )
        calibration = Calibration() if assignment.run_of_case else Calibration.load(runs, options.calibration)
        load = partial(
            load_predictor, tta=options.tta, calibration=calibration, device=device, channels=options.channels
        )
        predictors = tuple(
            adjust_inference(load(group), options.batch_size, options.overlap, options.precision, options.crop_body_mm)
            for group in assignment.run_groups()
        )
        model = assignment.describe_model()
        return PreparedPrediction(predictors, network, model, calibration, options, assignment.run_of_case)

    def prepare_in_worker(self, options: PredictionOptions, num_threads: int) -> PreparedPrediction:
        """Loads the runs in a worker process, on a GPU that it shares with as few others as possible."""
        if num_threads:
            torch.set_num_threads(num_threads)
        device, name = options.device or default_device(), current_process().name
        return self.prepare(replace(options, device=choose_worker_device(device, name, torch.cuda.device_count())))

    def list_scans(self, source: Path, split: str, modality: str) -> list[ScanRef]:
        """Lists the scans to predict: those of the split or folder, or those that the runs held out."""
        return self.assignment.list_scans(source, split, modality)

    def require_device(self, name: str) -> None:
        """Raises BadInput if this machine does not have a torch device."""
        require_device(name)


def open_models(paths: Sequence[Path], source: Path | None, split: str) -> RunModels:
    """Opens finished runs; the arguments are those of `medssl.models.prediction.open_models.open_models`."""
    runs = [Run.open(path) for path in paths]
    return RunModels(FoldAssignment.for_split(runs, source, split) if source else FoldAssignment(tuple(runs)))


def choose_worker_device(device: str, process_name: str, num_gpus: int) -> str:
    """Returns the device of a worker process: workers whose names end in consecutive numbers take the GPUs in turn.

    Args:
        device: The requested device; "cuda" leaves the choice of the GPU open.
        process_name: The name of the process, for example "ForkServerProcess-3".
        num_gpus: The number of GPUs of this machine.
    """
    number = process_name.rpartition("-")[2]
    return f"cuda:{int(number) % num_gpus}" if device == "cuda" and num_gpus and number.isdigit() else device
