"""Calibration of a run: a temperature and lesion thresholds, measured on cases held out, kept beside its weights."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat
from scipy.special import expit, logit

from medssl import config
from medssl.errors import BadInput
from medssl.files import SEALS, seal, write_json
from medssl.inference.predictor import LEAST
from medssl.run import Run
from medssl.settings import Settings

FILE = "calibration.json"


class Threshold(Settings):
    """The score from which findings of a label count, the sensitivity that keeps, and on how many patients it rests."""

    threshold: float
    sensitivity: float
    patients: int
    promise: str


class Calibration(Settings):
    """How probabilities are tempered and which findings count, with what that changed on the cases it was fitted on.

    Of a segmentation it is the probabilities of voxels, of a detector the scores of its findings. `weights_sha256` are
    those it belongs to; of several runs, in their order.
    """

    measured: Literal["voxels", "findings"] = "voxels"
    temperature: PositiveFloat = 1.0
    offset: float = Field(0.0, description="of findings: added to the logit that was divided by the temperature")
    thresholds: dict[str, Threshold] = Field({}, description="by the name of the label")
    weights_sha256: tuple[str, ...] = ()
    mirror: bool = Field(False, description="whether mirrored views were asked")
    cases: tuple[str, ...] = ()
    nll: tuple[float, float] | None = Field(None, description="before and after, in nats a voxel or finding")
    ece: tuple[float, float] | None = Field(None, description="before and after")

    @classmethod
    def of(cls, runs: Sequence[Run], file: Path | None = None) -> "Calibration":
        """From `file`, or of a single run from its own folder; without either, one that changes nothing."""
        place = file or runs[0].path / FILE
        if not file and (len(runs) > 1 or not place.is_file()):
            return cls()
        try:
            told = json.loads(place.read_text(encoding="utf-8"))
            found = config.check(dict(told), cls, str(place))
        except FileNotFoundError:
            raise BadInput(f"{place}: no such file; `medssl calibrate RUN --manifest MANIFEST` writes one") from None
        except (ValueError, TypeError) as error:
            raise BadInput(f"{place}: not a calibration ({error}); calibrate again") from None
        if found.weights_sha256 != weights(runs):
            raise BadInput(f"{place}: was measured on other weights than these; calibrate these runs")
        return found

    def write(self, runs: Sequence[Run], file: Path | None = None) -> Path:
        """Writes `file`, or into the folder of a single run, whose seal, if it has one, then covers it."""
        place = file or runs[0].path / FILE
        write_json(place, self.model_dump(mode="json"))
        if place.parent == runs[0].path and (place.parent / SEALS).is_file():
            seal(runs[0].path, (FILE,))
        return place

    def told(self) -> list[str]:
        """What was found, for a person."""
        rows = [("negative log-likelihood", self.nll), ("expected calibration error", self.ece)]
        changed = [f"{name} {pair[0]:.4f} -> {pair[1]:.4f}" for name, pair in rows if pair]
        edge = " (the end of what was tried: these cases do not say)" * (not 0.011 < self.temperature < 90)
        few = "; of one case, which tells nothing of others" * (len(self.cases) == 1)
        offset = f" and offset {self.offset:+.3f}" if self.measured == "findings" else ""
        return [
            f"{self.measured}: temperature {self.temperature:.3f}{offset} on {len(self.cases)} cases{edge}{few}",
            *changed,
        ]

    def score(self, raw: float) -> float:
        """The score of a finding that a detector gave a raw score."""
        if (self.temperature, self.offset) == (1.0, 0.0):
            return raw
        return float(expit(logit(np.clip(raw, LEAST, 1 - LEAST)) / self.temperature + self.offset))

    def index(self) -> Mapping[str, object]:
        """What the index of a predictions folder says of it; of findings, the scores themselves are what it changed."""
        thresholds = {name: told.threshold for name, told in self.thresholds.items()}
        promise = {name: told.promise for name, told in self.thresholds.items()}
        temperature = self.temperature if self.measured == "voxels" else 1.0
        on = list(self.cases)
        return {"temperature": temperature, "thresholds": thresholds, "promise": promise, "calibrated_on": on}


def weights(runs: Sequence[Run]) -> tuple[str, ...]:
    """What the weights of runs are known by."""
    return tuple(str(run.card["weights_sha256"]) for run in runs)
