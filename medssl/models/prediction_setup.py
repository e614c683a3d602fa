"""Prepares runs for the prediction of many cases: what predicts a volume, and what the index states about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.models.fold_assignment import FoldAssignment
from medssl.models.model_pool import PooledPredictor, Precision, adjust_inference, load_predictor, require_same_inputs
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
