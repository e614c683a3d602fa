"""Grid: the one geometry of a stack of slices, or the numbers that show there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from medssl.io.dicom_frames import Frame
from medssl.io.refused import Refusal

POSITION_MM = 0.01
SPACING_SHARE = 0.01
COSINE = 1e-4
UNIT_COSINE = 1e-3
PIXEL_MM = (0.005, 50.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """The order of the slices along their normal and the affine (mm, RAS+) of the volume they make."""

    order: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]


def grid(frames: Sequence[Frame]) -> Grid:
    """The grid that the slices fill without gaps; a `Refusal` names what breaks it, in mm."""
    if len(frames) < 2:
        raise Refusal("too-few", "a single slice: no volume")
    across, down = _axes(frames)
    normal = np.cross(across, down)
    positions = np.array([f.position for f in frames])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    _check_steps(heights[order])
    step = _straight(positions[order], heights[order], normal)
    affine = np.eye(4)
    i_mm, j_mm = frames[0].pixel_mm
    affine[:3] = np.column_stack([across * i_mm, down * j_mm, step, positions[order[0]]])
    return Grid(tuple(int(o) for o in order), TO_RAS @ affine)


def _axes(frames: Sequence[Frame]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """The unit vectors along a row and down a column, which all slices share."""
    first = frames[0]
    for frame in frames:
        if np.abs(np.subtract(frame.axes, first.axes)).max() > COSINE:
            raise Refusal("mixed", f"slices of different orientation: {_told(first.axes)} and {_told(frame.axes)}")
        if np.abs(np.subtract(frame.pixel_mm, first.pixel_mm)).max() > COSINE * first.pixel_mm[0]:
            raise Refusal("mixed", f"slices of different pixel spacing: {first.pixel_mm} and {frame.pixel_mm} mm")
        size, other = (first.layout.columns, first.layout.rows), (frame.layout.columns, frame.layout.rows)
        if size != other:
            raise Refusal("mixed", f"slices of different size: {size[0]}x{size[1]} and {other[0]}x{other[1]} voxels")
    across, down = np.array(first.axes[:3]), np.array(first.axes[3:])
    lengths = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    if max(abs(length - 1) for length in lengths) > UNIT_COSINE or abs(across @ down) > UNIT_COSINE:
        raise Refusal(
            "geometry", f"ImageOrientationPatient {_told(first.axes)} is no pair of perpendicular unit vectors"
        )
    if not all(PIXEL_MM[0] <= mm <= PIXEL_MM[1] for mm in first.pixel_mm):
        raise Refusal("geometry", f"PixelSpacing {first.pixel_mm} mm is impossible")
    across = across / lengths[0]
    down = down - (down @ across) * across
    return across, down / np.linalg.norm(down)


def _check_steps(heights: Float[np.ndarray, "n"]) -> None:
    steps = np.diff(heights)
    if (twice := np.flatnonzero(steps <= POSITION_MM)).size:
        raise Refusal("duplicates", f"several slices at {_mm(heights[twice])}")
    usual = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - usual) > max(POSITION_MM, SPACING_SHARE * usual))
    if odd.size:
        where = ", ".join(f"{heights[i]:.2f} to {heights[i + 1]:.2f}" for i in odd[:8])
        raise Refusal("gaps", f"slices are missing or uneven: usually {usual:.3f} mm apart, but not from {where} mm")


def _straight(
    positions: Float[np.ndarray, "n 3"], heights: Float[np.ndarray, "n"], normal: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """The step from slice to slice, if all lie on one line along the normal."""
    count = len(heights) - 1
    step = (positions[-1] - positions[0]) / count
    wobble = np.abs(positions - positions[0] - np.arange(count + 1)[:, None] * step).max()
    tolerance = max(POSITION_MM, SPACING_SHARE * (heights[-1] - heights[0]) / count)
    if wobble > tolerance:
        raise Refusal("gaps", f"slices lie up to {wobble:.3f} mm off the line through the first and the last")
    sideways = float(np.linalg.norm(step - (step @ normal) * normal)) * count
    if sideways > tolerance:
        raise Refusal("tilt", f"slices slide sideways by {sideways:.2f} mm in all: a tilted gantry")
    return step


def _mm(heights: Float[np.ndarray, "n"] | Int[np.ndarray, "n"]) -> str:
    told = ", ".join(f"{h:.2f}" for h in heights[:8])
    return f"{told} mm" + (f" and {len(heights) - 8} more places" if len(heights) > 8 else "")


def _told(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{n:.4g}" for n in numbers) + "]"
