"""Source: the files that one case is read from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """The channels of an image on one grid, or a DICOM series; with or without a label.

    `classes` are those the label may hold (of a DICOM series: the class of each drawn structure); `instances` are the
    classes of the objects that a mask numbers; `parts` are files that a header file refers to; `site` is where it was
    scanned, as a table says or as the scanner is called; `published` cases are named by a data set, not by their path;
    `burned_in` ones may show text.
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
    published: bool = False
    burned_in: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file this case is read from."""
        return self.images + self.parts + ((self.label,) if self.label else ())


def pseudonym(text: str) -> str:
    """A short name that does not tell the one it stands for."""
    return hashlib.sha256(f"medssl:{text}".encode()).hexdigest()[:12]
