"""RTSTRUCT: closed contours in mm, filled on the slices of their series."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset

from medssl.io.dicom.header import Header, items, text
from medssl.io.rejected import Refusal
from medssl.volume import Volume

OFF_PLANE = 0.1
TO_RAS = (-1.0, -1.0, 1.0)


def structures(header: Header) -> tuple[str, dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]]]:
    """The series the contours were drawn on, and each structure that has any, by name."""
    names = {text(roi, "ROINumber"): text(roi, "ROIName") for roi in items(header.data, "StructureSetROISequence")}
    drawn: dict[str, Callable[[Volume], Bool[np.ndarray, "i j k"]]] = {}
    for roi in items(header.data, "ROIContourSequence"):
        closed = [_points(c) for c in items(roi, "ContourSequence") if _closed(c)]
        name = names.get(text(roi, "ReferencedROINumber"), "")
        if name in drawn:
            raise Refusal("values", f"two structures are called {name!r}")
        if closed:
            drawn[name] = partial(filled, closed)
    if not drawn:
        raise Refusal("values", "holds no closed contour")
    return _series(header.data), drawn


def filled(closed: Sequence[Float[np.ndarray, "_ 3"]], image: Volume) -> Bool[np.ndarray, "i j k"]:
    """The voxels whose centres lie inside the contours (mm, RAS+); a contour within another cuts a hole."""
    crossings = np.zeros((image.shape[0] + 1, *image.shape[1:]), np.uint16)
    for points in closed:
        index = image.to_index(points)
        k = round(float(index[:, 2].mean()))
        off = float(np.abs(index[:, 2] - k).max())
        if off > OFF_PLANE:
            raise Refusal("geometry", f"a contour lies {off:.2f} slices off its slice; it was drawn on another grid")
        if not 0 <= k < image.shape[2]:
            raise Refusal("geometry", f"a contour lies at slice {k} of 0 to {image.shape[2] - 1}: outside its image")
        _cross(crossings[:, :, k], index[:, :2])
    return np.cumsum(crossings, axis=0, dtype=np.uint16)[:-1] % 2 == 1


def _cross(crossings: np.ndarray, polygon: Float[np.ndarray, "n 2"]) -> None:
    """Marks, on every row j, the first voxel i at or after each edge: inside is where their number is odd."""
    for (i0, j0), (i1, j1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low, high = min(j0, j1), max(j0, j1)
        rows = np.arange(max(0, int(np.ceil(low))), min(crossings.shape[1], int(np.ceil(high))))
        if rows.size:
            at = np.ceil(i0 + (rows - j0) * (i1 - i0) / (j1 - j0)).astype(int)
            crossings[np.clip(at, 0, crossings.shape[0] - 1), rows] += 1


def _closed(contour: Dataset) -> bool:
    return text(contour, "ContourGeometricType") in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def _points(contour: Dataset) -> Float[np.ndarray, "n 3"]:
    try:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
    except (AttributeError, TypeError, ValueError):
        raise Refusal("geometry", "a contour whose points are not triples of numbers") from None
    if len(points) < 3 or not np.isfinite(points).all():
        raise Refusal("geometry", f"a contour of {len(points)} points encloses nothing")
    return points * TO_RAS


def _series(data: Dataset) -> str:
    found = {
        text(series, "SeriesInstanceUID")
        for frame in items(data, "ReferencedFrameOfReferenceSequence")
        for study in items(frame, "RTReferencedStudySequence")
        for series in items(study, "RTReferencedSeriesSequence")
    }
    if len(found) != 1:
        raise Refusal("mixed", f"refers to {len(found)} series; one must be named")
    return found.pop()
