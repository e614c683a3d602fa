"""Leaks: cases that two sets share, by patient, by series, by voxels, or by their looks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from medssl.data.manifest import Case, Manifest
from medssl.data.normalise import Recipe
from medssl.data.store import Store
from medssl.errors import BadInput

CELLS = 12  # a side, of the grid on which looks are compared
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


def between(pool: Manifest, test: Manifest) -> list[Leak]:
    """Every pair of a case that is trained on and a case that is tested on which are the same patient or image."""
    told = [leak for one in pool.cases for other in test.cases for leak in _told(one, other)]
    known = {(leak.one, leak.other) for leak in told if leak.kind == "voxels"}
    return told + [leak for leak in _alike(pool, test) if (leak.one, leak.other) not in known]


def refuse(pool: Manifest, test: Manifest) -> None:
    """Raises BadInput where anything leaks from one set into the other."""
    found = between(pool, test)
    if found:
        shown = "; ".join(f"{leak.one} and {leak.other}: {leak.said}" for leak in found[:4])
        raise BadInput(
            f"{len(found)} overlaps between {pool.folder} and {test.folder}: {shown}; drop them from one side"
        )


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
    signs = np.sign(steps) * (np.abs(steps) > STILL)
    return (signs / max(1.0, np.linalg.norm(signs))).astype(np.float32)


def _told(one: Case, other: Case) -> Iterator[Leak]:
    if one.patient == other.patient:
        yield Leak("patient", one.id, other.id, f"patient {one.patient}")
    if "#" in one.source and one.source.partition("#")[2] == other.source.partition("#")[2]:
        yield Leak("series", one.id, other.id, "the same DICOM series")
    if one.sha256 == other.sha256:
        yield Leak("voxels", one.id, other.id, "the same voxels")


def _alike(pool: Manifest, test: Manifest) -> Iterator[Leak]:
    alike = _fingerprints(pool) @ _fingerprints(test).T
    for i, j in np.argwhere(alike > ALIKE):
        yield Leak("looks", pool.cases[i].id, test.cases[j].id, f"look alike (cosine {alike[i, j]:.2f})")


def _fingerprints(manifest: Manifest) -> Float32[np.ndarray, "cases n"]:
    store, recipe = Store(manifest), Recipe()
    opened = [store.image(case) for case in manifest.cases]
    return np.stack([fingerprint(recipe.apply(image.array[0], image.unit)) for image in opened])
