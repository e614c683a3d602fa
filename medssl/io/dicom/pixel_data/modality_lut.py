"""Reads a modality lookup table, which replaces slope and intercept, and applies it to stored values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer
from pydicom import Dataset

from medssl.errors import Message
from medssl.io.dicom.header import get_text
from medssl.io.rejected import ReadRejected


@dataclass(frozen=True)
class ModalityLut:
    """A modality lookup table (DICOM PS3.3, C.11.1).

    Args:
        first: The stored value of the first entry; lower values get it, too, as higher ones get the last.
        entries: The output values, as unsigned 16-bit numbers in little endian.
    """

    first: int
    entries: bytes

    def apply(self, values: Integer[np.ndarray, "j i"]) -> Integer[np.ndarray, "j i"]:
        """Returns the output values of stored values."""
        table = np.frombuffer(self.entries, "<u2").astype(np.int32)
        return table[np.clip(values.astype(np.int64) - self.first, 0, len(table) - 1)]


def read_modality_lut(items: Sequence[Dataset]) -> tuple[ModalityLut | None, str]:
    """Returns the table in a ModalityLUTSequence and the unit of its values; None without a sequence."""
    if not items:
        return None, ""
    try:
        count, first, bits = (int(number) for number in items[0].LUTDescriptor)
        data, vr = items[0].LUTData, items[0]["LUTData"].VR
        table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.atleast_1d(np.array(data, np.int64))
        table = table.astype(np.int64) & 0xFFFF
    except (AttributeError, KeyError, TypeError, ValueError):
        count, first, bits, vr, table = 0, 0, 0, "", np.zeros(0, np.int64)
    count = count % 65536 or 65536  # 0 stands for 65536, and some writers give it a sign
    if bits == 8 and vr == "OW" and len(table) == (count + 1) // 2:  # two entries in each word
        table = table.astype("<u2").view(np.uint8)[:count].astype(np.int64)
    if bits not in (8, 16) or len(table) != count:
        raise ReadRejected("values", Message(
            "its modality lookup table holds {found} entries of {bits} bits, its descriptor declares {count}; export "
            "it again with RescaleSlope and RescaleIntercept",
            found=len(table), bits=bits, count=count,
        ))  # fmt: skip
    return ModalityLut(first, table.astype("<u2").tobytes()), get_text(items[0], "ModalityLUTType") or "US"
