"""A predictions folder as it is read: which cases a model predicted, their files, and what it found."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.errors import BadInput
from medssl.finding import Finding, Point
from medssl.io import dates

NOTICE = "Research use only. Not for clinical use."
INDEX, IMAGE, LABELS, PROBABILITY, UNCERTAINTY, FINDINGS = (
    "index.json", "image.nii.gz", "labels.nii.gz", "probability.nii.gz", "uncertainty.nii.gz", "findings.json",
)  # fmt: skip
# Which an index may lack.
LATER = ("uncertainty", "temperature", "thresholds", "promise", "calibrated_on", "asked", "unread", "options")


@dataclass(frozen=True)
class Label:
    """A voxel value, what it stands for, and its colour as #rrggbb."""

    value: int
    name: str
    colour: str


@dataclass(frozen=True)
class Study:
    """Whose scan a case is, and how many days after the patient's first one it was made; empty where nobody told.

    `date` (YYYYMMDD) is there only where somebody wrote it: it can point to a person, a number of days cannot.
    """

    patient: str = ""
    date: str = ""
    day: int | None = None

    def days_after(self, other: "Study") -> int | None:
        """The days from another study of the patient to this one; None where they are not known."""
        if self.day is not None and other.day is not None:
            return self.day - other.day
        first, last = dates.number(other.date), dates.number(self.date)
        return last - first if first and last else None


@dataclass(frozen=True)
class Index:
    """The cases of a predictions folder, the labels they may carry, and the model that predicted them.

    `units` says of each case what its image's voxels measure; `model` holds the run's path, the hash of its weights
    and the version of the code. `uncertainty` says what each case's uncertainty file measures, and is empty where there
    is none. Probabilities were calibrated with `temperature` (1: as they came); of a label in `thresholds`, findings
    count from that score on, and `promise` says what for; `calibrated_on` are the cases that both were measured on.
    `asked` are the cases that were to be predicted, and `unread` says why some could not be; `options` are the words of
    the command that decide what a scan is read as.
    """

    folder: Path
    cases: tuple[str, ...]
    units: dict[str, str]
    labels: tuple[Label, ...]
    model: dict[str, Any]
    created: str
    notice: str = NOTICE
    uncertainty: str = ""
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    promise: dict[str, str] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    studies: dict[str, Study] = field(default_factory=dict)

    def study(self, name: str) -> Study:
        """Whose scan a case is."""
        return self.studies.get(name, Study())

    @property
    def missing(self) -> list[str]:
        """The cases that were to be predicted and are not here: nobody came to them yet, or they could not be read."""
        return [case for case in self.asked if case not in self.cases]

    @property
    def weights(self) -> str:
        """The hash of the model's weights; empty where nobody told."""
        return str(self.model.get("weights_sha256", ""))

    def case(self, name: str) -> Path:
        """The folder of one case, with its image, labels, probability and findings."""
        if name not in self.cases:
            raise BadInput(f"{name!r} is no case of {self.folder}; see its {INDEX}")
        return self.folder / name


def read_index(folder: Path | str) -> Index:
    """What a predictions folder holds."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise BadInput(f"{folder}: no predictions here ({INDEX} is missing); `medssl predict RUN SCANS --out {folder}`")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        units = {case["id"]: case["unit"] for case in told["cases"]}
        labels = tuple(Label(**label) for label in told["labels"])
        later = {name: told[name] for name in LATER if name in told}
        later["studies"] = {case["id"]: _study(case) for case in told["cases"]}
        return Index(Path(folder), tuple(units), units, labels, told["model"], told["created"], told["notice"], **later)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not an index of predictions ({error}); predict again") from None


def read_findings(case_folder: Path | str) -> tuple[Finding, ...]:
    """The findings of one case, the largest of each label first."""
    path = Path(case_folder) / FINDINGS
    try:
        return tuple(_finding(row) for row in json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; the case was not predicted, predict again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a list of findings ({error}); predict again") from None


def _study(case: dict[str, Any]) -> Study:
    day = case.get("day")
    return Study(case.get("patient", ""), case.get("date", ""), None if day is None else int(day))


def _finding(row: dict[str, Any]) -> Finding:
    return Finding(**row | {name: _point(row[name]) for name in ("centre_mm", "low_mm", "high_mm")})


def _point(values: list[float]) -> Point:
    x, y, z = values
    return x, y, z
