"""Turns lesions that are given as boxes, or as points with a diameter, into label maps."""

import csv
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medssl.data.ingest.layouts.metadata_tables import CaseMetadata, read_case_metadata
from medssl.errors import BadInput, InputWarning
from medssl.volume import NEIGHBOURS_26, Volume

LESION = "lesion"
BOX = ("x0", "y0", "z0", "x1", "y1", "z1")
BOX_MM = tuple(f"{name}_mm" for name in BOX)
POINT_MM = ("x_mm", "y_mm", "z_mm", "diameter_mm")


@dataclass(frozen=True)
class BoxAnnotation:
    """A box around a lesion.

    Attributes:
        low: The corner with the smallest coordinates.
        high: The corner with the largest coordinates.
        in_mm: Whether the corners are in mm (RAS+); if not, they are voxel corners of the image as it is stored.
        name: The class of the lesion.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    in_mm: bool
    name: str = LESION

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any], location: str, name: str = LESION) -> "BoxAnnotation":
        """Parses a row of a table or an entry of a JSON file.

        Args:
            entry: Corners in voxels (x0 ... z1), corners in mm (x0_mm ... z1_mm), or a point and a diameter in mm.
                An entry `label` is the name of the class.
            location: The file and the line, for error messages.
            name: The class of an entry without a `label`.
        """
        name = str(entry.get("label") or name)
        for keys, in_mm in ((BOX, False), (BOX_MM, True)):
            if set(keys) <= set(entry):
                return cls._from_corners(_parse_numbers(entry, keys, location), in_mm, name, location)
        if set(POINT_MM) <= set(entry):
            x, y, z, diameter = _parse_numbers(entry, POINT_MM, location)
            radius = diameter / 2
            corners = (x - radius, y - radius, z - radius, x + radius, y + radius, z + radius)
            return cls._from_corners(corners, True, name, location)
        raise BadInput(
            f"{location}: no box or point; it needs {','.join(BOX)} in voxels, {','.join(BOX_MM)}, or "
            f"{','.join(POINT_MM)}"
        )

    @classmethod
    def _from_corners(cls, corners: tuple[float, ...], in_mm: bool, name: str, location: str) -> "BoxAnnotation":
        a, b, c, p, q, r = corners
        if not (np.isfinite(corners).all() and a < p and b < q and c < r):
            raise BadInput(f"{location}: {list(corners)} is not a box; the first corner must be below the second")
        return cls((a, b, c), (p, q, r), in_mm, name)


def read_boxes(path: Path, name: str = LESION) -> dict[str, list[BoxAnnotation]]:
    """Reads the boxes of each case; a case with an empty list is healthy.

    Args:
        path: A CSV with a column `case`, or a folder with one NAME.json per case.
        name: The class of boxes without a `label`.
    """
    if path.is_dir():
        return {file.stem: _read_json(file, name) for file in sorted(path.glob("*.json"))}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a table of boxes ({error}); give a CSV or a folder of JSON files") from None
    boxes: dict[str, list[BoxAnnotation]] = {}
    for line, row in enumerate(rows, 2):
        if not row.get("case"):
            raise BadInput(f"{path}, line {line}: no `case`; each row needs a case, and a box or a point")
        boxes.setdefault(row["case"], []).append(BoxAnnotation.from_mapping(row, f"{path}, line {line}", name))
    return boxes


def read_patients(path: Path) -> dict[str, CaseMetadata]:
    """Returns the patient of each case, where the file or folder of boxes has it."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return {case: metadata for file in files for case, metadata in read_case_metadata(file).items()}


def list_class_names(boxes: Mapping[str, list[BoxAnnotation]], name: str = LESION) -> list[str]:
    """Returns the classes of all boxes in the order of their numbers from 1, or `name` if there is no box."""
    return sorted({box.name for case_boxes in boxes.values() for box in case_boxes}) or [name]


def rasterize(boxes: list[BoxAnnotation], image: Volume, location: str, classes: Sequence[str] = (LESION,)) -> Volume:
    """Draws the ellipsoid that fills each box, at least one voxel.

    Args:
        boxes: The boxes of one case; they must lie within the image.
        image: The image, whose grid the label gets.
        location: The case, for messages.
        classes: Names of the classes, in the order of their numbers from 1.
    """
    label = np.zeros(image.shape, np.uint8)
    for number, box in enumerate(boxes, 1):
        mask = _draw_ellipsoid(box, image, f"{location}, box {number}")
        if (ndimage.binary_dilation(mask, NEIGHBOURS_26) & (label > 0)).any():
            warnings.warn(
                f"{location}: box {number} touches another; they become one lesion, or the later one hides the other",
                InputWarning,
                stacklevel=2,
            )
        label[mask] = classes.index(box.name) + 1
    return Volume(label, image.affine, "label")


def _read_json(path: Path, name: str) -> list[BoxAnnotation]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["boxes"]
        return [
            BoxAnnotation.from_mapping(_flatten(entry), f"{path}, box {number}", name)
            for number, entry in enumerate(entries, 1)
        ]
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a list of boxes ({error}); see docs/how-to/detect.md for the format") from None


def _flatten(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an entry whose lists are replaced by the keys that a table has."""
    flat = dict(entry)
    for key, names in (("box_voxel", BOX), ("box_ras_mm", BOX_MM), ("center_ras_mm", POINT_MM[:3])):
        flat |= dict(zip(names, entry.get(key, ()), strict=False))
    return flat


def _parse_numbers(entry: Mapping[str, Any], keys: tuple[str, ...], location: str) -> tuple[float, ...]:
    try:
        return tuple(float(entry[key]) for key in keys)
    except (TypeError, ValueError):
        values = [entry[key] for key in keys]
        raise BadInput(f"{location}: {', '.join(keys)} must be numbers, but are {values}") from None


def _draw_ellipsoid(box: BoxAnnotation, image: Volume, location: str) -> Bool[np.ndarray, "i j k"]:
    """Returns the voxels with their centre in the ellipsoid, and the voxel nearest to its centre."""
    middle, half = np.add(box.low, box.high) / 2, np.subtract(box.high, box.low) / 2
    index = np.indices(image.shape).reshape(3, -1).T.astype(float)
    centre = image.to_index(middle[None])[0] if box.in_mm else middle - 0.5
    _require_within(box, image, centre, location)
    offset = ((image.to_mm(index) if box.in_mm else index + 0.5) - middle) / half
    mask = ((offset**2).sum(1) <= 1).reshape(image.shape)
    mask[tuple(np.rint(centre).astype(int).clip(0, np.array(image.shape) - 1))] = True
    return mask


def _require_within(box: BoxAnnotation, image: Volume, centre: Float[np.ndarray, "3"], location: str) -> None:
    """Raises BadInput if a box extends more than one voxel beyond the image; of a ball only the centre is checked."""
    corners = np.array([box.low, box.high])
    if box.in_mm:
        extent = np.abs(np.linalg.inv(image.affine[:3, :3])) @ ((corners[1] - corners[0]) / 2)
        corners = np.array([centre + 0.5 - extent, centre + 0.5 + extent])
    is_ball = box.in_mm and np.allclose(np.diff(np.subtract(box.high, box.low)), 0)
    shape = np.array(image.shape)
    is_beyond = (corners[0] < -1).any() or (corners[1] > shape + 1).any()
    if (centre < -0.5).any() or (centre > shape - 0.5).any() or (is_beyond and not is_ball):
        low, high = (np.round(corner, 1).tolist() for corner in corners)
        raise BadInput(
            f"{location}: voxels {low} to {high} are outside the image of {list(image.shape)} voxels; check that the "
            "box belongs to this image, and that mm are in RAS+, not LPS"
        )
