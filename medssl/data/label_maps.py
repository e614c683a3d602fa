"""Prepares a folder of label maps without images as a store that crops are cut from."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.volume import Spacing, Volume

Structures = tuple[tuple[int, ...], ...]


def write_label_map_store(
    folder: Path, structures: Structures, spacing_mm: Spacing, margin_mm: Spacing, channels: int, out: Path
) -> Manifest:
    """Writes a store of label maps with empty images.

    Label n is the n-th group of `structures`. All other values of a map follow as labels of their own without a name:
    regions, but no classes.

    Args:
        folder: Folder of NIfTI files (.nii, .nii.gz).
        structures: Groups of label values; each group is one class.
        spacing_mm: Voxel spacing of the store.
        margin_mm: What is kept of a map around its structures, along the axes of RAS.
        channels: Number of channels of the empty images.
        out: Folder of the store.

    Raises:
        BadInput: The folder has no label map, or a map has none of the structures.
    """
    paths = sorted(path for path in folder.glob("*") if path.name.endswith((".nii", ".nii.gz")))
    if not paths:
        raise BadInput(f"{folder}: no label map (*.nii, *.nii.gz); give labels.folder=FOLDER with label maps in NIfTI")
    cases = []
    for number, path in enumerate(paths):
        cropped = _crop_around(_read_map(path, structures), len(structures), margin_mm)
        label = cropped.resample(spacing_mm, order=0)
        image = Volume(np.zeros((channels, *label.shape), np.float16), label.affine, "a.u.")
        image_name, label_name = f"images/map{number}.b2nd", f"labels/map{number}.b2nd"
        sha = store.write(out / image_name, image, {})
        label_sha = store.write(out / label_name, label, {})
        case_id = path.name.removesuffix(".gz").removesuffix(".nii")
        cases.append(
            Case(
                case_id, case_id, image_name, label_name, "MR", "a.u.", spacing_mm, label.shape, channels, "train",
                str(path), sha, label_sha256=label_sha,
            )
        )  # fmt: skip
    names = {n: "+".join(map(str, group)) for n, group in enumerate(structures, 1)}
    StoreMetadata(spacing_mm=spacing_mm, labels={0: "background", **names}).write(out)
    manifest = Manifest(tuple(cases), out)
    manifest.write(out / "manifest.csv")
    return manifest


def _read_map(path: Path, structures: Structures) -> Volume:
    """Reads a label map in RAS, with the groups of structures as labels 1, 2, ... and the other values after them."""
    volume = nifti.read(path, label=True).reorient("RAS")
    values, index = np.unique(volume.voxels, return_inverse=True)
    group_of_value = {value: n for n, group in enumerate(structures, 1) for value in group}
    if group_of_value.keys().isdisjoint(values.tolist()):
        raise BadInput(
            f"{path}: has none of the structures {sorted(group_of_value)}; it has {_shorten(values)}; correct"
            " labels.structures, or take the file out of the folder"
        )
    others = [value for value in values.tolist() if value != 0 and value not in group_of_value]
    new_values = {0: 0, **group_of_value} | {value: n for n, value in enumerate(others, len(structures) + 1)}
    lookup = np.array([new_values[value] for value in values.tolist()])
    relabelled = lookup[index.reshape(volume.shape)].astype(np.min_scalar_type(int(lookup.max())))
    return Volume(relabelled, volume.affine, "label")


def _crop_around(volume: Volume, num_classes: int, margin_mm: Spacing) -> Volume:
    """Returns the part of a map around the voxels of its classes."""
    margin = np.ceil(np.divide(margin_mm, volume.spacing_mm())).astype(int)
    where = np.argwhere((volume.voxels > 0) & (volume.voxels <= num_classes))
    low = np.maximum(where.min(0) - margin, 0)
    high = np.minimum(where.max(0) + 1 + margin, volume.shape)
    (a, b, c), (p, q, r) = low.tolist(), high.tolist()
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(low.astype(float))
    return Volume(np.ascontiguousarray(volume.voxels[a:p, b:q, c:r]), affine, "label")


def _shorten(values: Shaped[np.ndarray, "n"]) -> str:
    return ", ".join(map(str, values[:20].tolist())) + (", ..." if len(values) > 20 else "")
