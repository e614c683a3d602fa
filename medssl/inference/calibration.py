"""Calibration of runs: a temperature and lesion thresholds, stored as calibration.json."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.special import expit, logit

from medssl import config
from medssl.errors import BadInput, InputWarning
from medssl.files import CHECKSUMS, write_checksums, write_json
from medssl.inference.predictor import MIN_PROBABILITY
from medssl.run import Run
from medssl.settings import Settings

CALIBRATION_FILE = "calibration.json"
TEMPERATURE_RANGE = (0.011, 90)  # a fitted temperature outside lies at the end of the search range


class Threshold(Settings):
    """The score threshold of a lesion label, and the sensitivity it was chosen for."""

    threshold: float = Field(description="lowest score of a finding that counts, 0 to 1")
    sensitivity: float = Field(description="fraction of a patient's lesions expected to score at least the threshold")
    patients: int = Field(description="number of calibration patients with lesions")
    guarantee: str = Field(description="what the threshold guarantees, and under which conditions")


class Calibration(Settings):
    """The calibration of one run, or of several runs that predict together.

    For a segmentation it applies to voxel probabilities, for a detector to the scores of findings.
    """

    measured: Literal["voxels", "findings"] = Field(
        "voxels", description="what was calibrated: voxel probabilities or the scores of findings"
    )
    temperature: PositiveFloat = Field(1.0, description="divisor of the logits; 1 leaves them unchanged")
    offset: float = Field(0.0, description="findings: added to the logit after its division by the temperature")
    thresholds: dict[str, Threshold] = Field({}, description="score threshold by lesion label")
    weights_sha256: tuple[str, ...] = Field((), description="digests of the weights of the calibrated runs, in order")
    tta: bool = Field(False, description="whether the runs predicted with test-time augmentation")
    cases: tuple[str, ...] = Field((), description="the cases that the calibration was fitted on")
    nll: tuple[float, float] | None = Field(
        None, description="negative log-likelihood before and after calibration, nats per voxel or finding"
    )
    ece: tuple[float, float] | None = Field(
        None, description="expected calibration error before and after calibration, 0 to 1"
    )

    @classmethod
    def load(cls, runs: Sequence[Run], file: Path | None = None) -> "Calibration":
        """Reads the calibration of runs.

        Args:
            runs: The runs that predict.
            file: The file to read. Without it, a single run uses the calibration in its own folder if it has one, and
                several runs stay uncalibrated.

        Raises:
            BadInput: The file is no calibration, or it belongs to other weights.
        """
        path = file or runs[0].path / CALIBRATION_FILE
        if not file and (len(runs) > 1 or not path.is_file()):
            return cls()
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            calibration = config.check(dict(fields), cls, str(path))
        except FileNotFoundError:
            raise BadInput(f"{path}: no such file; `medssl calibrate RUN --manifest MANIFEST` writes one") from None
        except (ValueError, TypeError) as error:
            raise BadInput(f"{path}: not a calibration ({error}); calibrate again") from None
        if calibration.weights_sha256 != read_weight_digests(runs):
            raise BadInput(f"{path}: was fitted for other weights; calibrate these runs")
        return calibration

    def write(self, runs: Sequence[Run], file: Path | None = None) -> Path:
        """Writes the calibration to a file, or to the folder of a single run, and returns the path.

        The checksums of the run, if there are any, then include the calibration.
        """
        path = file or runs[0].path / CALIBRATION_FILE
        write_json(path, self.model_dump(mode="json"))
        if path.parent == runs[0].path and (path.parent / CHECKSUMS).is_file():
            write_checksums(runs[0].path, (CALIBRATION_FILE,))
        return path

    def check_augmentation(self, tta: bool) -> None:
        """Warns if the calibrated runs predicted with test-time augmentation and now do without it, or the reverse."""
        if tta != self.tta and self.weights_sha256:
            calibrated, predicted = ("with", "without") if self.tta else ("without", "with")
            warnings.warn(
                f"these runs were calibrated {calibrated} test-time augmentation but predict {predicted} it: "
                "the calibration may not hold",
                InputWarning,
                stacklevel=3,
            )

    def summary_lines(self) -> list[str]:
        """Returns the fitted values and what they changed, one line each."""
        rows = [("negative log-likelihood", self.nll), ("expected calibration error", self.ece)]
        changes = [f"{name} {pair[0]:.4f} -> {pair[1]:.4f}" for name, pair in rows if pair]
        low, high = TEMPERATURE_RANGE
        edge = " (the end of the search range: these cases do not determine it)" * (not low < self.temperature < high)
        single = "; a single case does not generalize to others" * (len(self.cases) == 1)
        offset = f" and offset {self.offset:+.3f}" if self.measured == "findings" else ""
        return [
            f"{self.measured}: temperature {self.temperature:.3f}{offset} on {len(self.cases)} cases{edge}{single}",
            *changes,
        ]

    def calibrate_score(self, raw: float) -> float:
        """Returns the calibrated score of a finding, given the raw score of a detector."""
        if (self.temperature, self.offset) == (1.0, 0.0):
            return raw
        return float(expit(logit(np.clip(raw, MIN_PROBABILITY, 1 - MIN_PROBABILITY)) / self.temperature + self.offset))

    def to_index_fields(self) -> Mapping[str, object]:
        """Returns the fields of a predictions index that describe the calibration.

        The temperature is 1 for findings: it changed their scores, not the voxel probabilities.
        """
        return {
            "temperature": self.temperature if self.measured == "voxels" else 1.0,
            "thresholds": {name: threshold.threshold for name, threshold in self.thresholds.items()},
            "guarantee": {name: threshold.guarantee for name, threshold in self.thresholds.items()},
            "calibrated_on": list(self.cases),
        }


def read_weight_digests(runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns the SHA-256 digests of the weights of runs."""
    return tuple(str(run.metadata["weights_sha256"]) for run in runs)
