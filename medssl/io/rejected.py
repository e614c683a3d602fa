"""Files that a reader rejects, each with a code and a reason."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medssl.errors import BadInput, Message

Code = Literal[
    "not-a-file",  # a link, pipe or device, or an empty file
    "not-dicom",
    "not-an-image",  # DICOM without slices of CT, MR or PET; the reason names its kind
    "annotation",  # an RTSTRUCT or a DICOM SEG, which medssl.io.dicom.annotations reads
    "archive",  # a zip archive that is damaged, encrypted or harmful
    "too-big",
    "unreadable",  # damaged before the pixels
    "pixels",  # pixels that are truncated or cannot be decoded
    "values",  # stored values whose meaning is unclear
    "colour",
    "geometry",  # a slice position that is missing or impossible
    "localizer",
    "mixed",  # one series UID with contradictory content
    "duplicates",
    "gaps",
    "tilt",
    "too-few",
    "copy",
]


@dataclass(frozen=True)
class RejectedFiles:
    """Files that cannot be used, with the reason and its code for the file ledger."""

    files: tuple[Path, ...]
    reason: Message
    code: Code


class ReadRejected(BadInput):
    """Input that cannot be read correctly, with the code of its `RejectedFiles`."""

    def __init__(self, code: Code, reason: Message) -> None:
        super().__init__(reason)
        self.code: Code = code
