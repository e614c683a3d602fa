"""Images and labels in files of their own, read by their ending."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medssl.errors import BadInput
from medssl.io import nifti
from medssl.io.voxels import finished
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
    return _itk(path, label)


def _itk(path: Path, label: bool) -> Volume:
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1][:120]
        raise BadInput(f"{path}: cannot be read ({cause}); copy or write the file again") from None
    axes, channels = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if (axes, channels) != (3, 1):
        raise BadInput(f"{path}: {axes} axes and {channels} channel(s); three and one make a volume")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return finished(path, voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, label)
