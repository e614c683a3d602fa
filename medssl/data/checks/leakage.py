"""Leaks: cases that two sets share, by patient, by series, by voxels, or by their looks."""

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

from medssl.data.fingerprint import CELLS, COARSE, likeness, steps, unit
from medssl.data.ingest.source import place_parts
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store, Stored, looked_at
from medssl.errors import BadInput
from medssl.files import write_json

log = logging.getLogger(__name__)
POOL = "pool.json"

NEAR = 0.5  # cosine of steps from which on two pictures are laid over each other
ALIKE = 0.885  # likeness of two pictures: copies reach 0.90 and more, two patients 0.87 at most on four real sets
ALIKE_STEPS = 0.8  # cosine of steps, for runs that wrote no pictures down
PLAIN = ("id", "patient", "series", "sha256")
SIGNS = 3 * COARSE * COARSE * (COARSE - 1)

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
    steps: Float32[np.ndarray, "s"]
    picture: UInt8[np.ndarray, "n n n"] | None = None


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
    """The traces of a store's cases; reads no voxels where their pictures were stored with them."""
    store = Store(manifest)
    return [_trace(case, store.image(case)) for case in manifest.cases]


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
    write_json(run / POOL, [_told_of(trace) for trace in seen])


def seen_by(run: Path | None, test: Manifest | None) -> list[Trace]:
    """What a training, if there was one, has seen; BadInput where cases of `test`, if given, are among it."""
    return apart(recall(run), run, test) if run else []


def apart(seen: list[Trace], place: Path, test: Manifest | None) -> list[Trace]:
    """What was seen, as told at `place`; BadInput where cases of `test`, if given, are among it."""
    if seen and test:
        refuse(seen, traces(test), (str(place), f"the test cases of {test.folder}"))
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
    return [_recalled(row) for row in told]


def _trace(case: Case, image: Stored) -> Trace:
    shown = looked_at(image.volume()) if image.picture is None else image.picture
    return Trace(case.id, case.patient, place_parts(case.source)[1], case.sha256, steps(shown), shown)


def _told(one: Trace, other: Trace) -> Iterator[Leak]:
    if one.patient == other.patient:
        yield Leak("patient", one.id, other.id, f"patient {one.patient}")
    if one.series and one.series == other.series:
        yield Leak("series", one.id, other.id, "the same DICOM series")
    if one.sha256 == other.sha256:
        yield Leak("voxels", one.id, other.id, "the same voxels")


def _alike(pool: Sequence[Trace], test: Sequence[Trace]) -> Iterator[Leak]:
    if pool and test:
        near = np.stack([trace.steps for trace in pool]) @ np.stack([trace.steps for trace in test]).T
        for i, j in np.argwhere(near > NEAR):
            if said := _copy(pool[i], test[j], float(near[i, j])):
                yield Leak("looks", pool[i].id, test[j].id, said)


def _copy(one: Trace, other: Trace, near: float) -> str:
    """In what two cases look alike; empty where they do not."""
    if one.picture is None or other.picture is None:
        return f"look alike (cosine {near:.2f})" if near > ALIKE_STEPS else ""
    alike = likeness(one.picture, other.picture)
    return f"look alike (likeness {alike:.2f})" if alike > ALIKE else ""


def _told_of(trace: Trace) -> dict[str, Any]:
    plain = {name: getattr(trace, name) for name in PLAIN}
    if trace.picture is None:
        return plain | {
            "looks": base64.b64encode(np.packbits([trace.steps > 0, trace.steps < 0], axis=1).tobytes()).decode()
        }
    return plain | {"picture": base64.b64encode(zlib.compress(trace.picture.tobytes())).decode()}


def _recalled(row: dict[str, Any]) -> Trace:
    """A trace that was written down, also as it was before there were pictures."""
    plain: dict[str, Any] = {name: row[name] for name in PLAIN}
    if "picture" in row:
        flat = np.frombuffer(zlib.decompress(base64.b64decode(row["picture"])), np.uint8)
        shown = flat.reshape(CELLS, CELLS, CELLS)
        return Trace(**plain, steps=steps(shown), picture=shown)
    rises, falls = np.unpackbits(np.frombuffer(base64.b64decode(row["looks"]), np.uint8).reshape(2, -1), axis=1)
    return Trace(**plain, steps=unit(rises[:SIGNS].astype(np.int8) - falls[:SIGNS].astype(np.int8)))
