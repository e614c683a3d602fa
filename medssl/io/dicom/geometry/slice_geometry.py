"""Fits one regular grid to the positions of a stack of slices, or rejects the stack with the distances in mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.errors import Message
from medssl.io.dicom.frames import Frame
from medssl.io.rejected import ReadRejected

POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE = 0.01  # fraction of the distance between slices
COSINE_TOLERANCE = 1e-4
MAX_COSINE_JITTER = 1e-3  # orientations that differ by less are averaged, with a warning
ROUNDING_STEPS_MM = (0.1, 1.0)  # positions that are all multiples of one of these were rounded
MAX_ROUNDING = 0.15  # the largest rounding that is corrected, as a fraction of the distance between slices
MAX_FILL_FACTOR = 3  # interpolated slices per slice
TILT_DEG = 0.5  # a smaller tagged tilt is ignored
UNIT_TOLERANCE = 1e-3
PIXEL_LIMITS_MM = (0.005, 50.0)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """The geometry of a stack of slices.

    Args:
        order: The indices of the slices in the order along their normal.
        affine: Voxel indices to mm, RAS+.
        slice_positions: The fractional indices of the slices to interpolate, if some are missing or unevenly spaced.
        is_tilted: Whether the slices shift sideways, so that the affine is sheared.
        warnings: What should be checked about the geometry.
    """

    order: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    slice_positions: Float[np.ndarray, "k"] | None = None
    is_tilted: bool = False
    warnings: tuple[Message, ...] = ()


def fit_grid(frames: Sequence[Frame], allow_gaps: bool = False) -> Grid:
    """Fits a grid to the slices.

    Args:
        frames: The slices in any order.
        allow_gaps: Whether missing or unevenly spaced slices are interpolated.

    Raises:
        ReadRejected: If the slices form no grid; the message names the reason in mm.
    """
    if len(frames) < 2:
        raise ReadRejected("too-few", Message("a single slice: no volume; give the whole series"))
    across, down, messages = _read_axes(frames)
    normal = np.cross(across, down)
    positions = np.array([f.position for f in frames])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    rounding_mm = _find_rounding(positions, normal)
    if rounding_mm:
        positions = _fit_line(positions)
        spacing_mm = float(np.diff(positions @ normal).mean())
        messages += (Message("slice positions are rounded to {rounding_mm:g} mm; read as {spacing_mm:.3f} mm apart",
                             rounding_mm=rounding_mm, spacing_mm=spacing_mm),)  # fmt: skip
    heights = positions @ normal
    gaps = _describe_gaps(heights)
    if gaps and not allow_gaps:
        raise ReadRejected("gaps", Message(
            "{gaps}; add the missing slices, or fill the gaps by interpolation with --allow-gaps (allow_gaps=True)",
            gaps=gaps,
        ))  # fmt: skip
    step_mm = float(np.median(np.diff(heights)))
    slice_positions = _place_slices(heights, step_mm) if gaps else None
    slope, is_tilted = _fit_slope(positions, heights, normal, step_mm, rounding_mm)
    messages += _find_false_tilt(frames[0], normal, is_tilted)
    step = slope * (step_mm if gaps else (heights[-1] - heights[0]) / (len(heights) - 1))
    affine = np.eye(4)
    i_mm, j_mm = frames[0].pixel_mm
    affine[:3] = np.column_stack([across * i_mm, down * j_mm, step, positions[0]])
    if gaps:
        messages += (Message("interpolated: {gaps}", gaps=gaps),)
    if is_tilted:
        angle = np.degrees(np.arccos(1 / np.linalg.norm(slope)))
        messages += (Message("a gantry tilt of {angle:.1f} degrees: resampled onto a straight grid", angle=angle),)
    return Grid(tuple(int(o) for o in order), TO_RAS @ affine, slice_positions, is_tilted, messages)


def _find_rounding(positions: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "3"]) -> float:
    """Returns the step in mm to which evenly spaced positions were rounded; 0 if they were not, or are exact."""
    heights = positions @ normal
    exact_mm = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * abs(float(np.median(np.diff(heights)))))
    deviations = np.abs(positions - _fit_line(positions))
    mean_mm = abs(heights[-1] - heights[0]) / (len(heights) - 1)
    if len(positions) < 3 or deviations.max() <= exact_mm / 2:
        return 0.0
    for step_mm in ROUNDING_STEPS_MM:
        is_multiple = np.abs(positions / step_mm - np.rint(positions / step_mm)).max() < 1e-6
        if is_multiple and deviations.max() <= 0.6 * step_mm and step_mm / 2 <= MAX_ROUNDING * mean_mm:
            return step_mm
    return 0.0


def _fit_line(positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Returns evenly spaced positions on the line that fits the positions best."""
    steps = np.arange(len(positions)) - (len(positions) - 1) / 2
    slope = steps @ positions / (steps @ steps)
    return positions.mean(axis=0) + steps[:, None] * slope


def _read_axes(
    frames: Sequence[Frame],
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], tuple[Message, ...]]:
    """Returns the unit vectors along a row and down a column, which all slices must share, and warnings about them."""
    first = frames[0]
    axes = np.array([frame.axes for frame in frames])
    deviation = float(np.abs(axes - axes[0]).max())
    jitter = deviation if COSINE_TOLERANCE < deviation <= 2 * MAX_COSINE_JITTER else 0.0
    mean_axes = axes.mean(axis=0) if jitter else axes[0]
    kinds: dict[tuple[object, ...], Frame] = {}  # the first slice of each
    for frame in frames:
        kinds.setdefault((frame.axes, frame.pixel_mm, frame.size), frame)
    for frame in kinds.values():
        if np.abs(np.subtract(frame.axes, mean_axes)).max() > (MAX_COSINE_JITTER if jitter else COSINE_TOLERANCE):
            raise ReadRejected(
                "mixed",
                Message(
                    "slices of different orientation: {axes} and {other_axes}; export each orientation as a series",
                    axes=_format_numbers(first.axes),
                    other_axes=_format_numbers(frame.axes),
                ),
            )
        if np.abs(np.subtract(frame.pixel_mm, first.pixel_mm)).max() > COSINE_TOLERANCE * first.pixel_mm[0]:
            raise ReadRejected(
                "mixed",
                Message(
                    "slices of different pixel spacing: {pixel_mm!s} and {other_mm!s} mm; export each as a series",
                    pixel_mm=first.pixel_mm,
                    other_mm=frame.pixel_mm,
                ),
            )
        size, other_size = first.size, frame.size
        if size != other_size:
            raise ReadRejected(
                "mixed",
                Message(
                    "slices of different size: {columns}x{rows} and {other_columns}x{other_rows} voxels; "
                    "export each as a series",
                    columns=size[0],
                    rows=size[1],
                    other_columns=other_size[0],
                    other_rows=other_size[1],
                ),
            )
    across, down = np.split(mean_axes, 2)
    lengths = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    if max(abs(length - 1) for length in lengths) > UNIT_TOLERANCE or abs(across @ down) > UNIT_TOLERANCE:
        raise ReadRejected(
            "geometry",
            Message(
                "ImageOrientationPatient {axes} is no pair of perpendicular unit vectors",
                axes=_format_numbers(first.axes),
            ),
        )
    if not all(PIXEL_LIMITS_MM[0] <= mm <= PIXEL_LIMITS_MM[1] for mm in first.pixel_mm):
        raise ReadRejected("geometry", Message("PixelSpacing {pixel_mm!s} mm is impossible", pixel_mm=first.pixel_mm))
    across = across / lengths[0]
    down = down - (down @ across) * across
    warnings = (Message(
        "the orientation of its slices differs by up to {jitter:.1e}; the mean is used", jitter=jitter
    ),) if jitter else ()  # fmt: skip
    return across, down / np.linalg.norm(down), warnings


def _describe_gaps(heights: Float[np.ndarray, "n"]) -> str:
    """Describes where slices are missing or unevenly spaced; empty if they are not."""
    steps = np.diff(heights)
    if (repeated := np.flatnonzero(steps <= POSITION_TOLERANCE_MM)).size:
        raise ReadRejected(
            "duplicates", Message("several slices lie at {heights}", heights=_format_heights(heights[repeated]))
        )
    median_mm = float(np.median(steps))
    tolerance_mm = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * median_mm)
    uneven = np.flatnonzero(np.abs(steps - median_mm) > tolerance_mm)
    regular = heights[0] + np.arange(len(heights)) * (heights[-1] - heights[0]) / (len(heights) - 1)
    if uneven.size == 0 and np.abs(heights - regular).max() <= tolerance_mm:
        return ""
    intervals = ", ".join(f"{heights[i]:.2f} to {heights[i + 1]:.2f}" for i in uneven[:8]) or "the first to the last"
    others = f" and {uneven.size - 8} more" if uneven.size > 8 else ""
    return (
        f"slices are missing or unevenly spaced: usually {median_mm:.3f} mm apart, but not from "
        f"{intervals}{others} mm along their normal"
    )


def _place_slices(heights: Float[np.ndarray, "n"], step_mm: float) -> Float[np.ndarray, "k"]:
    """Returns the fractional slice index at every step from the first to the last slice."""
    count = int(np.floor((heights[-1] - heights[0]) / step_mm + 0.01)) + 1
    if count > MAX_FILL_FACTOR * len(heights):
        raise ReadRejected(
            "gaps",
            Message("{num_slices} slices are too few to interpolate {count}", num_slices=len(heights), count=count),
        )
    return np.interp(heights[0] + step_mm * np.arange(count), heights, np.arange(len(heights)))


def _fit_slope(
    positions: Float[np.ndarray, "n 3"], heights: Float[np.ndarray, "n"], normal: Float[np.ndarray, "3"],
    step_mm: float, rounding_mm: float,
) -> tuple[Float[np.ndarray, "3"], bool]:  # fmt: skip
    """Returns the shift in mm from slice to slice per mm along the normal, and whether it is tilted."""
    rise = heights - heights[0]
    slope = (positions[-1] - positions[0]) / rise[-1]
    distance_mm = float(np.linalg.norm(positions - positions[0] - rise[:, None] * slope, axis=1).max())
    tolerance = max(POSITION_TOLERANCE_MM, SPACING_TOLERANCE * step_mm, rounding_mm)
    if distance_mm > tolerance:
        raise ReadRejected(
            "mixed",
            Message(
                "slices lie up to {distance:.3f} mm off the line through the first and the last one",
                distance=distance_mm,
            ),
        )
    sideways = float(np.linalg.norm(slope - normal)) * rise[-1]
    if np.linalg.norm(slope - normal) > 1:
        raise ReadRejected(
            "tilt",
            Message(
                "slices shift sideways by {sideways:.1f} mm over {rise_mm:.1f} mm, more than a gantry can tilt",
                sideways=sideways,
                rise_mm=rise[-1],
            ),
        )
    return slope, bool(sideways > tolerance)


def _find_false_tilt(frame: Frame, normal: Float[np.ndarray, "3"], is_tilted: bool) -> tuple[Message, ...]:
    """Returns a warning about a tagged gantry tilt that neither the orientation nor the positions of the slices show.

    The positions are right where both are consistent, as after the scanner has corrected the tilt.
    """
    if abs(frame.tilt_deg) > TILT_DEG and abs(normal[2]) > np.cos(np.radians(TILT_DEG / 2)) and not is_tilted:
        return (Message(
            "GantryDetectorTilt is {tilt:g} degrees, but the slice positions show no tilt; read as straight, "
            "check the image",
            tilt=frame.tilt_deg,
        ),)  # fmt: skip
    return ()


def _format_heights(heights: Float[np.ndarray, "n"]) -> str:
    """Lists the first heights in mm."""
    listed = ", ".join(f"{h:.2f}" for h in heights[:8])
    return f"{listed} mm" + (f" and {len(heights) - 8} more positions" if len(heights) > 8 else "")


def _format_numbers(numbers: Sequence[float]) -> str:
    """Lists numbers with four digits."""
    return "[" + ", ".join(f"{n:.4g}" for n in numbers) + "]"
