"""Leakage check: finds cases of two sets with the same patient, series or voxels, or a similar appearance."""

import hashlib
import logging
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from medssl.data.checks.appearance import CODE_BYTES, encode_appearance, find_copies
from medssl.data.ingest.source import parse_location
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store, StoredVolume, make_thumbnail
from medssl.errors import BadInput
from medssl.files import atomic_file

log = logging.getLogger(__name__)
TRACES_FILE = "pool.npz"
HASH_BYTES = 6  # of a patient, a series or a volume: 100,000 cases against 10,000 agree by chance once in 280,000 times

NO_HASH = bytes(HASH_BYTES)

Kind = Literal["patient", "series", "voxels", "appearance"]


@dataclass(frozen=True)
class Leak:
    """Two cases that must not be on both sides of a split, and the reason."""

    kind: Kind
    first: str
    second: str
    description: str


@dataclass(frozen=True)
class CaseTrace:
    """The features by which a case is recognized, even if its files are gone.

    Attributes:
        id: The case.
        patient: A short hash of the patient.
        series: A short hash of the DICOM series; zeros if there is none.
        voxels: A short hash of the voxels.
        appearance: A code of the thumbnail, by `encode_appearance`.
    """

    id: str
    patient: bytes
    series: bytes
    voxels: bytes
    appearance: UInt8[np.ndarray, "160"]


def find_leaks(pool: Manifest, test: Manifest) -> list[Leak]:
    """Finds all pairs of a training case and a test case that are the same patient or image."""
    return find_overlaps(trace_cases(pool), test)


def require_disjoint(pool: Sequence[CaseTrace], test: Manifest, names: tuple[str, str]) -> None:
    """Raises BadInput if the training and the test cases overlap.

    Args:
        pool: The training cases.
        test: The test cases, whose store is read.
        names: The names of both sets, for the message.
    """
    leaks = find_overlaps(pool, test)
    if leaks:
        examples = "; ".join(f"{leak.first} and {leak.second}: {leak.description}" for leak in leaks[:4])
        raise BadInput(
            f"{len(leaks)} overlaps between {names[0]} and {names[1]}: {examples}; remove them from one of the sets"
        )


def trace_cases(manifest: Manifest) -> list[CaseTrace]:
    """Returns the traces of the cases of a store; reads voxels only where the store has no thumbnail."""
    store = Store(manifest)
    return [
        CaseTrace(case.id, *_hash_identity(case), encode_appearance(_read_thumbnail(store.image(case))))
        for case in manifest.cases
    ]


def split_sides(pool: Path, test: Path | None) -> tuple[list[CaseTrace], Manifest]:
    """Returns the traces of the training cases, and the test cases.

    Args:
        pool: The manifest.csv of the training cases, or the folder of a run.
        test: The manifest.csv of the test cases; None for the splits val and test of the pool.
    """
    if pool.is_dir() and not (pool / TRACES_FILE).is_file():
        raise BadInput(f"{pool}: does not list its training cases ({TRACES_FILE} is missing); give their manifest.csv")
    if test is not None:
        pool_traces = read_traces(pool) if pool.is_dir() else trace_cases(Manifest.read(pool))
        return pool_traces, Manifest.read(test)
    manifest = Manifest.read(pool)
    held_out = [case for split in ("val", "test") for case in manifest.in_split(split).cases]
    return trace_cases(manifest.in_split("train")), replace(manifest, cases=tuple(held_out))


def find_overlaps(pool: Sequence[CaseTrace], test: Manifest) -> list[Leak]:
    """Finds all pairs of a trace and a test case that are the same patient or image."""
    traces_by_hash: dict[tuple[Kind, bytes], list[CaseTrace]] = defaultdict(list)
    for trace in pool:
        for kind, value in _list_identity(trace.patient, trace.series, trace.voxels):
            traces_by_hash[kind, value].append(trace)
    codes = np.array([trace.appearance for trace in pool], np.uint8).reshape(-1, CODE_BYTES)
    store, identical, similar = Store(test), list[Leak](), list[Leak]()
    for case in test.cases:
        for kind, value in _list_identity(*_hash_identity(case)):
            identical += [
                Leak(kind, trace.id, case.id, _describe(kind, case)) for trace in traces_by_hash.get((kind, value), [])
            ]
        for likeness in find_copies(_read_thumbnail(store.image(case)), codes):
            description = f"look alike (similarity {likeness.similarity:.2f})"
            similar.append(Leak("appearance", pool[likeness.index].id, case.id, description))
    same_voxels = {(leak.first, leak.second) for leak in identical if leak.kind == "voxels"}
    return identical + [leak for leak in similar if (leak.first, leak.second) not in same_voxels]


def write_traces(run: Path, traces: Sequence[CaseTrace]) -> None:
    """Writes the traces of the training cases to RUN/pool.npz, for later leakage checks."""
    patients, series, voxels = (
        np.frombuffer(b"".join(getattr(trace, name) for trace in traces), np.uint8).reshape(-1, HASH_BYTES)
        for name in ("patient", "series", "voxels")
    )
    ids = np.array([trace.id for trace in traces], str)
    codes = np.array([trace.appearance for trace in traces], np.uint8).reshape(-1, CODE_BYTES)
    with atomic_file(run / TRACES_FILE) as part, part.open("wb") as file:
        np.savez_compressed(file, id=ids, appearance=codes, patient=patients, series=series, voxels=voxels)


def read_traces(run: Path) -> list[CaseTrace]:
    """Returns the training cases of a run; logs a warning and returns none if the run did not record them.

    Raises:
        BadInput: The file is damaged.
    """
    path = run / TRACES_FILE
    if not path.is_file():
        log.warning("%s: does not list its training cases (%s is missing); overlaps cannot be found", run, TRACES_FILE)
        return []
    try:
        with path.open("rb") as file, np.load(file) as columns:
            hashes = [map(bytes, columns[name].reshape(-1, HASH_BYTES)) for name in ("patient", "series", "voxels")]
            codes = columns["appearance"].reshape(-1, CODE_BYTES)
            return [CaseTrace(*row) for row in zip(columns["id"].tolist(), *hashes, codes, strict=True)]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(
            f"{path}: is not a list of training cases ({error}); copy it again from where it was made"
        ) from None


def read_seen_cases(run: Path | None, test: Manifest | None) -> list[CaseTrace]:
    """Returns the training cases of a run, none without a run.

    Raises:
        BadInput: Cases of the test manifest are among them.
    """
    return check_overlap(read_traces(run), run, test) if run else []


def check_overlap(traces: list[CaseTrace], source: Path, test: Manifest | None) -> list[CaseTrace]:
    """Returns the traces unchanged.

    Args:
        traces: The training cases.
        source: Where the training cases are from, for the message.
        test: The test cases, if there are any.

    Raises:
        BadInput: Test cases are among the training cases.
    """
    if traces and test:
        require_disjoint(traces, test, (str(source), f"the test cases of {test.folder}"))
    return traces


def require_unseen(run: Path, labels: Path, cases: Collection[str]) -> None:
    """Raises BadInput if a run was trained on cases that are to be scored.

    Args:
        run: The folder of the run; nothing is checked if it is missing.
        labels: The manifest.csv of the scored cases; nothing is checked if it is missing.
        cases: The names of the scored cases.
    """
    if run.is_dir() and labels.is_file():
        store = Manifest.read(labels)
        read_seen_cases(run, replace(store, cases=tuple(case for case in store.cases if case.id in cases)))


def _read_thumbnail(image: StoredVolume) -> UInt8[np.ndarray, "m m m"]:
    return make_thumbnail(image.volume()) if image.thumbnail is None else image.thumbnail


def _hash_identity(case: Case) -> tuple[bytes, bytes, bytes]:
    """Returns short hashes of a case's patient, series and voxels; zeros where there is no series."""
    texts = (case.patient, parse_location(case.source)[1], case.sha256)
    patient, series, voxels = (
        hashlib.sha256(text.encode()).digest()[:HASH_BYTES] if text else NO_HASH for text in texts
    )
    return patient, series, voxels


def _list_identity(patient: bytes, series: bytes, voxels: bytes) -> list[tuple[Kind, bytes]]:
    """Returns the hashes by which two cases are the same."""
    hashes: list[tuple[Kind, bytes]] = [("patient", patient), ("series", series), ("voxels", voxels)]
    return [(kind, value) for kind, value in hashes if value != NO_HASH]


def _describe(kind: Kind, case: Case) -> str:
    """Returns what a case shares with another, for a message."""
    if kind == "patient":
        return f"patient {case.patient}"
    return "the same DICOM series" if kind == "series" else "the same voxels"
