"""Reads the class names that TotalSegmentator and Connectome Workbench write into the header of a NIfTI label map."""

import re
from pathlib import Path

from medssl.io.archives import open_stream

MAX_HEADER_BYTES = 1 << 20
LABEL_ROW = re.compile(r'<Label Key="(\d+)"[^>]*><!\[CDATA\[([^\]]*)\]\]></Label>')


def read_label_names(path: Path) -> dict[int, str]:
    """Returns the class names by label value, without 0; empty if the header has no label table."""
    with open_stream(path) as stream:
        header = stream.read(MAX_HEADER_BYTES)
    rows = LABEL_ROW.findall(header.decode("utf-8", errors="replace"))
    return {int(value): name for value, name in rows if int(value) > 0}
