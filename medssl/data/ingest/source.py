"""The files that one case is read from, and the notation for them in a manifest."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ESCAPED = r"[%#|\udc80-\udcff]"  # the separators of a location, and bytes of file names that are not UTF-8


@dataclass(frozen=True)
class Source:
    """The channels of an image on one grid, or a DICOM series; with or without a label.

    Attributes:
        id: The case.
        patient: The patient; equal to the case if the patient is unknown.
        images: One file per channel, or all files of a DICOM series.
        modalities: One per channel; empty where it is unknown.
        label: The file with the label map, the instance mask or the DICOM annotation.
        series: The name of the DICOM series; None for image files.
        sub_volume: The tags that distinguish the volume from others of its series; empty if there is only one.
        series_folder: The folder that holds all volumes of the series; None if there is only one.
        split: The split that the data set declares, if any.
        classes: The classes that the label may hold; for a DICOM annotation the class of each structure.
        instances: The class of each object of an instance mask; None if the label is not an instance mask.
        parts: Voxel files that a header file refers to.
        site: Where the case was scanned, from a table or from the name of the scanner.
        age_years: Age of the patient at the time of the scan.
        sex: Sex of the patient.
        date: Date of the study as it was read; a store keeps it as a number of days only.
        published: The case is named by a published data set, not by its path.
        burned_in: The pixels may show text.
        location: Where the case was read from, as the manifest states it; set by `NoPseudonyms.rename`.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    modalities: tuple[str, ...]
    label: Path | None = None
    series: str | None = None
    sub_volume: str = ""
    series_folder: Path | None = None
    split: str = ""
    classes: tuple[int, ...] = ()
    instances: tuple[int, ...] | None = None
    parts: tuple[Path, ...] = ()
    site: str = ""
    age_years: float | None = None
    sex: str = ""
    date: str = ""
    published: bool = False
    burned_in: bool = False
    location: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the case is read from."""
        return self.images + self.parts + ((self.label,) if self.label else ())

    @property
    def real_location(self) -> str:
        """The real location of the case: its image files, or a folder and the name of its series."""
        if self.series_folder is not None:
            return format_location([self.series_folder / "*"], self.series)
        return format_location(self.images, self.series)


def format_location(paths: Sequence[Path], series: str | None) -> str:
    """Returns the image files of a case, or a folder and the name of a series in it, as one text in plain UTF-8."""
    if series is None:
        return "|".join(_escape(str(path)) for path in paths)
    return f"{_escape(str(find_common_folder(paths)))}#{series}"


def find_common_folder(files: Sequence[Path]) -> Path:
    """Returns the deepest folder that holds all of the files."""
    return Path(os.path.commonpath([file.parent for file in files]))


def parse_location(text: str) -> tuple[list[Path], str]:
    """Returns the image files of a case, or a folder and the name of a series in it."""
    paths, _, series = text.partition("#")
    return [Path(_unescape(path)) for path in paths.split("|")], series


def make_pseudonym(text: str) -> str:
    """Returns a short hash of a text."""
    return hashlib.sha256(f"medssl:{text}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _escape(text: str) -> str:
    return re.sub(ESCAPED, lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def _unescape(text: str) -> str:
    plain = {"25": "%", "23": "#", "7C": "|"}
    pattern = r"%(25|23|7C|[89A-F][0-9A-F])"
    return re.sub(pattern, lambda match: plain.get(match[1]) or chr(0xDC00 + int(match[1], 16)), text)
