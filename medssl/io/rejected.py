"""Refused: files that were not read, each with a reason in plain words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medssl.errors import BadInput

Code = Literal[
    "not-a-file",  # a link, a pipe, a device, an empty file
    "not-dicom",
    "not-an-image",  # DICOM of another kind, named in the reason
    "annotation",  # an RTSTRUCT or a DICOM SEG, for medssl.io.dicom.annotations
    "archive",  # a zip that cannot be trusted or opened
    "too-big",
    "unreadable",  # broken before its pixels
    "pixels",  # broken, truncated or undecodable pixels
    "values",  # stored numbers whose meaning is unclear
    "colour",
    "geometry",  # where a slice lies is missing or impossible
    "localizer",
    "mixed",  # one series identifier, several truths
    "duplicates",
    "gaps",
    "tilt",
    "too-few",
    "copy",
]


@dataclass(frozen=True)
class Refused:
    """Files that cannot be used, why, and the reason's code for the ledger."""

    files: tuple[Path, ...]
    reason: str
    code: Code


class Refusal(BadInput):
    """Input that cannot be read rightly; carries the code of a `Refused`."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code: Code = code
