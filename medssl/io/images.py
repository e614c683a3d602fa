"""Images and labels in files of their own, read by their ending."""

from pathlib import Path

from medssl.errors import BadInput
from medssl.io import nifti
from medssl.io import nrrd_metaimage as itk
from medssl.volume import Volume

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def is_image(path: Path) -> bool:
    """Whether a file's name ends as those that `read` takes."""
    return path.name.lower().endswith(ENDINGS)


def read(path: Path, label: bool = False) -> Volume:
    """An image in arbitrary units, or a label of whole numbers, with its affine in mm, RAS+."""
    if not is_image(path):
        raise BadInput(f"{path}: not one of {', '.join(ENDINGS)}")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return nifti.read(path, label)
    return itk.read(path, label)
