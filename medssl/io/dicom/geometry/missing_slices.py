"""Finds signs that slices at an end of a series are missing, which the positions of the others cannot show."""

import re
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import Message, list_names
from medssl.io.dicom.frames import Frame


def find_missing_ends(slices: Sequence[Frame]) -> tuple[Message, ...]:
    """Returns warnings that slices at an end of a volume are missing, which their positions cannot show."""
    declared, count = {s.num_declared or 0 for s in slices}, len(slices)
    if len(declared) == 1 and count < (num_declared := declared.pop()):
        words = Message(
            "{count} slices of {num_declared} that the header declares: slices at an end may be missing",
            count=count,
            num_declared=num_declared,
        )
        return (words,)
    numbers = sorted(s.number for s in slices if s.number is not None)
    if len(numbers) == count == numbers[-1] - numbers[0] + 1 and numbers[0] > 1:
        return (Message("InstanceNumber starts at {first}: slices at an end may be missing", first=numbers[0]),)
    return ()


def find_damaged_neighbours(paths: Sequence[Path], unreadable: Sequence[Path]) -> tuple[Message, ...]:
    """Returns a warning that files named like those of a series, in the same folder, cannot be read."""
    if not unreadable:
        return ()
    patterns = {_name_pattern(path) for path in paths}
    names = sorted(path.name for path in unreadable if _name_pattern(path) in patterns)
    if not names:
        return ()
    return (Message(
        "{names}: not readable, beside files of the series with such names; slices at an end may be missing",
        names=list_names(names, 4),
    ),)  # fmt: skip


def _name_pattern(path: Path) -> tuple[Path, str]:
    """Returns the folder of a file, and its name with all numbers replaced."""
    return path.parent, re.sub(r"\d+", "0", path.name)
