"""Leakage check: finds cases of two sets with the same patient, series or voxels, or a similar appearance."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from medssl.data.checks.appearance import find_copies
from medssl.data.checks.case_traces import (
    TRACES_FILE,
    CaseTraces,
    find_series,
    hash_text,
    read_thumbnails,
    read_traces,
    trace_cases,
)
from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput

Kind = Literal["patient", "series", "voxels", "appearance"]
IDENTITIES: tuple[tuple[Kind, Callable[[Case], str], str], ...] = (
    ("patient", lambda case: case.patient, "patient {}"),
    ("series", find_series, "the same DICOM series"),
    ("voxels", lambda case: case.sha256, "the same voxels"),
)


@dataclass(frozen=True)
class Leak:
    """Two cases that must not be on both sides of a split, and the reason."""

    kind: Kind
    first: str
    second: str
    description: str


def find_leaks(pool: CaseTraces, test: Manifest) -> list[Leak]:
    """Finds all pairs of a training case and a test case that are the same patient or scan."""
    if not len(pool) or not test.cases:
        return []
    leaks = [leak for identity in IDENTITIES for leak in _match_identity(pool, test, *identity)]
    same_voxels = {(leak.first, leak.second) for leak in leaks if leak.kind == "voxels"}
    return leaks + [leak for leak in _match_appearance(pool, test) if (leak.first, leak.second) not in same_voxels]


def require_disjoint(pool: CaseTraces, test: Manifest, names: tuple[str, str]) -> None:
    """Raises BadInput if the training and the test cases overlap.

    Args:
        pool: The training cases.
        test: The test cases.
        names: The names of both sets, for the message.
    """
    leaks = find_leaks(pool, test)
    if leaks:
        examples = "; ".join(f"{leak.first} and {leak.second}: {leak.description}" for leak in leaks[:4])
        raise BadInput(
            f"{len(leaks)} overlaps between {names[0]} and {names[1]}: {examples}; remove them from one of the sets"
        )


def split_sides(pool: Path, test: Path | None) -> tuple[CaseTraces, Manifest]:
    """Returns the traces of the training cases, and the test cases.

    Args:
        pool: The manifest.csv of the training cases, or the folder of a run.
        test: The manifest.csv of the test cases; None for the splits val and test of the pool.
    """
    if pool.is_dir():
        traces = read_traces(pool)
        if not len(traces):
            raise BadInput(
                f"{pool}: does not list its training cases ({TRACES_FILE} is missing); give their manifest.csv"
            )
        if test is not None:
            return traces, Manifest.read(test)
    manifest = Manifest.read(pool)
    if test is not None:
        return trace_cases(manifest), Manifest.read(test)
    held_out = [n for n, split in enumerate(manifest.column("split")) if split in ("val", "test")]
    return trace_cases(manifest.in_split("train")), manifest.select(held_out)


def read_seen_cases(run: Path | None, test: Manifest | None) -> CaseTraces:
    """Returns the training cases of a run, none without a run.

    Raises:
        BadInput: Cases of the test manifest are among them.
    """
    return check_overlap(read_traces(run), run, test) if run else CaseTraces.join([])


def check_overlap(traces: CaseTraces, source: Path, test: Manifest | None) -> CaseTraces:
    """Returns the traces unchanged.

    Args:
        traces: The training cases.
        source: Where the training cases are from, for the message.
        test: The test cases, if there are any.

    Raises:
        BadInput: Test cases are among the training cases.
    """
    if test is not None:
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


def _match_identity(
    pool: CaseTraces, test: Manifest, kind: Kind, read: Callable[[Case], str], description: str
) -> Iterator[Leak]:
    """Finds the cases with the same value of a property; an empty value equals no other."""
    names = defaultdict(list)
    for name, value in zip(pool.ids, pool.rows[kind].tolist(), strict=True):
        names[value].append(name)
    for case in test.cases:
        if value := read(case):
            yield from (Leak(kind, name, case.id, description.format(value)) for name in names[hash_text(value)])


def _match_appearance(pool: CaseTraces, test: Manifest) -> Iterator[Leak]:
    names = pool.ids
    for copy in find_copies(list(read_thumbnails(test)), pool.rows["sketch"]):
        description = f"look alike (correlation {copy.correlation:.2f})"
        yield Leak("appearance", names[copy.sketch], test.cases[copy.scan].id, description)
