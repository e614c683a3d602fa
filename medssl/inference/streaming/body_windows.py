"""Decides which windows of a sliding window lie so far from the body of a scan that they need not be computed."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medssl.arrays.disk_arrays import release_pages
from medssl.data.normalization import body_mask, subsample, subsample_strides
from medssl.inference.sliding_window import Size
from medssl.volume import NEIGHBOURS_26, Volume

MIN_PART_FRACTION = 0.02  # of the largest part of the body; a smaller one is noise, a larger one may be an arm


@dataclass(frozen=True, eq=False)
class BodyWindows:
    """The windows of a prepared volume that reach the body of its scan, or a margin around it.

    Args:
        mask: The body with its margin, at every n-th voxel of the prepared volume.
        strides: This n along each axis.
        shape: The shape of the prepared volume.
        mirrored: The axes, 0 to 2, along which the volume is mirrored before it is cut into windows.
    """

    mask: Bool[np.ndarray, "p q r"]
    strides: Size
    shape: Size
    mirrored: tuple[int, ...] = ()

    @classmethod
    def find(cls, scan: Volume, prepared: Volume, margin_mm: float) -> "BodyWindows":
        """Finds the body in a scan, on at most 96 voxels along each axis.

        Args:
            scan: The scan, with HU in CT.
            prepared: The network input made of it.
            margin_mm: The distance from the body up to which all voxels are predicted.
        """
        body = _find_body(scan)
        i, j, k = subsample_strides(prepared.shape)
        voxels = subsample(prepared.voxels.reshape(-1, *prepared.shape)[0])
        grid = Volume(voxels, _stretch(prepared, (i, j, k)), "a.u.")
        mask = body.resample_to(grid, order=0, fill=None).voxels > 0
        if mask.any():
            # A voxel of the scan is interpolated from working voxels up to one step away, of which every n-th is here.
            steps_mm = [np.linalg.norm(v.spacing_mm() * np.array(subsample_strides(v.shape))) for v in (scan, prepared)]
            distance_mm = ndimage.distance_transform_edt(~mask, sampling=grid.spacing_mm())
            mask = distance_mm <= margin_mm + sum(steps_mm)
        return cls(mask, (i, j, k), prepared.shape)

    def contains(self, corner: Size, crop: Size) -> bool:
        """Returns whether a window has a voxel of the body or its margin.

        Args:
            corner: The first voxel of the window; negative where the volume is padded.
            crop: The size of the window.
        """
        first = [
            n - a - c if axis in self.mirrored else a
            for axis, (a, c, n) in enumerate(zip(corner, crop, self.shape, strict=True))
        ]
        sides = zip(first, crop, self.strides, strict=True)
        return bool(self.mask[tuple(slice(max(0, a) // n, (a + c - 1) // n + 1) for a, c, n in sides)].any())

    def mirror(self, axes: tuple[int, ...]) -> "BodyWindows":
        """Returns the windows of the volume mirrored along some axes, 0 to 2."""
        return replace(self, mirrored=axes)


def _find_body(scan: Volume) -> Volume:
    """Returns the body at every n-th voxel of a scan: its large parts, without holes."""
    ras = scan.reorient("RAS", copy=False)
    channels = ras.voxels.reshape(-1, *ras.shape)
    body = np.zeros(subsample(channels[0]).shape, bool)
    for channel in channels:
        body |= body_mask(np.ascontiguousarray(subsample(channel)), scan.unit)
    release_pages(scan.voxels)
    parts, _ = ndimage.label(body, NEIGHBOURS_26)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    is_large = sizes >= max(1.0, MIN_PART_FRACTION * sizes.max())
    body = ndimage.binary_fill_holes(is_large[parts])
    return Volume(body.astype(np.uint8), _stretch(ras, subsample_strides(ras.shape)), "label")


def _stretch(volume: Volume, strides: tuple[int, ...]) -> Float[np.ndarray, "4 4"]:
    """Returns the affine of every n-th voxel of a volume."""
    return volume.affine @ np.diag([*strides, 1.0])
