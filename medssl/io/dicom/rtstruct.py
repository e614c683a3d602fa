"""Reads RTSTRUCT contours and fills them on the slices of their series."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from pydicom import Dataset
from scipy import ndimage

from medssl.errors import InputWarning, Message
from medssl.io.dicom.header import Header, get_items, get_text
from medssl.io.dicom.structures import has_outline_name
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

MAX_OFFSET_SLICES = 0.1  # the largest distance of a contour from the centre of its slice
MAX_GAP = 1.5  # planes further apart than this many usual distances are not connected by interpolation
TO_RAS = (-1.0, -1.0, 1.0)


@dataclass(frozen=True)
class ContourStructure:
    """A structure drawn as closed contours.

    Args:
        name: The name of the structure.
        is_outline: Whether it is the outline of the body.
        contours: The points of each contour in mm, RAS+; a contour inside another one cuts a hole.
        num_strays: The number of contours of fewer than three points, which are left out.
    """

    name: str
    is_outline: bool
    contours: tuple[Float[np.ndarray, "_ 3"], ...] = field(repr=False)
    num_strays: int = 0

    def find_fault(self, image: Volume) -> Message | None:
        """Returns why the contours cannot be filled on the slices of an image; None if they can."""
        if not self.contours:
            return Message("its {count} contours have fewer than three points", count=self.num_strays)
        heights = [image.to_index(points)[:, 2] for points in self.contours]
        spread = max(float(np.ptp(height)) for height in heights)
        if spread > 2 * MAX_OFFSET_SLICES:
            return Message(
                "a contour spans {spread:.2f} slices off its plane; it was drawn on another grid", spread=spread
            )
        planes = np.array([height.mean() for height in heights])
        offset = float(np.abs(planes - np.rint(planes)).max())
        if len(np.unique(planes.round(1))) == 1 and offset > MAX_OFFSET_SLICES:
            return Message("its only contour lies {offset:.2f} slices off its slice; draw it again", offset=offset)
        if not ((planes > -0.5) & (planes < image.shape[2] - 0.5)).any():
            return Message(
                "its contours lie outside its image with the slices 0 to {last}; it belongs to another image",
                last=image.shape[2] - 1,
            )
        return None

    def draw(self, image: Volume) -> Bool[np.ndarray, "i j k"]:
        """Returns the voxels with centres inside the contours; contours beyond the first or last slice are left out.

        Contours between slices are interpolated linearly in their signed distances (shape-based interpolation, Raya
        and Udupa 1990).
        """
        if self.num_strays:
            self._warn(Message("{name!r}: {count} contours of one or two points are left out",
                               name=self.name, count=self.num_strays))  # fmt: skip
        contours = [image.to_index(points) for points in self.contours]
        planes = np.array([float(index[:, 2].mean()) for index in contours])
        if np.abs(planes - np.rint(planes)).max() > MAX_OFFSET_SLICES:
            self._warn(Message("{name!r}: its contours lie between the slices; interpolated", name=self.name))
            return _interpolate(contours, planes, image)
        inside = (planes > -0.5) & (planes < image.shape[2] - 0.5)
        if num_outside := int(np.count_nonzero(~inside)):
            self._warn(Message("{name!r}: {count} contours lie outside the image; they are left out",
                               name=self.name, count=num_outside))  # fmt: skip
        crossings = np.zeros((image.shape[0] + 1, *image.shape[1:]), np.uint16)
        for index in (index for index, is_inside in zip(contours, inside, strict=True) if is_inside):
            _mark_crossings(crossings[:, :, round(float(index[:, 2].mean()))], index[:, :2])
        return np.cumsum(crossings, axis=0, dtype=np.uint16)[:-1] % 2 == 1

    @staticmethod
    def _warn(message: Message) -> None:
        warnings.warn(message, InputWarning, stacklevel=4)


def read_structures(header: Header) -> tuple[str, tuple[ContourStructure, ...]]:
    """Returns the UID of the series that was drawn on, and the structures that have contours."""
    names = {
        get_text(roi, "ROINumber"): get_text(roi, "ROIName")
        for roi in get_items(header.data, "StructureSetROISequence")
    }
    outlines = {
        get_text(item, "ReferencedROINumber")
        for item in get_items(header.data, "RTROIObservationsSequence")
        if get_text(item, "RTROIInterpretedType").upper() == "EXTERNAL"
    }
    structures: dict[str, ContourStructure] = {}
    for roi in get_items(header.data, "ROIContourSequence"):
        contours = [_read_points(c) for c in get_items(roi, "ContourSequence") if _is_closed(c)]
        number = get_text(roi, "ReferencedROINumber")
        name = names.get(number, "")
        if name in structures:
            raise ReadRejected(
                "values", Message("two structures are called {name!r}; rename one and export them again", name=name)
            )
        closed = tuple(points for points in contours if len(points) > 2)
        if contours:
            is_outline = number in outlines or has_outline_name(name)
            structures[name] = ContourStructure(name, is_outline, closed, len(contours) - len(closed))
    if not structures:
        raise ReadRejected("values", Message("holds no closed contour, so it labels nothing"))
    if not any(structure.contours for structure in structures.values()):
        raise ReadRejected("geometry", Message("its contours have one or two points; such a contour encloses nothing"))
    return _read_series_uid(header.data), tuple(structures.values())


def _interpolate(
    contours: Sequence[Float[np.ndarray, "_ 3"]], planes: Float[np.ndarray, "n"], image: Volume
) -> Bool[np.ndarray, "i j k"]:
    """Fills the slices between planes of contours that do not lie on slices."""
    mask = np.zeros(image.shape, bool)
    heights = np.unique(planes.round(2))
    gap = float(np.median(np.diff(heights))) if len(heights) > 1 else 0.0
    distances: dict[float, Float[np.ndarray, "i j"]] = {}
    for k in range(max(0, int(np.ceil(heights[0]))), min(image.shape[2] - 1, int(np.floor(heights[-1]))) + 1):
        low, high = heights[heights <= k].max(), heights[heights >= k].min()
        if high - low > MAX_GAP * gap:
            continue
        for height in {low, high} - distances.keys():
            at_height = [index for index, plane in zip(contours, planes, strict=True) if round(plane, 2) == height]
            distances[height] = _measure_distances(at_height, image.shape)
        weight = (k - low) / (high - low) if high > low else 0.0
        mask[:, :, k] = (1 - weight) * distances[low] + weight * distances[high] > 0
    return mask


def _measure_distances(
    contours: Sequence[Float[np.ndarray, "_ 3"]], shape: tuple[int, int, int]
) -> Float[np.ndarray, "i j"]:
    """Returns the distance in voxels of each voxel of a plane to the edge of the contours, negative outside."""
    crossings = np.zeros((shape[0] + 1, shape[1]), np.uint16)
    for index in contours:
        _mark_crossings(crossings, index[:, :2])
    inside = np.cumsum(crossings, axis=0, dtype=np.uint16)[:-1] % 2 == 1
    if not inside.any():
        return np.full(inside.shape, -1.0)
    return ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)


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
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise ReadRejected(
            "geometry", Message("the points of a contour are not triples of numbers; export the structures again")
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
            "mixed",
            Message(
                "refers to {num_series} series; exactly one is needed: export the structures of each series alone",
                num_series=len(uids),
            ),
        )
    return uids.pop()
