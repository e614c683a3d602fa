"""The Volume class: voxels with their position in the patient, and the only place where geometry is computed."""

import base64
import html
import io
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from medssl.arrays.resampling import sample_axes, sample_oblique, to_contiguous
from medssl.errors import Message

Unit = Literal["HU", "SUVbw", "a.u.", "label", "probability"]
Spacing = tuple[float, float, float]
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)  # voxels that share at least a corner belong to one component
AXES = (("L", "R"), ("P", "A"), ("I", "S"))
PREVIEW_PIXELS, PREVIEW_GAP = 200, 4


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """A 3D image, label map or probability map with its position in the patient.

    Args:
        voxels: Values on the axes i, j, k, with the channels, if any, in front.
        affine: Maps a voxel index (i, j, k) to a point in mm. World axes are RAS+: x grows towards the patient's
            right, y towards the front (anterior), z towards the head (superior).
        unit: "HU" (CT), "SUVbw" (PET, g/ml), "a.u." (arbitrary units), "label" (whole numbers, 0 is background) or
            "probability".
    """

    voxels: Shaped[np.ndarray, "*c i j k"]
    affine: Float[np.ndarray, "4 4"]
    unit: Unit

    def __post_init__(self) -> None:
        if self.voxels.ndim < 3 or 0 in self.shape:
            raise ValueError(f"voxels have the shape {self.voxels.shape}; three non-empty axes i, j, k are needed")
        if not np.isfinite(self.affine).all() or not np.allclose(self.affine[3], (0, 0, 0, 1)):
            raise ValueError(f"not an affine: {self.affine.tolist()}; finite rows that end in [0, 0, 0, 1] are needed")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-12:
            raise ValueError(f"the affine is singular: {self.affine.tolist()}; its three axes must span space")

    def __repr__(self) -> str:
        spacing_mm = tuple(float(f"{mm:.4g}") for mm in self.spacing_mm())
        geometry = f"spacing_mm={spacing_mm}, unit={self.unit!r}, orientation={self.orientation()!r}"
        return f"Volume(shape={self.voxels.shape}, {geometry})"

    def _repr_html_(self) -> str:
        """Returns the planes through the middle as an image with a caption, which notebooks show."""
        content = base64.b64encode(_draw_preview(self)).decode()
        caption = html.escape(repr(self))
        return (
            f'<figure style="margin:0"><img src="data:image/png;base64,{content}" alt="{caption}">'
            f"<figcaption>axial, coronal and sagittal plane through the middle, the patient's right on the left: "
            f"{caption}</figcaption></figure>"
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along i, j, k, without the channels."""
        i, j, k = self.voxels.shape[-3:]
        return i, j, k

    def spacing_mm(self) -> Spacing:
        """Returns the distance between neighbouring voxel centres along i, j, k in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def voxel_ml(self) -> float:
        """Returns the volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def to_mm(self, index: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Converts voxel indices to points in mm, RAS+."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Converts points in mm, RAS+, to fractional voxel indices."""
        return (mm - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def orientation(self) -> str:
        """Returns the directions in which i, j and k grow, such as "RAS"; for an oblique grid the nearest ones."""
        world, sign = _find_nearest_axes(self.affine)
        return "".join(AXES[w][int(s > 0)] for w, s in zip(world, sign, strict=True))

    def reorient(self, codes: str = "RAS", copy: bool = True) -> "Volume":
        """Permutes and flips the axes until they point in the given directions, without interpolation.

        Args:
            codes: The directions in which i, j and k grow: one letter each of R/L, A/P and S/I.
            copy: Whether the voxels are put into C order; if not, they are a view of those of this volume.
        """
        wanted_axes = [next(w for w, pair in enumerate(AXES) if code in pair) for code in codes]
        if sorted(wanted_axes) != [0, 1, 2]:
            raise ValueError(f"{codes!r} is not an orientation; give one letter each of R/L, A/P and S/I")
        world, sign = _find_nearest_axes(self.affine)
        order = [world.index(w) for w in wanted_axes]
        wanted_signs = [1 if code in "RAS" else -1 for code in codes]
        change = np.zeros((4, 4))
        change[3, 3] = 1
        flips: list[slice] = []
        for new, old in enumerate(order):
            flip = sign[old] != wanted_signs[new]
            change[old, new] = -1 if flip else 1
            change[old, 3] = self.shape[old] - 1 if flip else 0
            flips.append(slice(None, None, -1) if flip else slice(None))
        num_lead = self.voxels.ndim - 3
        voxels = self.voxels.transpose(*range(num_lead), *(num_lead + old for old in order))
        voxels = voxels[..., flips[0], flips[1], flips[2]]
        return replace(self, voxels=to_contiguous(voxels) if copy else voxels, affine=self.affine @ change)

    def resample(self, spacing_mm: Spacing, order: int) -> "Volume":
        """Resamples the same field of view, around the same centre and along the same axes, to another spacing.

        Args:
            spacing_mm: The new distance between voxel centres along i, j, k.
            order: 0 for nearest neighbour, 1 for linear interpolation (with a wider kernel where the spacing grows,
                against aliasing). Labels need 0.
        """
        scale = np.asarray(spacing_mm, float) / self.spacing_mm()
        shape = np.maximum(1, np.round(np.asarray(self.shape) / scale)).astype(int)
        change = np.eye(4)
        change[:3, :3] = np.diag(scale)
        change[:3, 3] = (np.asarray(self.shape) - 1) / 2 - scale * (shape - 1) / 2
        return self._sample_onto(self.affine @ change, (int(shape[0]), int(shape[1]), int(shape[2])), order, None)

    def resample_to(self, grid: "Volume", order: int, fill: float | None = 0.0, is_filtered: bool = True) -> "Volume":
        """Samples this volume at the voxel centres of another one.

        Args:
            grid: The volume that gives the shape and the affine of the result.
            order: 0 for nearest neighbour, 1 for linear interpolation. Labels need 0.
            fill: The value outside this volume; None repeats its edge.
            is_filtered: Whether linear interpolation has a wider kernel where the spacing grows, against aliasing.
        """
        return self._sample_onto(grid.affine, grid.shape, order, fill, is_filtered)

    def require_same_grid(self, other: "Volume") -> "Volume":
        """Returns this volume if its voxel centres lie within 1e-3 mm of those of `other`.

        Raises:
            ValueError: If the shapes differ or the grids lie apart; the message names the difference.
        """
        if self.shape != other.shape:
            raise ValueError(
                Message(
                    "the shapes differ: {shape} and {other}; resample one with resample_to(other)",
                    shape=self.shape,
                    other=other.shape,
                )
            )
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(self.shape) - 1)
        distance_mm = np.abs(self.to_mm(corners.astype(float)) - other.to_mm(corners.astype(float))).max()
        if distance_mm > 1e-3:
            raise ValueError(
                Message(
                    "the grids lie up to {distance:.3f} mm apart; resample one volume with resample_to(other)",
                    distance=float(distance_mm),
                )
            )
        return self

    def _sample_onto(
        self,
        affine: Float[np.ndarray, "4 4"],
        shape: tuple[int, int, int],
        order: int,
        fill: float | None,
        is_filtered: bool = True,
    ) -> "Volume":
        """Samples onto the grid of an affine and a shape, axis by axis where the axes of both are parallel."""
        if self.unit == "label" and order > 0:
            raise ValueError(f"order {order} would interpolate between labels; resample labels with order=0")
        if order not in (0, 1):
            raise ValueError(f"order is {order}; 0 (nearest) or 1 (linear) is available")
        change = np.linalg.inv(self.affine) @ affine
        axes = np.abs(change[:3, :3]) > 1e-6 * np.abs(change[:3, :3]).max()
        if (axes.sum(0) == 1).all() and (axes.sum(1) == 1).all():
            voxels = sample_axes(self.voxels, change, axes, shape, order, fill, is_filtered)
        else:
            voxels = sample_oblique(self.voxels, change, shape, order, fill)
        return replace(self, voxels=voxels, affine=affine)


def _find_nearest_axes(affine: Float[np.ndarray, "4 4"]) -> tuple[list[int], list[int]]:
    """Returns the world axis that each of i, j, k follows most closely, every axis used once, and its sign."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    remaining = np.abs(directions)
    world = [0, 0, 0]
    for _ in range(3):
        w, v = np.unravel_index(np.argmax(remaining), remaining.shape)
        world[int(v)] = int(w)
        remaining[w, :] = remaining[:, v] = -1
    return world, [1 if directions[w, v] > 0 else -1 for v, w in enumerate(world)]


def _draw_preview(volume: Volume) -> bytes:
    """Draws the axial, coronal and sagittal plane through the middle of the first channel side by side, as PNG."""
    pil = import_module("PIL.Image")  # most programs never show a volume
    planes = [_cut_middle_plane(volume, axis) for axis in (2, 1, 0)]
    pixels_per_mm = PREVIEW_PIXELS / max(mm for _, size_mm in planes for mm in size_mm)
    method = pil.Resampling.NEAREST if volume.unit == "label" else pil.Resampling.BILINEAR
    tiles = []
    for grey, (_, size_mm) in zip(_to_grey([plane for plane, _ in planes], volume.unit), planes, strict=True):
        width, height = (max(1, round(mm * pixels_per_mm)) for mm in size_mm)
        tiles.append(pil.fromarray(np.ascontiguousarray(grey)).resize((width, height), method))
    page = pil.new("L", (sum(t.width for t in tiles) + 2 * PREVIEW_GAP, max(t.height for t in tiles)))
    offset = 0
    for tile in tiles:
        page.paste(tile, (offset, (page.height - tile.height) // 2))
        offset += tile.width + PREVIEW_GAP
    content = io.BytesIO()
    page.save(content, "PNG")
    return content.getvalue()


def _cut_middle_plane(volume: Volume, world_axis: int) -> tuple[Shaped[np.ndarray, "row column"], tuple[float, float]]:
    """Cuts the first channel across a world axis, the patient's right on the left; also its width and height in mm."""
    axis = _find_nearest_axes(volume.affine)[0].index(world_axis)
    middle = volume.shape[axis] // 2
    channel = volume.voxels[(0,) * (volume.voxels.ndim - 3)]
    slab = replace(volume, voxels=channel.take([middle], axis=axis)).reorient("LPI")
    extent_mm = np.delete(np.array(slab.shape) * slab.spacing_mm(), world_axis)
    return slab.voxels.take(0, axis=world_axis).T, (float(extent_mm[0]), float(extent_mm[1]))


def _to_grey(planes: list[Shaped[np.ndarray, "_ _"]], unit: Unit) -> list[UInt8[np.ndarray, "_ _"]]:
    """Maps values to grey levels between their 1st and 99th percentile, labels between the smallest and the largest."""
    values = np.concatenate([plane.ravel() for plane in planes]).astype(np.float32)
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0, 100) if unit == "label" else (1, 99)) if finite.size else (0.0, 1.0)
    width = max(float(high - low), 1e-6)
    return [
        (np.clip((np.nan_to_num(plane.astype(np.float32), nan=low) - low) / width, 0, 1) * 255).astype(np.uint8)
        for plane in planes
    ]
