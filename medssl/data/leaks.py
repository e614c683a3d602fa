"""Leaks: cases that two sets share, by patient, by series, by voxels, or by their looks."""

import base64
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Shaped

from medssl.data.manifest import Case, Manifest
from medssl.data.normalise import Recipe
from medssl.data.store import Store, Stored
from medssl.errors import BadInput
from medssl.files import write_json

log = logging.getLogger(__name__)
POOL = "pool.json"

CELLS = 12  # a side, of the grid on which looks are compared
SIGNS = 3 * CELLS * CELLS * (CELLS - 1)  # steps between neighbouring cells
AIR, STILL = 0.1, 0.01  # of the range of the input: darker is air; a smaller step is none
ALIKE = 0.8  # cosine of two fingerprints: copies reach 0.83 and more, two patients 0.75 at most on three real sets

Kind = Literal["patient", "series", "voxels", "looks"]


@dataclass(frozen=True)
class Leak:
    """Two cases that must not lie on both sides of a split, and why."""

    kind: Kind
    one: str
    other: str
    said: str


@dataclass(frozen=True)
class Trace:
    """What a case is known again by, also where its files are gone."""

    id: str
    patient: str
    series: str
    sha256: str
    looks: Float32[np.ndarray, "n"]


def between(pool: Manifest, test: Manifest) -> list[Leak]:
    """Every pair of a case that is trained on and a case that is tested on which are the same patient or image."""
    return matches(traces(pool), traces(test))


def refuse(pool: Sequence[Trace], test: Sequence[Trace], names: tuple[str, str]) -> None:
    """Raises BadInput where anything leaks from one set into the other; `names` say where they lie."""
    found = matches(pool, test)
    if found:
        shown = "; ".join(f"{leak.one} and {leak.other}: {leak.said}" for leak in found[:4])
        raise BadInput(f"{len(found)} overlaps between {names[0]} and {names[1]}: {shown}; drop them from one side")


def traces(manifest: Manifest) -> list[Trace]:
    """The traces of a store's cases; reads each image once."""
    store, recipe = Store(manifest), Recipe()
    return [_trace(case, store.image(case), recipe) for case in manifest.cases]


def sides(pool: Path, test: Path | None) -> tuple[list[Trace], list[Trace]]:
    """Trained on and tested on: a run or a manifest against another manifest, or against its own val and test."""
    if pool.is_dir() and not (pool / POOL).is_file():
        raise BadInput(
            f"{pool}: does not say which cases it has seen ({POOL} is missing); give the manifest.csv it had"
        )
    if test is not None:
        return recall(pool) if pool.is_dir() else traces(Manifest.read(pool)), traces(Manifest.read(test))
    whole = Manifest.read(pool)
    return traces(whole.by("train")), traces(whole.by("val")) + traces(whole.by("test"))


def matches(pool: Sequence[Trace], test: Sequence[Trace]) -> list[Leak]:
    """Every pair of traces that are the same patient or image."""
    told = [leak for one in pool for other in test for leak in _told(one, other)]
    known = {(leak.one, leak.other) for leak in told if leak.kind == "voxels"}
    return told + [leak for leak in _alike(pool, test) if (leak.one, leak.other) not in known]


def remember(run: Path, seen: Sequence[Trace]) -> None:
    """Writes RUN/pool.json: what a training has seen, for later tests to be held against."""
    write_json(run / POOL, [asdict(trace) | {"looks": _packed(trace.looks)} for trace in seen])


def seen_by(run: Path | None, test: Manifest | None) -> list[Trace]:
    """What a training, if there was one, has seen; BadInput where cases of `test`, if given, are among it."""
    seen = recall(run) if run else []
    if seen and test:
        refuse(seen, traces(test), (str(run), f"the test cases of {test.folder}"))
    return seen


def refuse_seen(run: Path, labels: Path, cases: Collection[str]) -> None:
    """Raises BadInput where cases to be scored were trained on; a run or a store that is not there tells nothing."""
    if run.is_dir() and labels.is_file():
        store = Manifest.read(labels)
        seen_by(run, replace(store, cases=tuple(case for case in store.cases if case.id in cases)))


def recall(run: Path) -> list[Trace]:
    """What a training has seen; a run that did not write it down is told of in the log."""
    if not (run / POOL).is_file():
        log.warning("%s: does not say which cases it has seen (%s is missing); overlaps cannot be found", run, POOL)
        return []
    told: list[Any] = json.loads((run / POOL).read_text())
    return [Trace(**row | {"looks": _unpacked(row["looks"])}) for row in told]


def fingerprint(voxels: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "n"]:
    """A unit vector: does the body grow brighter (+), darker (-) or neither (0) from cell to cell of a coarse grid."""
    seen = np.nonzero(voxels > AIR)
    box = tuple(slice(at.min(), at.max() + 1) if len(at) else slice(None) for at in seen)
    cells = voxels[box].astype(np.float64)
    for axis in range(3):
        edges = np.linspace(0, cells.shape[axis], CELLS + 1).astype(int)
        sums = np.add.reduceat(cells, np.minimum(edges[:-1], cells.shape[axis] - 1), axis=axis)
        cells = np.moveaxis(np.moveaxis(sums, axis, -1) / np.maximum(1, np.diff(edges)), -1, axis)
    steps = np.concatenate([np.diff(cells, axis=axis).ravel() for axis in range(3)])
    return _unit(np.sign(steps) * (np.abs(steps) > STILL))


def _trace(case: Case, image: Stored, recipe: Recipe) -> Trace:
    looks = fingerprint(recipe.apply(image.array[0], image.unit))
    return Trace(case.id, case.patient, case.source.partition("#")[2], case.sha256, looks)


def _told(one: Trace, other: Trace) -> Iterator[Leak]:
    if one.patient == other.patient:
        yield Leak("patient", one.id, other.id, f"patient {one.patient}")
    if one.series and one.series == other.series:
        yield Leak("series", one.id, other.id, "the same DICOM series")
    if one.sha256 == other.sha256:
        yield Leak("voxels", one.id, other.id, "the same voxels")


def _alike(pool: Sequence[Trace], test: Sequence[Trace]) -> Iterator[Leak]:
    if pool and test:
        alike = np.stack([trace.looks for trace in pool]) @ np.stack([trace.looks for trace in test]).T
        for i, j in np.argwhere(alike > ALIKE):
            yield Leak("looks", pool[i].id, test[j].id, f"look alike (cosine {alike[i, j]:.2f})")


def _packed(looks: Float32[np.ndarray, "n"]) -> str:
    return base64.b64encode(np.packbits([looks > 0, looks < 0], axis=1).tobytes()).decode()


def _unpacked(text: str) -> Float32[np.ndarray, "n"]:
    rises, falls = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8).reshape(2, -1), axis=1)
    return _unit(rises[:SIGNS].astype(np.int8) - falls[:SIGNS].astype(np.int8))


def _unit(signs: Shaped[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    return (signs / max(1.0, float(np.linalg.norm(signs)))).astype(np.float32)
