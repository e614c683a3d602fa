"""Writes a store with new labels that refers to the images of an existing store."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.files import write_checksums
from medssl.volume import Volume

LabelArray = Integer[np.ndarray, "i j k"]


def relabel(
    manifest: Manifest,
    names: Mapping[int, str],
    labels: Iterable[tuple[Case, LabelArray]],
    out: Path,
    final_folder: Path | None = None,
    annotated_classes: Sequence[int] | None = None,
) -> Manifest:
    """Writes a store of the cases that receive a label; images are not copied.

    Args:
        manifest: Cases of the existing store.
        names: Label value -> class name.
        labels: Cases with their new labels, on the grid of the stored image.
        out: Folder to write to.
        final_folder: Folder that `out` is renamed to later, from which image paths are relative; None for `out`.
        annotated_classes: Label values that the labels cover; None for all.

    Returns:
        The manifest of the new store.
    """
    images, cases = Store(manifest), []
    for case, label in labels:
        image, label_name = images.image(case), f"labels/{case.id}.b2nd"
        voxels = label.astype(np.min_scalar_type(max(names)))
        sha = store.write(out / label_name, Volume(voxels, image.affine, "label"), image.provenance())
        image_path = os.path.relpath(manifest.path(case), final_folder or out)
        cases.append(replace(case, image=image_path, label=label_name, label_sha256=sha))
    present_labels = {} if annotated_classes is None else {case.id: list(annotated_classes) for case in cases}
    changes = {"labels": dict(names), "present_labels": present_labels, "regions": {}}
    StoreMetadata.read(manifest.folder).model_copy(update=changes).write(out)
    relabelled = Manifest(tuple(cases), out)
    relabelled.write(out / "manifest.csv")
    write_checksums(out, ("store.json", "manifest.csv"))
    return relabelled
