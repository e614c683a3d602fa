"""Grid: the one geometry of a stack of slices, or the numbers that show there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.io.dicom.frames import Frame
from medssl.io.rejected import Refusal

POSITION_MM = 0.01
SPACING_SHARE = 0.01
COSINE = 1e-4
MOST_FILLED = 3
TILT_DEG = 0.5
UNIT_COSINE = 1e-3
PIXEL_MM = (0.005, 50.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """The order of the slices along their normal and the affine (mm, RAS+) of the volume they make.

    `between` are the fractional slices to interpolate where some are missing or uneven; `tilted` tells that the
    slices slide sideways, so that the affine is sheared.
    """

    order: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    between: Float[np.ndarray, "k"] | None = None
    tilted: bool = False
    doubts: tuple[str, ...] = ()


def grid(frames: Sequence[Frame], allow_gaps: bool = False) -> Grid:
    """The grid that the slices fill; a `Refusal` names what breaks it, in mm."""
    if len(frames) < 2:
        raise Refusal("too-few", "a single slice: no volume")
    across, down = _axes(frames)
    normal = np.cross(across, down)
    positions = np.array([f.position for f in frames])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    heights = positions @ normal
    gaps = _gaps(heights)
    if gaps and not allow_gaps:
        raise Refusal("gaps", f"{gaps}; allow_gaps interpolates")
    step_mm = float(np.median(np.diff(heights)))
    between = _between(heights, step_mm) if gaps else None
    slope, tilted = _slope(positions, heights, normal, step_mm)
    _check_tag(frames[0], normal, tilted)
    step = slope * (step_mm if gaps else (heights[-1] - heights[0]) / (len(heights) - 1))
    affine = np.eye(4)
    i_mm, j_mm = frames[0].pixel_mm
    affine[:3] = np.column_stack([across * i_mm, down * j_mm, step, positions[0]])
    doubts = [f"interpolated: {gaps}"] if gaps else []
    if tilted:
        angle = np.degrees(np.arccos(1 / np.linalg.norm(slope)))
        doubts.append(f"a gantry tilt of {angle:.1f} degrees: resampled onto a straight grid")
    return Grid(tuple(int(o) for o in order), TO_RAS @ affine, between, tilted, tuple(doubts))


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


def _gaps(heights: Float[np.ndarray, "n"]) -> str:
    """Where slices are missing or uneven, in words; empty if they are not."""
    steps = np.diff(heights)
    if (twice := np.flatnonzero(steps <= POSITION_MM)).size:
        raise Refusal("duplicates", f"several slices at {_mm(heights[twice])}")
    usual = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - usual) > max(POSITION_MM, SPACING_SHARE * usual))
    even = heights[0] + np.arange(len(heights)) * (heights[-1] - heights[0]) / (len(heights) - 1)
    if odd.size == 0 and np.abs(heights - even).max() <= max(POSITION_MM, SPACING_SHARE * usual):
        return ""
    where = ", ".join(f"{heights[i]:.2f} to {heights[i + 1]:.2f}" for i in odd[:8]) or "all along"
    more = f" and {odd.size - 8} more" if odd.size > 8 else ""
    return (
        f"slices are missing or uneven: usually {usual:.3f} mm apart, but not from {where}{more} mm along their normal"
    )


def _between(heights: Float[np.ndarray, "n"], step_mm: float) -> Float[np.ndarray, "k"]:
    """The fractional slice at every step from the first to the last."""
    count = int(np.floor((heights[-1] - heights[0]) / step_mm + 0.01)) + 1
    if count > MOST_FILLED * len(heights):
        raise Refusal("gaps", f"{len(heights)} slices for {count} places: too few to interpolate")
    return np.interp(heights[0] + step_mm * np.arange(count), heights, np.arange(len(heights)))


def _slope(
    positions: Float[np.ndarray, "n 3"], heights: Float[np.ndarray, "n"], normal: Float[np.ndarray, "3"], step_mm: float
) -> tuple[Float[np.ndarray, "3"], bool]:
    """The way from slice to slice for each mm along the normal, and whether it is tilted against the normal."""
    rise = heights - heights[0]
    slope = (positions[-1] - positions[0]) / rise[-1]
    off = float(np.linalg.norm(positions - positions[0] - rise[:, None] * slope, axis=1).max())
    tolerance = max(POSITION_MM, SPACING_SHARE * step_mm)
    if off > tolerance:
        raise Refusal("mixed", f"slices lie up to {off:.3f} mm beside the line through the first and the last")
    sideways = float(np.linalg.norm(slope - normal)) * rise[-1]
    if np.linalg.norm(slope - normal) > 1:
        raise Refusal(
            "tilt", f"slices slide sideways by {sideways:.1f} mm over {rise[-1]:.1f} mm: no gantry tilts so far"
        )
    return slope, bool(sideways > tolerance)


def _check_tag(frame: Frame, normal: Float[np.ndarray, "3"], tilted: bool) -> None:
    """A tilt that is tagged must show in the slices' orientation or in their positions."""
    if abs(frame.tilt_deg) > TILT_DEG and abs(normal[2]) > np.cos(np.radians(TILT_DEG / 2)) and not tilted:
        raise Refusal(
            "tilt", f"GantryDetectorTilt is {frame.tilt_deg:g} degrees, but the slices lie as if there was none"
        )


def _mm(heights: Float[np.ndarray, "n"]) -> str:
    told = ", ".join(f"{h:.2f}" for h in heights[:8])
    return f"{told} mm" + (f" and {len(heights) - 8} more places" if len(heights) > 8 else "")


def _told(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{n:.4g}" for n in numbers) + "]"
