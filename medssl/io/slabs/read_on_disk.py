"""Reads images whose voxels lie in a temporary file instead of in memory."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from medssl.arrays.disk_arrays import store_on_disk
from medssl.io import archives, images
from medssl.io.voxels import validate_volume
from medssl.volume import Volume


def read_on_disk(path: Path) -> Volume:
    """Returns what `images.read` returns for an image, with the voxels of a large one on disk.

    A single-file NIfTI is decoded slice by slice; the voxels of another file are in memory while it is read.

    Raises:
        BadInput: If the file is damaged or its geometry is missing or contradictory.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        volume = images.read(path)
        return replace(volume, voxels=store_on_disk(volume.voxels))
    nifti = import_module("medssl.io.nifti")  # as in `medssl.io.images`, when it is needed
    with import_module("medssl.io.slabs.nifti_slices").open_slices(path) as slices:
        archives.check_bomb(path, nifti.compute_file_bytes(path, slices.header, slices.shape))
        voxels = slices.store_on_disk()
    return validate_volume(path, voxels, slices.affine, label=False)
