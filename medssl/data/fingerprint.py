"""Makes the thumbnail of a volume, a small picture by which copies of it are recognized."""

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

THUMBNAIL_SIZE = 24  # cells along each axis
MAX_SAMPLES_PER_AXIS = 72  # voxels along an axis that suffice for a thumbnail
AIR_LEVEL = 0.1  # in network input units: darker voxels are air


def thumbnail(x: Float[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "n n n"]:
    """Averages network input, values in [0, 1], over the cells of a grid around everything that is not air.

    Returns:
        THUMBNAIL_SIZE cells along each axis; 255 stands for 1.
    """
    cells = _crop_to_body(x.astype(np.float32, copy=False))
    for axis in range(3):
        cells = apply_along(_averaging_matrix(cells.shape[axis]), cells, axis)
    return np.rint(255 * np.nan_to_num(cells).clip(0, 1)).astype(np.uint8)


def subsample_for_thumbnail(voxels: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "p q r"]:
    """Returns every n-th voxel along each axis, as many as a thumbnail needs."""
    return voxels[tuple(slice(None, None, max(1, n // MAX_SAMPLES_PER_AXIS)) for n in voxels.shape)]


def apply_along(
    matrix: Float32[np.ndarray, "m n"], x: Float32[np.ndarray, "*s"], axis: int
) -> Float32[np.ndarray, "*t"]:
    """Multiplies a matrix with every row along an axis."""
    return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)


def _crop_to_body(x: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "p q r"]:
    """Crops to the bounding box of everything brighter than air."""
    body = x > AIR_LEVEL
    if not body.any():
        return x
    indices = [np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return x[tuple(slice(index[0], index[-1] + 1) for index in indices)]


def _averaging_matrix(n: int) -> Float32[np.ndarray, "c n"]:
    """Computes the matrix that averages n voxels into cells, dividing voxels that lie in two cells between them."""
    edges = np.linspace(0, n, THUMBNAIL_SIZE + 1)
    low, high = np.maximum(edges[:-1, None], np.arange(n)), np.minimum(edges[1:, None], np.arange(1, n + 1))
    return ((high - low).clip(0) * THUMBNAIL_SIZE / n).astype(np.float32)
