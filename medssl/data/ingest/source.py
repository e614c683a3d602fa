"""Source: the files that one case is read from."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ESCAPED = r"[%#|\udc80-\udcff]"  # what divides a place, and bytes of names that are no UTF-8


@dataclass(frozen=True)
class Source:
    """The channels of an image on one grid, or a DICOM series; with or without a label.

    `classes` are those the label may hold (of a DICOM series: the class of each drawn structure); `instances` are the
    classes of the objects that a mask numbers; `parts` are files that a header file refers to; `site` is where it was
    scanned, as a table says or as the scanner is called; `published` cases are named by a data set, not by their path;
    `burned_in` ones may show text. `date` is that of the study as it is; a store counts days from a secret one.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    modalities: tuple[str, ...]
    label: Path | None = None
    series: str | None = None
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

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file this case is read from."""
        return self.images + self.parts + ((self.label,) if self.label else ())


def place_text(paths: Sequence[Path], series: str | None) -> str:
    """Where a case was read from, as the manifest keeps it: its files, or a folder and its series; plain UTF-8."""
    if series is None:
        return "|".join(_escaped(str(path)) for path in paths)
    return f"{_escaped(os.path.commonpath([path.parent for path in paths]))}#{series}"


def place_parts(text: str) -> tuple[list[Path], str]:
    """The files of a case, or a folder and the name of a series in it."""
    paths, _, series = text.partition("#")
    return [Path(_unescaped(path)) for path in paths.split("|")], series


def pseudonym(text: str) -> str:
    """A short name that does not tell the one it stands for."""
    return hashlib.sha256(f"medssl:{text}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _escaped(text: str) -> str:
    return re.sub(ESCAPED, lambda odd: f"%{ord(odd[0]) & 0xFF:02X}", text)


def _unescaped(text: str) -> str:
    plain = {"25": "%", "23": "#", "7C": "|"}
    return re.sub(r"%(25|23|7C|[89A-F][0-9A-F])", lambda odd: plain.get(odd[1]) or chr(0xDC00 + int(odd[1], 16)), text)
