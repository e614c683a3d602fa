"""Reads a predictions folder: the index of the predicted cases, their files and their findings."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medssl.errors import BadInput
from medssl.finding import Finding, FindingKind, Point
from medssl.io import dates
from medssl.volume import Unit

NOTICE = "Research use only. Not for clinical use."
IMPORTED = "none: predicted by another tool"  # in place of a hash of the weights
INDEX, IMAGE, LABELS, PROBABILITY, UNCERTAINTY, FINDINGS = (
    "index.json", "image.nii.gz", "labels.nii.gz", "probability.nii.gz", "uncertainty.nii.gz", "findings.json",
)  # fmt: skip
SEQUENCE = "sequence_{:04d}.nii.gz"  # the other channels of a case, from 1
CHANNELS = "channels.json"
CASE_PATTERN = re.compile(r"\w[\w.\-]*")  # a case names its folder
COLOUR_PATTERN = re.compile(r"#[0-9a-fA-F]{6}")
# Keys that older index files do not have.
OPTIONAL_KEYS = (
    "uncertainty",
    "temperature",
    "thresholds",
    "guarantee",
    "calibrated_on",
    "requested",
    "failed",
    "options",
)


@dataclass(frozen=True)
class LabelDef:
    """A voxel value of a label map: the name of its structure, its colour as #rrggbb and its kind.

    The kind is None in folders of earlier versions; their findings are all lesions.
    """

    value: int
    name: str
    colour: str
    kind: FindingKind | None = None


@dataclass(frozen=True)
class StudyRef:
    """The patient and the time of a case; empty where they are unknown.

    Args:
        patient: The pseudonym of the patient.
        date: The date of the study as YYYYMMDD; empty unless the user kept it, since a date can identify a person.
        day: The date as a number of days from a secret one of the patient; only differences carry information.
    """

    patient: str = ""
    date: str = ""
    day: int | None = None

    def days_after(self, other: "StudyRef") -> int | None:
        """Returns the number of days from another study of the patient to this one; None if it is unknown."""
        if self.day is not None and other.day is not None:
            return self.day - other.day
        first, last = dates.to_ordinal(other.date), dates.to_ordinal(self.date)
        return last - first if first and last else None


@dataclass(frozen=True)
class ChannelFacts:
    """What is known about one channel of a case; empty where it is unknown.

    Args:
        name: The name of the sequence.
        modality: "CT", "MR" or "PT".
        unit: The unit of its values.
        acquisition: How it was acquired, a line each.
        slice_axis: The axis of the RAS grid across the slices that were acquired.
        instances: The InstanceNumber of each slice along that axis.
    """

    name: str = ""
    modality: str = ""
    unit: Unit = "a.u."
    acquisition: tuple[str, ...] = ()
    slice_axis: int = 2
    instances: tuple[int, ...] = ()


CHANNEL_LIST = TypeAdapter(tuple[ChannelFacts, ...])


@dataclass(frozen=True)
class Index:
    """The contents of index.json: the predicted cases, their labels and the model.

    Args:
        folder: The predictions folder.
        cases: The identifiers of the predicted cases.
        units: The unit of each case's image.
        labels: The labels that the model predicts.
        model: The path of the run, the hash of its weights and the version of the code.
        created: The time of the prediction, ISO 8601.
        notice: The notice about the intended use, shown with every result.
        uncertainty: What the uncertainty files measure; empty if there are none.
        temperature: The temperature that calibrated the probabilities; 1 leaves them unchanged.
        thresholds: The lowest score of a finding that counts, for each label with a threshold.
        guarantee: The statement that a threshold was chosen for, for each label with a threshold.
        calibrated_on: The cases on which temperature and thresholds were fitted.
        requested: The cases that were to be predicted.
        failed: The reason for each case that could not be predicted.
        options: The options of the command that decide how a scan is read.
        studies: The patient and the time of each case.
    """

    folder: Path
    cases: tuple[str, ...]
    units: dict[str, str]
    labels: tuple[LabelDef, ...]
    model: dict[str, Any]
    created: str
    notice: str = NOTICE
    uncertainty: str = ""
    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    guarantee: dict[str, str] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    studies: dict[str, StudyRef] = field(default_factory=dict)

    def find_study(self, name: str) -> StudyRef:
        """Returns the patient and the time of a case; empty if they are unknown."""
        return self.studies.get(name, StudyRef())

    @property
    def missing_cases(self) -> list[str]:
        """The requested cases without a prediction: the prediction was stopped before them, or they failed."""
        return [case for case in self.requested if case not in self.cases]

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 of the model's weights; empty if it is unknown."""
        return str(self.model.get("weights_sha256", ""))

    def case_folder(self, name: str) -> Path:
        """Returns the folder of a case, which holds its image, labels, probability and findings."""
        if name not in self.cases:
            raise BadInput(f"{name!r} is no case of {self.folder}; its {INDEX} lists the cases")
        _require_inside(self.folder, self.folder / name)
        return self.folder / name


def _require_inside(folder: Path, case_folder: Path) -> None:
    """Raises BadInput if a case folder, or a file in it, is a symbolic link to a place outside the predictions."""
    entries = [entry.path for entry in os.scandir(case_folder)] if case_folder.is_dir() else []
    for path in filter(os.path.islink, [os.fspath(case_folder), *entries]):
        if not Path(path).resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{path}: a link to a place outside {folder}; put the file itself there")


def list_sequences(case_folder: Path) -> list[int]:
    """Returns the numbers of the sequences of a case besides its image, in order."""
    numbers: list[int] = []
    while (case_folder / SEQUENCE.format(len(numbers) + 1)).is_file():
        numbers.append(len(numbers) + 1)
    return numbers


def read_channel_facts(case_folder: Path) -> tuple[ChannelFacts, ...]:
    """Reads what is known about the channels of a case; empty if that was not recorded, or cannot be read."""
    try:
        return CHANNEL_LIST.validate_json((case_folder / CHANNELS).read_bytes())
    except (OSError, ValidationError):
        return ()


def read_index(folder: Path | str) -> Index:
    """Reads the index of a predictions folder; raises BadInput if it is missing or damaged."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise BadInput(f"{folder}: no predictions here ({INDEX} is missing); `medssl predict RUN SCANS --out {folder}`")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        units = {case["id"]: case["unit"] for case in index["cases"]}
        if invalid := [case for case in units if not CASE_PATTERN.fullmatch(case)]:
            raise BadInput(f"{path}: case {invalid[0]!r} cannot name a folder of predictions; predict again")
        labels = tuple(LabelDef(**label) for label in index["labels"])
        if invalid := [label.colour for label in labels if not COLOUR_PATTERN.fullmatch(label.colour)]:
            raise ValueError(f"{invalid[0]!r} is not a colour as #rrggbb")
        optional = {name: index[name] for name in OPTIONAL_KEYS if name in index}
        optional["studies"] = {case["id"]: _parse_study(case) for case in index["cases"]}
        required = (index["model"], index["created"], index["notice"])
        return Index(Path(folder), tuple(units), units, labels, *required, **optional)
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not an index of predictions ({error}); predict again") from None


def read_findings(case_folder: Path | str) -> tuple[Finding, ...]:
    """Reads the findings of a case, which are sorted by label and size, largest first."""
    path = Path(case_folder) / FINDINGS
    try:
        return tuple(_parse_finding(row) for row in json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; the case was not predicted, predict again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a list of findings ({error}); predict again") from None


def _parse_study(case: dict[str, Any]) -> StudyRef:
    """Reads the patient and the time from the index entry of a case."""
    day = case.get("day")
    return StudyRef(case.get("patient", ""), case.get("date", ""), None if day is None else int(day))


def _parse_finding(row: dict[str, Any]) -> Finding:
    """Reads one finding, with its points as tuples."""
    return Finding(**row | {name: _parse_point(row[name]) for name in ("centre_mm", "low_mm", "high_mm")})


def _parse_point(values: list[float]) -> Point:
    """Reads the three coordinates of a point."""
    x, y, z = values
    return x, y, z
