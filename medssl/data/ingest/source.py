"""The files that one case is read from, and the notation for them in a manifest."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medssl.errors import Message, as_message

ALL_FILES = "*"  # in place of a file name: the volume needs all files of its folder
ESCAPED = r"[%#|\udc80-\udcff]"  # the separators of a location, and bytes of file names that are not UTF-8


@dataclass(frozen=True)
class LabelPart:
    """A named structure of a label: a file of its own, or one value of a file.

    Attributes:
        path: The label file.
        name: The structure.
        value: Its value in the file; None if every voxel above 0 belongs to it.
        layer: The layer of a segmentation of 3D Slicer that holds it.
    """

    path: Path
    name: str
    value: int | None = None
    layer: int = 0


@dataclass(frozen=True)
class Source:
    """The channels of an image on one grid, or a DICOM series; with or without a label.

    Attributes:
        id: The case.
        patient: The patient; equal to the case if the patient is unknown.
        images: One file per channel, or all files of a DICOM series.
        modalities: One per channel; empty where it is unknown.
        label: The file with the label map, the instance mask or the DICOM annotation.
        whole_class: The class of the whole scan, from a table; 0 for none of the classes, None without such a label.
        series: The name of the DICOM series; None for image files.
        sub_volume: The tags that distinguish the volume from others of its series; empty if there is only one.
        series_folder: The folder that holds all volumes of the series; None if there is only one.
        split: The split that the data set declares, if any.
        label_parts: The named structures that the label is made of; empty for a label of numbers.
        classes: The classes that the label may hold; for a DICOM annotation, and with `label_parts`, the class of each
            structure.
        annotations: Further DICOM files with structures of the series; the classes are those of all files in order.
        priority: The classes of structures that lie on top of others, the topmost first.
        instances: The class of each object of an instance mask; None if the label is not an instance mask.
        parts: Voxel files that a header file refers to.
        site: Where the case was scanned, from a table or from the name of the scanner.
        age_years: Age of the patient at the time of the scan.
        sex: Sex of the patient.
        date: Date of the study as it was read; a store keeps it as a number of days only.
        published: The case is named by a published data set, not by its path.
        burned_in: The pixels may show text.
        patient_from: What identifies the patient, as the terminal shows it; empty if each case counts as a patient.
        channel_names: Names of the channels, if there are several.
        warnings: What to check about the files that were found, besides what reading them warns of.
        location: Where the case was read from, as the manifest states it; set by `NoPseudonyms.rename`.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    modalities: tuple[str, ...]
    label: Path | None = None
    whole_class: int | None = None
    label_parts: tuple[LabelPart, ...] = ()
    series: str | None = None
    sub_volume: str = ""
    series_folder: Path | None = None
    split: str = ""
    classes: tuple[int, ...] = ()
    annotations: tuple[Path, ...] = ()
    priority: tuple[int, ...] = ()
    instances: tuple[int, ...] | None = None
    parts: tuple[Path, ...] = ()
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    date: str = ""
    published: bool = False
    burned_in: bool = False
    patient_from: str = ""
    channel_names: tuple[str, ...] = ()
    warnings: tuple[Message, ...] = ()
    location: str = ""

    @property
    def has_label(self) -> bool:
        """Whether the case has a label, drawn or from a table."""
        return self.label is not None or self.whole_class is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the case is read from."""
        labels = dict.fromkeys([*((self.label,) if self.label else ()), *(part.path for part in self.label_parts)])
        return (*self.images, *self.parts, *labels, *self.annotations)

    @property
    def real_location(self) -> str:
        """The real location of the case: its image files, or a folder and the name of its series."""
        if self.series_folder is not None:
            return format_location([self.series_folder / ALL_FILES], self.series)
        return format_location(self.images, self.series)


def source_to_json(source: Source) -> dict[str, Any]:
    """Returns a source as plain values, which `source_from_json` turns into an equal one."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(source), default=str))
    return values


def source_from_json(values: dict[str, Any]) -> Source:
    """Returns the source that `source_to_json` has made plain.

    Raises:
        KeyError, TypeError: The values are not those of a source.
    """
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    label_parts = tuple(LabelPart(**part | {"path": Path(part["path"])}) for part in values["label_parts"])
    paths = {n: tuple(map(Path, values[n])) for n in ("images", "parts", "annotations")}
    single = {n: Path(values[n]) if values[n] is not None else None for n in ("label", "series_folder")}
    warnings = tuple(map(as_message, values["warnings"]))
    return Source(**fields | paths | single | {"label_parts": label_parts, "warnings": warnings})


def format_location(paths: Sequence[Path], series: str | None) -> str:
    """Returns the image files of a case, or a folder and the name of a series in it, as one text in plain UTF-8."""
    if series is None:
        return "|".join(_escape(str(path)) for path in paths)
    return f"{_escape(str(find_common_folder(paths)))}#{series}"


def find_common_folder(files: Sequence[Path]) -> Path:
    """Returns the deepest folder that holds all of the files."""
    return Path(os.path.commonpath({os.path.dirname(file) for file in files}))  # noqa: PTH120  # there may be many


def parse_location(text: str) -> tuple[list[Path], str]:
    """Returns the image files of a case, or a folder and the name of a series in it."""
    paths, _, series = text.partition("#")
    return [Path(_unescape(path)) for path in paths.split("|")], series


def make_pseudonym(text: str) -> str:
    """Returns a short hash of a text."""
    return hashlib.sha256(f"medssl:{text}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _escape(text: str) -> str:
    return re.sub(ESCAPED, lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def escape_path(path: str) -> str:
    """Returns a path in plain UTF-8, with bytes that are not as %XX and % as %25; `unescape_path` reverses it."""
    if path.isascii() and "%" not in path:
        return path
    return re.sub(r"[%\udc80-\udcff]", lambda match: f"%{ord(match[0]) & 0xFF:02X}", path)


def unescape_path(text: str) -> str:
    """Returns the path that `escape_path` was given."""
    return _unescape(text)


def _unescape(text: str) -> str:
    if "%" not in text:
        return text
    plain = {"25": "%", "23": "#", "7C": "|"}
    pattern = r"%(25|23|7C|[89A-F][0-9A-F])"
    return re.sub(pattern, lambda match: plain.get(match[1]) or chr(0xDC00 + int(match[1], 16)), text)
