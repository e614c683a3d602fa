"""Reads images and labels from NIfTI, NRRD and MetaImage files, chosen by the file ending."""

from pathlib import Path

from medssl.errors import BadInput, Message
from medssl.io import nifti, nrrd_metaimage
from medssl.volume import Volume

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def is_image(path: Path) -> bool:
    """Returns whether `read` supports the ending of a file name."""
    return path.name.lower().endswith(ENDINGS)


def read_channels(path: Path) -> list[Volume]:
    """Reads every volume of an image file: the channels of a NIfTI with a fourth axis, or the only one."""
    return nifti.read_channels(path) if path.name.lower().endswith((".nii", ".nii.gz")) else [read(path)]


def is_nifti(path: Path) -> bool:
    """Returns whether a file name has an ending of NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read(path: Path, label: bool = False) -> Volume:
    """Reads an image in arbitrary units or a label map, with its affine in mm, RAS+.

    Args:
        path: A file with one of the `ENDINGS`.
        label: Whether the file is a label map of whole numbers from 0.

    Raises:
        BadInput: If the file is damaged or its geometry is missing or contradictory.
    """
    if not is_image(path):
        raise BadInput(
            Message(
                "{path}: the ending is not one of {endings}; convert the file", path=path, endings=", ".join(ENDINGS)
            )
        )
    if is_nifti(path):
        return nifti.read(path, label)
    return nrrd_metaimage.read(path, label)
