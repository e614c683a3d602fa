"""The 24 rotations of a cube, applied to crops by permuting and flipping axes, without interpolation."""

from itertools import permutations, product

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

Rotation = tuple[tuple[int, int, int], tuple[bool, bool, bool]]


def list_rotations() -> list[Rotation]:
    """Returns the rotations as permutations of the axes, and which of the permuted axes are flipped.

    The identity is the first. The 24 signed permutations with determinant 1 are closed under composition.
    """
    either = (False, True)
    signed = [
        ((i, j, k), (a, b, c)) for i, j, k in permutations(range(3)) for a, b, c in product(either, either, either)
    ]
    return [rotation for rotation in signed if np.linalg.det(as_matrix(rotation)) > 0]


def as_matrix(rotation: Rotation) -> Int[np.ndarray, "3 3"]:
    """Returns the matrix that maps a direction in the crop to its direction in the rotated crop."""
    order, flips = rotation
    matrix = np.zeros((3, 3), int)
    for axis, (source, is_flipped) in enumerate(zip(order, flips, strict=True)):
        matrix[axis, source] = -1 if is_flipped else 1
    return matrix


def rotate(x: Float[Tensor, "c i j k"], rotation: Rotation) -> Float[Tensor, "c _ _ _"]:
    """Returns a rotated crop; every voxel keeps its value."""
    order, flips = rotation
    permuted = x.permute(0, *(axis + 1 for axis in order))
    return permuted.flip([axis + 1 for axis, is_flipped in enumerate(flips) if is_flipped])


def invert(rotation: Rotation) -> Rotation:
    """Returns the rotation that undoes another one."""
    order, flips = rotation
    inverse = [order.index(axis) for axis in range(3)]
    i, j, k = inverse
    return (i, j, k), (flips[i], flips[j], flips[k])


def find_shape_preserving(
    rotations: list[Rotation],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    tolerance: float = 0.05,
) -> Bool[np.ndarray, "n"]:
    """Returns which rotations exchange only axes of equal length and spacing.

    Args:
        rotations: Rotations to check.
        shape: Voxels of a crop along each axis.
        spacing_mm: Voxel spacing along each axis. A network would tell axes of different spacing by their blur.
        tolerance: Largest relative difference of spacings that count as equal.
    """

    def is_exchangeable(a: int, b: int) -> bool:
        return shape[a] == shape[b] and abs(spacing_mm[a] - spacing_mm[b]) <= tolerance * max(
            spacing_mm[a], spacing_mm[b]
        )

    return np.array([all(is_exchangeable(axis, source) for axis, source in enumerate(order)) for order, _ in rotations])
