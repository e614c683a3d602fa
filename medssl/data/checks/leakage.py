"""Leakage check: finds cases of two sets with the same patient, series or voxels, or a similar appearance."""

import base64
import json
import logging
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from medssl.data.fingerprint import COARSE_SIZE, THUMBNAIL_SIZE, gradient_signs, similarity, to_unit_vector
from medssl.data.ingest.source import parse_location
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store, StoredVolume, make_thumbnail
from medssl.errors import BadInput
from medssl.files import write_json

log = logging.getLogger(__name__)
TRACES_FILE = "pool.json"

NEAR = 0.5  # cosine of gradient signs from which on the thumbnails of two cases are compared
ALIKE = 0.885  # similarity of thumbnails: copies reach 0.90 and more, two patients at most 0.87 on four real sets
ALIKE_SIGNS = 0.8  # cosine of gradient signs, for runs that stored no thumbnails
IDENTITY_FIELDS = ("id", "patient", "series", "sha256")
NUM_SIGNS = 3 * COARSE_SIZE * COARSE_SIZE * (COARSE_SIZE - 1)

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
    """The features by which a case is recognized, even if its files are gone."""

    id: str
    patient: str
    series: str
    sha256: str
    gradient_signs: Float32[np.ndarray, "s"]
    thumbnail: UInt8[np.ndarray, "n n n"] | None = None


def find_leaks(pool: Manifest, test: Manifest) -> list[Leak]:
    """Finds all pairs of a training case and a test case that are the same patient or image."""
    return match_traces(trace_cases(pool), trace_cases(test))


def require_disjoint(pool: Sequence[CaseTrace], test: Sequence[CaseTrace], names: tuple[str, str]) -> None:
    """Raises BadInput if the training and the test cases overlap.

    Args:
        pool: The training cases.
        test: The test cases.
        names: The names of both sets, for the message.
    """
    leaks = match_traces(pool, test)
    if leaks:
        examples = "; ".join(f"{leak.first} and {leak.second}: {leak.description}" for leak in leaks[:4])
        raise BadInput(
            f"{len(leaks)} overlaps between {names[0]} and {names[1]}: {examples}; remove them from one of the sets"
        )


def trace_cases(manifest: Manifest) -> list[CaseTrace]:
    """Returns the traces of the cases of a store; reads voxels only where the store has no thumbnail."""
    store = Store(manifest)
    return [_trace_case(case, store.image(case)) for case in manifest.cases]


def split_sides(pool: Path, test: Path | None) -> tuple[list[CaseTrace], list[CaseTrace]]:
    """Returns the traces of the training and of the test cases.

    Args:
        pool: The manifest.csv of the training cases, or the folder of a run.
        test: The manifest.csv of the test cases; None for the splits val and test of the pool.
    """
    if pool.is_dir() and not (pool / TRACES_FILE).is_file():
        raise BadInput(f"{pool}: does not list its training cases ({TRACES_FILE} is missing); give their manifest.csv")
    if test is not None:
        pool_traces = read_traces(pool) if pool.is_dir() else trace_cases(Manifest.read(pool))
        return pool_traces, trace_cases(Manifest.read(test))
    manifest = Manifest.read(pool)
    held_out = [trace for split in ("val", "test") for trace in trace_cases(manifest.in_split(split))]
    return trace_cases(manifest.in_split("train")), held_out


def match_traces(pool: Sequence[CaseTrace], test: Sequence[CaseTrace]) -> list[Leak]:
    """Finds all pairs of traces that are the same patient or image."""
    leaks = [leak for trace in pool for other in test for leak in _match_identity(trace, other)]
    same_voxels = {(leak.first, leak.second) for leak in leaks if leak.kind == "voxels"}
    return leaks + [leak for leak in _match_appearance(pool, test) if (leak.first, leak.second) not in same_voxels]


def write_traces(run: Path, traces: Sequence[CaseTrace]) -> None:
    """Writes the traces of the training cases to RUN/pool.json, for later leakage checks."""
    write_json(run / TRACES_FILE, [_trace_to_json(trace) for trace in traces])


def read_traces(run: Path) -> list[CaseTrace]:
    """Returns the training cases of a run; logs a warning and returns none if the run did not record them."""
    if not (run / TRACES_FILE).is_file():
        log.warning("%s: does not list its training cases (%s is missing); overlaps cannot be found", run, TRACES_FILE)
        return []
    rows: list[Any] = json.loads((run / TRACES_FILE).read_text())
    return [_trace_from_json(row) for row in rows]


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
        require_disjoint(traces, trace_cases(test), (str(source), f"the test cases of {test.folder}"))
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


def _trace_case(case: Case, image: StoredVolume) -> CaseTrace:
    thumbnail = make_thumbnail(image.volume()) if image.thumbnail is None else image.thumbnail
    series = parse_location(case.source)[1]
    return CaseTrace(case.id, case.patient, series, case.sha256, gradient_signs(thumbnail), thumbnail)


def _match_identity(trace: CaseTrace, other: CaseTrace) -> Iterator[Leak]:
    if trace.patient == other.patient:
        yield Leak("patient", trace.id, other.id, f"patient {trace.patient}")
    if trace.series and trace.series == other.series:
        yield Leak("series", trace.id, other.id, "the same DICOM series")
    if trace.sha256 == other.sha256:
        yield Leak("voxels", trace.id, other.id, "the same voxels")


def _match_appearance(pool: Sequence[CaseTrace], test: Sequence[CaseTrace]) -> Iterator[Leak]:
    if pool and test:
        pool_signs, test_signs = (np.stack([trace.gradient_signs for trace in traces]) for traces in (pool, test))
        cosines = pool_signs @ test_signs.T
        for i, j in np.argwhere(cosines > NEAR):
            if description := _describe_likeness(pool[i], test[j], float(cosines[i, j])):
                yield Leak("appearance", pool[i].id, test[j].id, description)


def _describe_likeness(trace: CaseTrace, other: CaseTrace, cosine: float) -> str:
    """Returns how similar two cases look; empty if they are not similar enough to be copies."""
    if trace.thumbnail is None or other.thumbnail is None:
        return f"look alike (cosine {cosine:.2f})" if cosine > ALIKE_SIGNS else ""
    score = similarity(trace.thumbnail, other.thumbnail)
    return f"look alike (similarity {score:.2f})" if score > ALIKE else ""


def _trace_to_json(trace: CaseTrace) -> dict[str, Any]:
    fields = {name: getattr(trace, name) for name in IDENTITY_FIELDS}
    if trace.thumbnail is None:
        bits = np.packbits([trace.gradient_signs > 0, trace.gradient_signs < 0], axis=1)
        return fields | {"appearance": base64.b64encode(bits.tobytes()).decode()}
    return fields | {"picture": base64.b64encode(zlib.compress(trace.thumbnail.tobytes())).decode()}


def _trace_from_json(row: dict[str, Any]) -> CaseTrace:
    """Parses a trace, also one without a thumbnail."""
    fields: dict[str, Any] = {name: row[name] for name in IDENTITY_FIELDS}
    if "picture" in row:
        voxels = np.frombuffer(zlib.decompress(base64.b64decode(row["picture"])), np.uint8)
        thumbnail = voxels.reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
        return CaseTrace(**fields, gradient_signs=gradient_signs(thumbnail), thumbnail=thumbnail)
    bits = np.frombuffer(base64.b64decode(row["appearance"]), np.uint8).reshape(2, -1)
    rises, falls = np.unpackbits(bits, axis=1)
    signs = rises[:NUM_SIGNS].astype(np.int8) - falls[:NUM_SIGNS].astype(np.int8)
    return CaseTrace(**fields, gradient_signs=to_unit_vector(signs))
