"""Reads images and labels from NIfTI, MGH, NRRD and MetaImage files, chosen by the file ending."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput, Message
from medssl.volume import Volume

NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr")
MGH_ENDINGS = (".mgh", ".mgz")
NRRD_ENDINGS = (".nrrd", ".nhdr")
METAIMAGE_ENDINGS = (".mha", ".mhd")
ENDINGS = (*NIFTI_ENDINGS, *MGH_ENDINGS, *NRRD_ENDINGS, *METAIMAGE_ENDINGS)


def is_image(path: Path) -> bool:
    """Returns whether `read` supports the ending of a file name."""
    return path.name.lower().endswith(ENDINGS)


def read_channels(path: Path) -> list[Volume]:
    """Reads every volume of an image file: the channels of a NIfTI with a fourth axis, or the only one."""
    return _import_reader("nifti").read_channels(path) if is_nifti(path) else [read(path)]


def is_nifti(path: Path) -> bool:
    """Returns whether a file name has an ending of NIfTI, as a single file or the header of a pair."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def is_mgh(path: Path) -> bool:
    """Returns whether a file name has an ending of FreeSurfer's MGH format."""
    return path.name.lower().endswith(MGH_ENDINGS)


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
    return _choose_reader(path).read(path, label)


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of all axes of a file, which may hold several volumes, and its affine, from the header.

    Raises:
        BadInput: If the header is damaged or its geometry is missing or contradictory.
    """
    return _choose_reader(path).read_all_axes(path)


def _choose_reader(path: Path) -> Any:
    """Returns the module that reads files with this ending."""
    if is_nifti(path) or is_mgh(path):
        return _import_reader("nifti" if is_nifti(path) else "mgh")
    is_nrrd = path.name.lower().endswith(NRRD_ENDINGS)
    return _import_reader("text_headers.nrrd" if is_nrrd else "text_headers.metaimage")


def _import_reader(name: str) -> Any:
    """Imports a reader when it is needed, since its library takes as long to import as a scan takes to read."""
    return import_module(f"medssl.io.{name}")
