"""Reads the affine of a NIfTI header, on which sform, qform, pixdim and the unit of length must agree."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float
from nibabel.spatialimages import HeaderDataError

from medssl.errors import BadInput, InputWarning, Message
from medssl.io.voxels import measure_distance

TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
MAX_CONFLICT_MM = 0.05  # the largest distance allowed between the grids of sform and qform


def read_affine(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, int, int]) -> Float[np.ndarray, "4 4"]:
    """Returns the affine in mm on which sform, qform and pixdim agree."""
    spacing = np.asarray(header["pixdim"][1:4], float)
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise BadInput(
            Message(
                "{path}: voxel sizes {spacing!s} must be positive; write the header again",
                path=path,
                spacing=spacing.tolist(),
            )
        )
    affines = _read_coded_affines(path, header)
    if not affines:
        raise BadInput(
            Message(
                "{path}: neither sform nor qform is set, so left and right are unknown; write its orientation",
                path=path,
            )
        )
    affine = affines[0]
    scale = _read_mm_per_unit(path, header)
    columns = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(columns - spacing).max() > 0.01 * spacing.min():
        raise BadInput(
            Message(
                "{path}: the affine's spacing {columns!s} is not pixdim's {spacing!s}",
                path=path,
                columns=columns.round(4).tolist(),
                spacing=spacing.tolist(),
            )
        )
    distance_mm = measure_distance(affine, affines[-1], shape) * scale
    if distance_mm > MAX_CONFLICT_MM:
        raise BadInput(
            Message(
                "{path}: sform and qform lie {distance_mm:.2f} mm apart; keep the right one only",
                path=path,
                distance_mm=distance_mm,
            )
        )
    return np.diag([scale, scale, scale, 1.0]) @ affine


def _read_coded_affines(path: Path, header: nibabel.Nifti1Header) -> list[Float[np.ndarray, "4 4"]]:
    """Returns sform and qform, as far as their codes are set, in the unit of the file."""
    affines = []
    if int(header["sform_code"]) > 0:
        affines.append(np.asarray(header.get_sform(), float))
    if int(header["qform_code"]) > 0:
        try:
            affines.append(np.asarray(header.get_qform(), float))
        except (ValueError, HeaderDataError) as error:
            raise BadInput(
                Message("{path}: its qform is no rotation ({error}); write the geometry again", path=path, error=error)
            ) from None
    if not all(np.isfinite(a).all() for a in affines):
        raise BadInput(Message("{path}: its sform or qform is not finite; write the geometry again", path=path))
    return affines


def _read_mm_per_unit(path: Path, header: nibabel.Nifti1Header) -> float:
    """Returns the length unit of the header in mm; warns if it is not set."""
    code = int(header["xyzt_units"]) & 7
    if code not in TO_MM:
        raise BadInput(
            Message("{path}: unknown unit of length (code {code}); write the geometry in mm", path=path, code=code)
        )
    if code == 0:
        warnings.warn(
            Message("{path.name}: its unit of length is not set; taken as mm", path=path), InputWarning, stacklevel=4
        )
    return TO_MM[code]
