"""Models that are ready to predict many cases: what predicts a volume, and what the index states about it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.predictor import Predictor
from medssl.inference.sliding_window import Precision
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.models.prediction.interface import ModelInterface
from medssl.volume import Volume

PooledPredictor = Predictor | Ensemble | Detector
MAX_OVERLAP = 0.9
PRECISION: Precision = "fp32"


@dataclass(frozen=True)
class PredictionOptions:
    """How models predict.

    Args:
        tta: Whether mirrored views are averaged.
        calibration: A file that `medssl calibrate` wrote; None for the model's own.
        channels: The network channels that the scans have; () for all.
        device: "cpu" or a GPU; empty for a GPU if there is one.
        batch_size: The number of windows per forward pass.
        overlap: The fraction of a window that overlaps the next one; None for the models' own.
        precision: "fp32" or "bf16".
        crop_body_mm: The distance from the body up to which voxels are predicted; None predicts all.

    Raises:
        BadInput: The batch, the overlap or the distance is impossible.
    """

    tta: bool = False
    calibration: Path | None = None
    channels: tuple[int, ...] = ()
    device: str = ""
    batch_size: int = 2
    overlap: float | None = None
    precision: Precision = PRECISION
    crop_body_mm: float | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= (self.overlap or 0) <= MAX_OVERLAP:
            raise BadInput(
                f"--batch {self.batch_size} --overlap {self.overlap}: give a batch of at least 1 and an overlap of 0 "
                f"to {MAX_OVERLAP}"
            )
        if self.crop_body_mm is not None and not 0 <= self.crop_body_mm < math.inf:
            raise BadInput(f"--crop-body {self.crop_body_mm}: give a margin in mm, 0 or more")

    def to_index_fields(self) -> dict[str, Any]:
        """Returns the options that change results, as far as they are not the default."""
        fields = {"channels": list(self.channels), "tta": self.tta}
        window = {"overlap": self.overlap, "precision": self.precision, "crop-body": self.crop_body_mm}
        defaults = {"overlap": None, "precision": PRECISION, "crop-body": None}
        return {k: v for k, v in fields.items() if v} | {k: v for k, v in window.items() if v != defaults[k]}


@dataclass(frozen=True, eq=False)
class PreparedPrediction:
    """Loaded models.

    Args:
        predictors: One predictor for each group of models.
        interface: The inputs and the classes of the models.
        model: What the index states about the models: their paths and the hashes of their weights.
        calibration: The calibration of the models.
        options: How the models predict.
        group_of_case: The index of the predictor of a case; that of other cases is the first one.

    Raises:
        BadInput: The options do not fit the models.
    """

    predictors: tuple[PooledPredictor, ...]
    interface: ModelInterface
    model: Mapping[str, Any]
    calibration: Calibration
    options: PredictionOptions
    group_of_case: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options.crop_body_mm is not None and not all(_knows_background(p) for p in self.predictors):
            raise BadInput(
                "--crop-body: only segmentations, other than networks of MONAI bundles, can leave out what is far from"
                " the body; leave it out"
            )

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights; of several models, their hashes."""
        return str(self.model["weights_sha256"])

    def stream(self, volume: Volume, case: str) -> PredictionSource:
        """Predicts a case while the result is read."""
        return self.predictors[self.group_of_case.get(case, 0)].stream(volume, case)

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
            self.interface.labels,
            self.model,
            self.interface.list_kinds(),
            uncertainty=self._describe_uncertainty(),
            requested=list(cases),
            options=options | self.options.to_index_fields(),
            **self.calibration.to_index_fields(),
        )

    def _describe_uncertainty(self) -> str:
        """Returns what the uncertainty files measure; empty if one prediction is made."""
        first = self.predictors[0]
        if isinstance(first, Predictor) or first.num_predictions < 2:
            return ""
        networks = first.members if isinstance(first, Ensemble) else first.voxel_networks
        return f"disagreement of {' and '.join(['runs'] * (len(networks) > 1) + ['mirrored views'] * self.options.tta)}"


def _knows_background(predictor: PooledPredictor) -> bool:
    """Returns whether windows that are not computed can be background."""
    if isinstance(predictor, Ensemble):
        return all(map(_knows_background, predictor.members))
    return isinstance(predictor, Predictor) and predictor.activate is None
