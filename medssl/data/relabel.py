"""Relabelled: a store with the images of another, which stay where they are, and labels that were made for them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card, Store
from medssl.files import seal
from medssl.volume import Volume

Label = Integer[np.ndarray, "i j k"]


def relabel(
    pool: Manifest,
    names: Mapping[int, str],
    labels: Iterable[tuple[Case, Label]],
    out: Path,
    home: Path | None = None,
    drawn: Sequence[int] | None = None,
) -> Manifest:
    """Writes a store to `out` of the cases that get a label; its images are found from `home`, where it will lie.

    `drawn` are the classes that a label tells of; all, where it is None.
    """
    shelf, cases = Store(pool), []
    for case, label in labels:
        image, name = shelf.image(case), f"labels/{case.id}.b2nd"
        voxels = label.astype(np.min_scalar_type(max(names)))
        sha = store.write(out / name, Volume(voxels, image.affine, "label"), image.about())
        place = os.path.relpath(pool.path(case), home or out)
        cases.append(replace(case, image=place, label=name, label_sha256=sha))
    told = {} if drawn is None else {case.id: list(drawn) for case in cases}
    made = {"labels": dict(names), "present_labels": told, "regions": {}}
    Card.read(pool.folder).model_copy(update=made).write(out)
    manifest = Manifest(tuple(cases), out)
    manifest.write(out / "manifest.csv")
    seal(out, ("store.json", "manifest.csv"))
    return manifest
