"""Volume: voxels with their place in the patient. The only home of geometry."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage, sparse

Unit = Literal["HU", "a.u.", "label", "probability"]
Spacing = tuple[float, float, float]
TILE = 16  # voxels a side
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)  # voxels that touch, if only by a corner, are one part
AXES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels whose axes i j k follow the columns of `affine`: voxel index -> mm, RAS+. Channels come first."""

    voxels: Shaped[np.ndarray, "*c i j k"]
    affine: Float[np.ndarray, "4 4"]
    unit: Unit

    def __post_init__(self) -> None:
        if self.voxels.ndim < 3 or 0 in self.shape:
            raise ValueError(f"a volume has three non-empty axes, this one is {self.voxels.shape}")
        if not np.isfinite(self.affine).all() or not np.allclose(self.affine[3], (0, 0, 0, 1)):
            raise ValueError(f"not an affine: {self.affine.tolist()}")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-12:
            raise ValueError(f"the affine is singular: {self.affine.tolist()}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.voxels.shape[-3:]
        return i, j, k

    def spacing_mm(self) -> Spacing:
        """The distance between neighbouring voxel centres along i, j, k."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def voxel_ml(self) -> float:
        """The volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def to_mm(self, index: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Voxel indices -> mm, RAS+."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, mm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Points in mm, RAS+ -> fractional voxel indices."""
        return (mm - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def orientation(self) -> str:
        """Where i, j and k point to, as in "RAS"; of an oblique grid, the nearest anatomical axes."""
        world, sign = _nearest_axes(self.affine)
        return "".join(AXES[w][int(s > 0)] for w, s in zip(world, sign, strict=True))

    def oriented(self, codes: str = "RAS") -> "Volume":
        """The same voxels with axes permuted and flipped until they point as `codes` says: nothing is interpolated."""
        wanted = [next(w for w, pair in enumerate(AXES) if code in pair) for code in codes]
        if sorted(wanted) != [0, 1, 2]:
            raise ValueError(f"{codes!r} is no orientation; one letter each of R/L, A/P and S/I")
        world, sign = _nearest_axes(self.affine)
        order = [world.index(w) for w in wanted]
        towards = [1 if code in "RAS" else -1 for code in codes]
        change = np.zeros((4, 4))
        change[3, 3] = 1
        flips: list[slice] = []
        for new, old in enumerate(order):
            flip = sign[old] != towards[new]
            change[old, new] = -1 if flip else 1
            change[old, 3] = self.shape[old] - 1 if flip else 0
            flips.append(slice(None, None, -1) if flip else slice(None))
        lead = self.voxels.ndim - 3
        turned = self.voxels.transpose(*range(lead), *(lead + o for o in order))
        turned = turned[..., flips[0], flips[1], flips[2]]
        return replace(self, voxels=_contiguous(turned), affine=self.affine @ change)

    def resample(self, spacing_mm: Spacing, order: int) -> "Volume":
        """The same field of view about the same centre at another spacing, axes unchanged."""
        scale = np.asarray(spacing_mm, float) / self.spacing_mm()
        shape = np.maximum(1, np.round(np.asarray(self.shape) / scale)).astype(int)
        change = np.eye(4)
        change[:3, :3] = np.diag(scale)
        change[:3, 3] = (np.asarray(self.shape) - 1) / 2 - scale * (shape - 1) / 2
        return self._sampled(self.affine @ change, (int(shape[0]), int(shape[1]), int(shape[2])), order, None)

    def resample_to(self, grid: "Volume", order: int, fill: float | None = 0.0) -> "Volume":
        """These voxels sampled at the voxel centres of `grid`; `fill` beyond this volume, or its edge if None."""
        return self._sampled(grid.affine, grid.shape, order, fill)

    def require_same_grid(self, other: "Volume") -> "Volume":
        """Itself, if it stands on the same grid as `other` to 1e-3 mm; else an error that says what differs."""
        if self.shape != other.shape:
            raise ValueError(f"shapes differ: {self.shape} against {other.shape}; bring one onto the other's grid")
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(self.shape) - 1)
        apart = np.abs(self.to_mm(corners.astype(float)) - other.to_mm(corners.astype(float))).max()
        if apart > 1e-3:
            raise ValueError(f"the grids lie up to {apart:.3f} mm apart; bring one onto the other's grid")
        return self

    def _sampled(
        self, affine: Float[np.ndarray, "4 4"], shape: tuple[int, int, int], order: int, fill: float | None
    ) -> "Volume":
        if self.unit == "label" and order > 0:
            raise ValueError("labels are names, not amounts: resample them with order=0")
        if order not in (0, 1):
            raise ValueError(f"order {order}: 0 (nearest) or 1 (linear) is available")
        change = np.linalg.inv(self.affine) @ affine
        axes = np.abs(change[:3, :3]) > 1e-6 * np.abs(change[:3, :3]).max()
        if (axes.sum(0) == 1).all() and (axes.sum(1) == 1).all():
            voxels = _sample_axes(self.voxels, change, axes, shape, order, fill)
        else:
            voxels = _sample_oblique(self.voxels, change, shape, order, fill)
        return replace(self, voxels=voxels, affine=affine)


def _nearest_axes(affine: Float[np.ndarray, "4 4"]) -> tuple[list[int], list[int]]:
    """For i, j, k: the world axis each follows most, every world axis used once, and its sign."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left = np.abs(directions)
    world = [0, 0, 0]
    for _ in range(3):
        w, v = np.unravel_index(np.argmax(left), left.shape)
        world[int(v)] = int(w)
        left[w, :] = left[:, v] = -1
    return world, [1 if directions[w, v] > 0 else -1 for v, w in enumerate(world)]


def _sample_axes(
    voxels: Shaped[np.ndarray, "*c i j k"],
    change: Float[np.ndarray, "4 4"],
    axes: Shaped[np.ndarray, "3 3"],
    shape: tuple[int, int, int],
    order: int,
    fill: float | None,
) -> Shaped[np.ndarray, "*c p q r"]:
    """One axis after the other: each new index lies at scale * index + offset of one old axis."""
    lead = voxels.ndim - 3
    old_of = [int(np.flatnonzero(axes[:, new])[0]) for new in range(3)]
    out = _contiguous(voxels.transpose(*range(lead), *(lead + old for old in old_of)))
    inside = []
    for new, old in enumerate(old_of):
        at = change[old, new] * np.arange(shape[new]) + change[old, 3]
        inside.append((at > -0.5 - 1e-6) & (at < out.shape[lead + new] - 0.5 + 1e-6))
        out = _along(out, lead + new, at, abs(change[old, new]), order)
    out = _rounded(out, voxels.dtype)
    if fill is not None and not all(a.all() for a in inside):
        i, j, k = inside
        out = np.where(i[:, None, None] & j[:, None] & k, out, np.asarray(fill, out.dtype))
    return out


def _contiguous(voxels: Shaped[np.ndarray, "*c i j k"]) -> Shaped[np.ndarray, "*c i j k"]:
    """The same in C order; copied tile by tile, as a transposition of the whole misses the cache at every voxel."""
    if voxels.flags.c_contiguous:
        return voxels
    out = np.empty(voxels.shape, voxels.dtype)
    for i, j, k in np.ndindex(*(-(-n // TILE) for n in voxels.shape[-3:])):
        a, b, c = i * TILE, j * TILE, k * TILE
        tile = (..., slice(a, a + TILE), slice(b, b + TILE), slice(c, c + TILE))
        out[tile] = voxels[tile]
    return out


def _along(
    voxels: Shaped[np.ndarray, "*n"], axis: int, at: Float[np.ndarray, "m"], scale: float, order: int
) -> Shaped[np.ndarray, "*m"]:
    """Samples one axis at positions `at`: nearest, or linear with a triangle widened to `scale` against aliasing."""
    n = voxels.shape[axis]
    if order == 0 or np.array_equal(at, np.arange(n)):
        return voxels.take(np.clip(np.floor(at + 0.5), 0, n - 1).astype(int), axis=axis)
    weights = _triangle(np.clip(at, 0, n - 1), n, max(1.0, scale))
    out = np.empty((*voxels.shape[:axis], len(at), *voxels.shape[axis + 1 :]), np.float32)
    planes, mixed = np.moveaxis(voxels, axis, -2), np.moveaxis(out, axis, -2)
    for place in np.ndindex(*planes.shape[:-2]):  # a plane fits into the cache, which makes its transposition cheap
        mixed[place] = weights @ np.ascontiguousarray(planes[place], np.float32)
    return out


def _triangle(at: Float[np.ndarray, "m"], n: int, width: float) -> sparse.csr_array:
    reach = int(np.ceil(width))
    near = np.floor(at)[:, None] + np.arange(-reach + 1, reach + 1)
    apart = near - at[:, None]
    weight = np.maximum(0, 1 - np.abs(apart) / width)
    # A widened triangle, sampled, is off centre by up to a hundredth of a voxel: its first moment is set to 0.
    weight *= 1 - apart * (weight * apart).sum(1, keepdims=True) / np.maximum(
        1e-12, (weight * apart**2).sum(1, keepdims=True)
    )
    weight *= (near >= 0) & (near < n)
    weight /= weight.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(at)), near.shape[1])
    columns = np.clip(near, 0, n - 1).astype(int).ravel()
    return sparse.csr_array((weight.ravel().astype(np.float32), (rows, columns)), shape=(len(at), n))


def _rounded(x: Shaped[np.ndarray, "*n"], dtype: np.dtype) -> Shaped[np.ndarray, "*n"]:
    whole = np.issubdtype(dtype, np.integer) and not np.issubdtype(x.dtype, np.integer)
    return (np.rint(x) if whole else x).astype(dtype, copy=False)


def _sample_oblique(
    voxels: Shaped[np.ndarray, "*c i j k"],
    change: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    order: int,
    fill: float | None,
) -> Shaped[np.ndarray, "*c p q r"]:
    flat = voxels.reshape(-1, *voxels.shape[-3:])
    mode, value = ("nearest", 0.0) if fill is None else ("grid-constant", fill)
    done = [
        ndimage.affine_transform(
            c if order == 0 else c.astype(np.float32),
            change[:3, :3], change[:3, 3], output_shape=shape, order=order, mode=mode, cval=value,
        )
        for c in flat
    ]  # fmt: skip
    return _rounded(np.stack(done).reshape(*voxels.shape[:-3], *shape), voxels.dtype)
