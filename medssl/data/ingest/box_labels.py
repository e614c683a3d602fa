"""Marks: lesions told by boxes or by points with a diameter, drawn as labels that a training can learn from."""

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

from medssl.data.ingest import metadata_tables as tables
from medssl.errors import BadInput, Doubt
from medssl.volume import NEIGHBOURS_26, Volume

LESION = "lesion"
BOX = ("x0", "y0", "z0", "x1", "y1", "z1")
BOX_MM = tuple(f"{name}_mm" for name in BOX)
POINT_MM = ("x_mm", "y_mm", "z_mm", "diameter_mm")


@dataclass(frozen=True)
class Mark:
    """A box in mm (RAS+) or in voxel corners of the image as it is stored, and the class of what is in it."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    in_mm: bool
    name: str = LESION

    @classmethod
    def of(cls, told: Mapping[str, Any], where: str, name: str = LESION) -> "Mark":
        """From a table's row or a JSON's entry, which has corners in voxels, corners in mm, or a point and diameter.

        It may have a `label` too, the name of its class, in place of `name`.
        """
        name = str(told.get("label") or name)
        for names, in_mm in ((BOX, False), (BOX_MM, True)):
            if set(names) <= set(told):
                return cls._checked(_numbers(told, names, where), in_mm, name, where)
        if set(POINT_MM) <= set(told):
            x, y, z, diameter = _numbers(told, POINT_MM, where)
            half = diameter / 2
            sides = (x - half, y - half, z - half, x + half, y + half, z + half)
            return cls._checked(sides, True, name, where)
        raise BadInput(f"{where}: no box or point; it needs {','.join(BOX)} in voxels, or {','.join(POINT_MM)}")

    @classmethod
    def _checked(cls, numbers: tuple[float, ...], in_mm: bool, name: str, where: str) -> "Mark":
        a, b, c, p, q, r = numbers
        if not (np.isfinite(numbers).all() and a < p and b < q and c < r):
            raise BadInput(f"{where}: {list(numbers)} is no box; its first corner must lie below its second")
        return cls((a, b, c), (p, q, r), in_mm, name)


def read(place: Path, name: str = LESION) -> dict[str, list[Mark]]:
    """Case -> marks, from a CSV with a column `case`, or a folder with NAME.json a case; an empty list is healthy.

    `name` is the class of those that have no `label`.
    """
    if place.is_dir():
        return {path.stem: _of_json(path, name) for path in sorted(place.glob("*.json"))}
    try:
        with place.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{place}: no table of marks ({error}); give a CSV or a folder of JSON files") from None
    found: dict[str, list[Mark]] = {}
    for line, row in enumerate(rows, 2):
        if not row.get("case"):
            raise BadInput(f"{place}, line {line}: no `case`; a row says case and box, or case and point")
        found.setdefault(row["case"], []).append(Mark.of(row, f"{place}, line {line}", name))
    return found


def whose(place: Path) -> dict[str, tables.Told]:
    """Case -> its patient, where the marks tell it."""
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    return {case: told for file in files for case, told in tables.read(file).items()}


def names(told: Mapping[str, list[Mark]], name: str = LESION) -> list[str]:
    """The classes of all marks, in the order of their numbers from 1; `name` where there is no mark."""
    return sorted({mark.name for marks in told.values() for mark in marks}) or [name]


def draw(marks: list[Mark], image: Volume, where: str, classes: Sequence[str] = (LESION,)) -> Volume:
    """The number of its class in the ellipsoid that fills each box, at least a voxel; boxes stay inside the image."""
    label = np.zeros(image.shape, np.uint8)
    for number, mark in enumerate(marks, 1):
        drawn = _inside(mark, image, f"{where}, mark {number}")
        if (ndimage.binary_dilation(drawn, NEIGHBOURS_26) & (label > 0)).any():
            warnings.warn(
                f"{where}: mark {number} touches another; both become one lesion, or the later hides the other",
                Doubt,
                stacklevel=2,
            )
        label[drawn] = classes.index(mark.name) + 1
    return Volume(label, image.affine, "label")


def _of_json(path: Path, name: str) -> list[Mark]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["boxes"]
        return [Mark.of(_flat(told), f"{path}, box {n}", name) for n, told in enumerate(listed, 1)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a list of boxes ({error}); see the guide's `Marks`") from None


def _flat(told: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with its lists spread over the names that a table has."""
    flat = dict(told)
    for key, names in (("box_voxel", BOX), ("box_ras_mm", BOX_MM), ("center_ras_mm", POINT_MM[:3])):
        flat |= dict(zip(names, told.get(key, ()), strict=False))
    return flat


def _numbers(told: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[float, ...]:
    try:
        return tuple(float(told[name]) for name in names)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {', '.join(names)} must be numbers; it says {[told[n] for n in names]}") from None


def _inside(mark: Mark, image: Volume, where: str) -> Bool[np.ndarray, "i j k"]:
    """The voxels whose centre lies in the ellipsoid, or the one nearest to its middle."""
    middle, half = np.add(mark.low, mark.high) / 2, np.subtract(mark.high, mark.low) / 2
    at = np.indices(image.shape).reshape(3, -1).T.astype(float)
    centre = image.to_index(middle[None])[0] if mark.in_mm else middle - 0.5
    _require_within(mark, image, centre, where)
    off = ((image.to_mm(at) if mark.in_mm else at + 0.5) - middle) / half
    drawn = ((off**2).sum(1) <= 1).reshape(image.shape)
    drawn[tuple(np.rint(centre).astype(int).clip(0, np.array(image.shape) - 1))] = True
    return drawn


def _require_within(mark: Mark, image: Volume, centre: Float[np.ndarray, "3"], where: str) -> None:
    """Refuses a box of which more than a voxel lies outside; the ball about a point may, its middle may not."""
    ends = np.array([mark.low, mark.high])
    if mark.in_mm:
        reach = np.abs(np.linalg.inv(image.affine[:3, :3])) @ ((ends[1] - ends[0]) / 2)
        ends = np.array([centre + 0.5 - reach, centre + 0.5 + reach])
    cube = mark.in_mm and np.allclose(np.diff(np.subtract(mark.high, mark.low)), 0)
    shape = np.array(image.shape)
    beyond = (ends[0] < -1).any() or (ends[1] > shape + 1).any()
    if (centre < -0.5).any() or (centre > shape - 0.5).any() or (beyond and not cube):
        low, high = (np.round(end, 1).tolist() for end in ends)
        raise BadInput(
            f"{where}: voxels {low} to {high} lie outside the image of {list(image.shape)}; another scan's, or in LPS?"
        )
