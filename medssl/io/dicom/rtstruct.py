"""Reads RTSTRUCT contours and fills them on the slices of their series."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from medssl.errors import Message
from medssl.io.dicom.header import Header, get_items, get_text
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

MAX_OFFSET_SLICES = 0.1  # the largest distance of a contour from the centre of its slice
TO_RAS = (-1.0, -1.0, 1.0)


def read_structures(header: Header) -> tuple[str, dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]]]:
    """Returns the UID of the series that was drawn on, and a mask builder for each structure with closed contours."""
    names = {
        get_text(roi, "ROINumber"): get_text(roi, "ROIName")
        for roi in get_items(header.data, "StructureSetROISequence")
    }
    structures: dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]] = {}
    for roi in get_items(header.data, "ROIContourSequence"):
        contours = [_read_points(c) for c in get_items(roi, "ContourSequence") if _is_closed(c)]
        name = names.get(get_text(roi, "ReferencedROINumber"), "")
        if name in structures:
            raise ReadRejected("values", Message("two structures are called {name!r}", name=name))
        if contours:
            structures[name] = partial(fill_contours, contours)
    if not structures:
        raise ReadRejected("values", Message("holds no closed contour"))
    return _read_series_uid(header.data), structures


def fill_contours(contours: Sequence[Float[np.ndarray, "_ 3"]], image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Returns the voxels with centres inside the contours (mm, RAS+); a contour inside another one cuts a hole."""
    crossings = np.zeros((image.shape[0] + 1, *image.shape[1:]), np.uint16)
    for points in contours:
        index = image.to_index(points)
        k = round(float(index[:, 2].mean()))
        offset = float(np.abs(index[:, 2] - k).max())
        if offset > MAX_OFFSET_SLICES:
            raise ReadRejected(
                "geometry",
                Message(
                    "a contour lies {distance:.2f} slices off its slice; it was drawn on another grid", distance=offset
                ),
            )
        if not 0 <= k < image.shape[2]:
            raise ReadRejected(
                "geometry",
                Message(
                    "a contour lies at slice {k}, outside its image with the slices 0 to {last}",
                    k=k,
                    last=image.shape[2] - 1,
                ),
            )
        _mark_crossings(crossings[:, :, k], index[:, :2])
    return np.cumsum(crossings, axis=0, dtype=np.uint16)[:-1] % 2 == 1


def _mark_crossings(crossings: np.ndarray, polygon: Float[np.ndarray, "n 2"]) -> None:
    """Counts, for every row j, the edges before each voxel i; a voxel with an odd sum of counts up to it is inside."""
    for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low, high = min(j0, j1), max(j0, j1)
        rows = np.arange(max(0, int(np.ceil(low))), min(crossings.shape[1], int(np.ceil(high))))
        if rows.size:
            first_inside = np.ceil(i0 + (rows - j0) * (i1 - i0) / (j1 - j0)).astype(int)
            crossings[np.clip(first_inside, 0, crossings.shape[0] - 1), rows] += 1


def _is_closed(contour: Dataset) -> bool:
    """Returns whether a contour encloses an area."""
    return get_text(contour, "ContourGeometricType") in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def _read_points(contour: Dataset) -> Float[np.ndarray, "n 3"]:
    """Returns the points of a contour in mm, RAS+."""
    try:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
    except (AttributeError, TypeError, ValueError):
        raise ReadRejected("geometry", Message("the points of a contour are not triples of numbers")) from None
    if len(points) < 3 or not np.isfinite(points).all():
        raise ReadRejected(
            "geometry", Message("a contour of {num_points} points encloses nothing", num_points=len(points))
        )
    return points * TO_RAS


def _read_series_uid(data: Dataset) -> str:
    """Returns the UID of the only series that the contours refer to."""
    uids = {
        get_text(series, "SeriesInstanceUID")
        for frame in get_items(data, "ReferencedFrameOfReferenceSequence")
        for study in get_items(frame, "RTReferencedStudySequence")
        for series in get_items(study, "RTReferencedSeriesSequence")
    }
    if len(uids) != 1:
        raise ReadRejected(
            "mixed", Message("refers to {num_series} series; exactly one is needed", num_series=len(uids))
        )
    return uids.pop()
