"""Traces of training cases: 200 bytes a case, by which patients, series and scans are recognized in leakage checks."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.checks.appearance import SKETCH_BYTES, make_sketch
from medssl.data.ingest.source import parse_location
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store, StoredVolume, make_thumbnail
from medssl.errors import BadInput
from medssl.files import atomic_file

log = logging.getLogger(__name__)
TRACES_FILE = "traces.bin"
EARLIER_FILE = "pool.json"  # of runs before version 1 of the format
FORMAT, VERSION = "medssl traces", 1
ID_BYTES, HASH_BYTES = 32, 8
ROW = np.dtype(
    [
        ("id", f"S{ID_BYTES}"),  # longer ids are cut, since it only names the case in messages
        ("patient", f"S{HASH_BYTES}"),
        ("series", f"S{HASH_BYTES}"),
        ("voxels", f"S{HASH_BYTES}"),
        ("sketch", "u1", (SKETCH_BYTES,)),
    ]
)


@dataclass(frozen=True)
class CaseTraces:
    """Traces of cases.

    Attributes:
        rows: One row a case: its id, the hashes of its patient, series and voxels, and its sketch.
    """

    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """The ids of the cases, cut to 32 bytes."""
        return [name.decode(errors="ignore") for name in self.rows["id"].tolist()]

    @classmethod
    def join(cls, parts: Sequence["CaseTraces"]) -> "CaseTraces":
        """Returns the traces of several groups of cases, one behind the other."""
        return cls(np.concatenate([np.zeros(0, ROW), *(part.rows for part in parts)]))


def trace_cases(manifest: Manifest) -> CaseTraces:
    """Returns the traces of the cases of a store; reads voxels only where the store has no thumbnail."""
    rows = np.zeros(len(manifest.cases), ROW)
    for row, case, thumbnail in zip(rows, manifest.cases, read_thumbnails(manifest), strict=True):
        row["id"], row["patient"], row["voxels"] = case.id.encode(), hash_text(case.patient), hash_text(case.sha256)
        row["series"], row["sketch"] = hash_text(find_series(case)), make_sketch(thumbnail)
    return CaseTraces(rows)


def read_thumbnails(manifest: Manifest) -> Iterator[Any]:
    """Yields the thumbnail of each case."""
    store = Store(manifest)
    return (_read_thumbnail(store.image(case)) for case in manifest.cases)


def find_series(case: Case) -> str:
    """Returns the DICOM series of a case, empty if there is none."""
    return parse_location(case.source)[1]


def hash_text(text: str) -> bytes:
    """Returns eight bytes that stand for a text, none for an empty one; the last one is never 0."""
    return hashlib.sha256(text.encode()).digest()[: HASH_BYTES - 1] + b"+" if text else b""


def write_traces(run: Path, traces: CaseTraces) -> None:
    """Writes the traces of the training cases into the folder of a run, for later leakage checks."""
    header = {
        "format": FORMAT, "version": VERSION, "cases": len(traces), "patients": len(np.unique(traces.rows["patient"])),
    }  # fmt: skip
    with atomic_file(run / TRACES_FILE) as part:
        part.write_bytes(json.dumps(header).encode() + b"\n" + traces.rows.tobytes())


def read_traces(run: Path) -> CaseTraces:
    """Returns the training cases of a run; logs a warning and returns none if the run did not record them.

    Raises:
        BadInput: The traces are damaged or of another version.
    """
    path = run / TRACES_FILE
    if path.is_file():
        header, _, rows = path.read_bytes().partition(b"\n")
        _check_header(path, header, len(rows))
        return CaseTraces(np.frombuffer(rows, ROW))
    if (run / EARLIER_FILE).is_file():
        raise _reject(run / EARLIER_FILE, f"lists training cases in a format before version {VERSION}")
    log.warning("%s: does not list its training cases (%s is missing); overlaps cannot be found", run, TRACES_FILE)
    return CaseTraces(np.zeros(0, ROW))


def _check_header(path: Path, header: bytes, size: int) -> None:
    """Raises BadInput if a file is not a list of traces of this version, or not whole."""
    try:
        values = json.loads(header)
        name, version, num_cases = (values[key] for key in ("format", "version", "cases"))
    except (ValueError, KeyError, TypeError):
        raise _reject(path, "is no list of training cases") from None
    if (name, version) != (FORMAT, VERSION):
        raise _reject(path, f"is {name!r} of version {version}, not {FORMAT!r} of version {VERSION}")
    if size != num_cases * ROW.itemsize:
        raise _reject(path, f"is damaged: {size} bytes for {num_cases} cases of {ROW.itemsize} bytes")


def _reject(path: Path, fault: str) -> BadInput:
    return BadInput(
        f"{path}: {fault}; train the run again, or move the file away and compare the manifests of both trainings with"
        " `medssl check-leakage`"
    )


def _read_thumbnail(image: StoredVolume) -> Any:
    return make_thumbnail(image.volume()) if image.thumbnail is None else image.thumbnail
