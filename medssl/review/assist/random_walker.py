"""Solves the random walker with priors: clicks and probabilities spread over an image, but hardly across its edges.

Grady L, Multilabel random walker image segmentation using prior models, CVPR 2005. Here for two labels, and as a
stencil on the grid in place of a sparse matrix, solved by conjugate gradients from the prior.
"""

import numpy as np
from jaxtyping import Bool, Float32

Grid = Float32[np.ndarray, "i j k"]
Edges = Float32[np.ndarray, "_ _ _"]  # one less than the grid along the axis of the edges
EDGE_SHARPNESS = 40.0  # beta: how quickly the weight of an edge falls with the squared difference of intensities
PRIOR_WEIGHT = 0.1  # gamma: the weight of the prior of a voxel against that of its neighbours
LOWEST_WEIGHT = 1e-3  # keeps every voxel connected
SEED_WEIGHT = 1e3
TOLERANCE, MAX_STEPS = 3e-3, 60


def solve_random_walker(
    prior: Grid,
    intensity: Grid,
    inside: Bool[np.ndarray, "i j k"],
    outside: Bool[np.ndarray, "i j k"],
    spacing_mm: tuple[float, float, float],
) -> Grid:
    """Returns the probability that a random walk from each voxel ends inside.

    Args:
        prior: The probability of each voxel by itself.
        intensity: The normalized image, whose edges stop the walk.
        inside: The voxels that are known to be inside.
        outside: The voxels that are known to be outside.
        spacing_mm: The distance between neighbouring voxels along i, j, k in mm.
    """
    weights = [_weigh_edges(intensity, axis, min(spacing_mm) / spacing_mm[axis]) for axis in range(3)]
    seeds = np.where(inside | outside, np.float32(SEED_WEIGHT), np.float32(0))
    diagonal = PRIOR_WEIGHT + seeds
    for axis, weight in enumerate(weights):
        before, after = _cut_ends(axis)
        diagonal[before] += weight
        diagonal[after] += weight
    start = np.where(inside, np.float32(1), np.where(outside, np.float32(0), prior))
    return _solve(diagonal, weights, PRIOR_WEIGHT * prior + seeds * inside, start)


def _weigh_edges(intensity: Grid, axis: int, nearness: float) -> Edges:
    """Returns the weight between each voxel and the next one along an axis."""
    return np.exp(-EDGE_SHARPNESS * np.diff(intensity, axis=axis) ** 2) * np.float32(nearness**2) + LOWEST_WEIGHT


def _cut_ends(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Returns the indices of all voxels but the last, and but the first, along an axis."""
    ends = slice(None, -1), slice(1, None)
    before, after = (tuple(end if a == axis else slice(None) for a in range(3)) for end in ends)
    return before, after


def _multiply(diagonal: Grid, weights: list[Edges], x: Grid) -> Grid:
    """Returns the product of the matrix of the system and a vector."""
    product = diagonal * x
    for axis, weight in enumerate(weights):
        before, after = _cut_ends(axis)
        product[before] -= weight * x[after]
        product[after] -= weight * x[before]
    return product


def _solve(diagonal: Grid, weights: list[Edges], right: Grid, start: Grid) -> Grid:
    """Solves the system by conjugate gradients with Jacobi's preconditioner."""
    x = start.copy()
    residual = right - _multiply(diagonal, weights, x)
    direction = scaled = residual / diagonal
    error = first_error = float(np.vdot(residual, scaled))
    for _ in range(MAX_STEPS):
        if error <= TOLERANCE**2 * first_error or error == 0:
            break
        image = _multiply(diagonal, weights, direction)
        step = np.float32(error / float(np.vdot(direction, image)))
        x += step * direction
        residual -= step * image
        scaled = residual / diagonal
        previous, error = error, float(np.vdot(residual, scaled))
        direction = scaled + np.float32(error / previous) * direction
    return x
