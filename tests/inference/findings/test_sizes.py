"""Diameters, axes and sphericity of analytic bodies on five grids, against their sections computed on a fine grid."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from medssl.inference.connected_findings import measure_mask
from medssl.inference.findings import sizes
from medssl.inference.findings.axial_axes import find_axial_axis
from medssl.inference.findings.runs import find_runs
from medssl.inference.findings.sizes import DIRECTIONS, count_pairs
from medssl.volume import Volume

TILT = Rotation.from_euler("xyz", [20, 10, 30], degrees=True).as_matrix()
GRIDS = {
    "iso": np.eye(3),
    "1.25 mm slices": np.diag([0.7, 0.7, 1.25]),
    "5 mm slices": np.diag([0.8, 0.8, 5.0]),
    "oblique": TILT @ np.diag([0.8, 0.8, 2.5]),
    "flipped": np.diag([-0.8, -0.8, 2.0]),
}
FINE = 6  # samples per voxel side


def is_in_ellipsoid(points, half_axes, rotation):
    return ((points @ rotation / half_axes) ** 2).sum(-1) <= 1


def is_in_rod(points, length, width, rotation):
    x, y, z = np.moveaxis(points @ rotation, -1, 0)
    return x**2 + y**2 + (z - np.clip(z, (width - length) / 2, (length - width) / 2)) ** 2 <= (width / 2) ** 2


@dataclass(frozen=True)
class Body:
    contains: Callable[[np.ndarray], np.ndarray]
    diameter: float
    volume: float
    area: float


def make_bodies(rotation):
    p = 1.6075  # Knud Thomsen's approximation of the surface of an ellipsoid
    a, b, c = 15.0, 8.0, 5.0
    area = 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
    rod = 28 * np.pi * 36 + 4 / 3 * np.pi * 6**3, 28 * np.pi * 12 + 4 * np.pi * 36
    return {
        "ball 20": Body(partial(is_in_ellipsoid, half_axes=10.0, rotation=rotation), 20, 4e3 / 3 * np.pi, 400 * np.pi),
        "ball 6": Body(partial(is_in_ellipsoid, half_axes=3.0, rotation=rotation), 6, 36 * np.pi, 36 * np.pi),
        "ellipsoid": Body(
            partial(is_in_ellipsoid, half_axes=np.array([a, b, c]), rotation=rotation), 30, 800 * np.pi, area
        ),
        "rod": Body(partial(is_in_rod, length=40.0, width=12.0, rotation=rotation), 40, *rod),
        "upright rod": Body(partial(is_in_rod, length=40.0, width=12.0, rotation=np.eye(3)), 40, *rod),
    }


def place(axes, offset):
    """Returns an empty volume around the origin, and the points of its voxels."""
    half = np.ceil(24 / np.linalg.norm(axes, axis=0)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = offset - axes @ half
    volume = Volume(np.zeros(2 * half + 1, np.uint8), affine, "label")
    indices = np.stack(np.indices(volume.shape), -1).reshape(-1, 3)
    return volume, volume.to_mm(indices.astype(float)).reshape(*volume.shape, 3)


def measure_section(volume, contains):
    """Returns the long and the short axis of a body in the axial slices of a grid, from samples FINE times as dense."""
    axis = find_axial_axis(volume.affine)
    u, v = (volume.affine[:3, n] / FINE for n in range(3) if n != axis)
    best = (0.0, 0.0)
    middle = volume.to_index(np.zeros((1, 3)))[0]
    for n in range(volume.shape[axis]):
        index = middle.copy()
        index[axis] = n
        reach = np.arange(-24 * FINE, 24 * FINE) * 2
        corner = volume.to_mm(index[None])[0]
        points = corner + reach[:, None, None] * u + reach[None, :, None] * v
        inside = points[contains(points)]
        if len(inside) > 3:
            flat = (inside - corner) @ np.linalg.qr(np.stack([u, v], 1))[0]
            hull = flat[ConvexHull(flat).vertices]
            if (long_mm := pdist(hull).max()) > best[0]:
                a, b = np.unravel_index(np.linalg.norm(hull[:, None] - hull, axis=-1).argmax(), (len(hull),) * 2)
                direction = (hull[b] - hull[a]) / long_mm
                along, across = flat @ direction, flat @ [-direction[1], direction[0]]
                bins = np.round(along / 0.5).astype(int)
                widths = [np.ptp(across[bins == n]) for n in np.unique(bins)]
                best = long_mm, max(widths)
    return best


def compare_axes(axes, name, repeats=3):
    """Returns the errors of the long and the short axis in mm, of random positions and rotations."""
    rng = np.random.default_rng(3)
    errors = []
    for _ in range(repeats):
        body = make_bodies(Rotation.random(random_state=rng).as_matrix())[name]
        volume, points = place(axes, rng.uniform(-2, 2, 3))
        sizes = measure_mask(body.contains(points), (0, 0, 0), volume)
        errors.append(np.subtract((sizes.long_axis_mm, sizes.short_axis_mm), measure_section(volume, body.contains)))
    return np.array(errors)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
def test_axial_axes_err_by_less_than_a_third_of_a_millimetre(grid):
    """The pixels are 0.7 to 1 mm wide; through their faces, every axis would be too long by most of a pixel."""
    errors = np.array([compare_axes(GRIDS[grid], name) for name in make_bodies(np.eye(3))])
    assert np.abs(errors).mean() < 0.3 and np.abs(errors.mean((0, 1))).max() < 0.25, errors
    assert np.abs(errors.mean(1)).max() < 0.4, errors.mean(1)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_the_order_of_the_image_axes_does_not_matter(order):
    volume, points = place(GRIDS["1.25 mm slices"], np.array([0.2, 0.4, 0.1]))
    mask = make_bodies(TILT)["ellipsoid"].contains(points)
    expected = measure_mask(mask, (0, 0, 0), volume)
    affine = volume.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    turned = measure_mask(mask.transpose(order), (0, 0, 0), Volume(mask.transpose(order), affine, "label"))
    assert np.allclose(turned.centre_mm, expected.centre_mm) and np.allclose(turned.high_mm, expected.high_mm)
    assert turned.long_axis_mm == pytest.approx(expected.long_axis_mm, rel=1e-6)
    assert turned.short_axis_mm == pytest.approx(expected.short_axis_mm, rel=1e-6)
    assert turned.diameter_mm == pytest.approx(expected.diameter_mm, abs=0.2)
    assert turned.sphericity == pytest.approx(expected.sphericity, rel=1e-6)


@pytest.mark.parametrize("name", make_bodies(np.eye(3)))
@pytest.mark.parametrize("grid", ["iso", "1.25 mm slices"])
def test_diameter_volume_and_sphericity_are_those_of_the_body(grid, name):
    body = make_bodies(TILT)[name]
    volume, points = place(GRIDS[grid], np.array([0.3, -0.4, 0.2]))
    sizes = measure_mask(body.contains(points), (0, 0, 0), volume)
    assert sizes.diameter_mm == pytest.approx(body.diameter, abs=0.7)
    assert sizes.volume_ml * 1000 == pytest.approx(body.volume, rel=0.05)
    expected = (36 * np.pi * body.volume**2) ** (1 / 3) / body.area
    assert sizes.sphericity == pytest.approx(expected, abs=0.05)
    assert np.allclose(sizes.centre_mm, 0, atol=0.1)


def test_faces_of_voxels_do_not_lengthen_a_nodule():
    """Through the faces of its voxels, a nodule of 5.2 mm would be one of 6 mm, the threshold of guidelines."""
    rng, diameters = np.random.default_rng(0), []
    for _ in range(8):
        volume, points = place(np.eye(3), rng.uniform(-0.5, 0.5, 3))
        sizes = measure_mask(is_in_ellipsoid(points, 2.6, np.eye(3)), (0, 0, 0), volume)
        diameters.append((sizes.long_axis_mm + sizes.short_axis_mm) / 2)
    assert np.mean(diameters) == pytest.approx(5.2, abs=0.3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 6), (1, 6, 1), (6, 1, 1), (1, 4, 4), (40, 1, 40), (2, 1, 1)])
def test_flat_structures_are_measured_too(shape):
    volume, _ = place(np.diag([1.0, 0.5, 2.0]), np.zeros(3))
    sizes = measure_mask(np.ones(shape, bool), (1, 2, 3), volume)
    longest_mm = np.linalg.norm(np.array(shape) * [1.0, 0.5, 2.0])
    assert 0 < sizes.short_axis_mm <= sizes.long_axis_mm <= sizes.diameter_mm <= longest_mm + 1
    assert sizes.diameter_mm >= np.linalg.norm((np.array(shape) - 1) * [1.0, 0.5, 2.0]) - 1


def test_neighbours_are_counted_in_parts(monkeypatch):
    mask = np.random.default_rng(0).random((9, 11, 13)) < 0.6
    runs = find_runs(mask, np.array([0, 0, 0]))
    whole = count_pairs(runs)
    expected = [
        (mask[k : mask.shape[0], max(j, 0) : mask.shape[1] + min(j, 0), max(i, 0) : mask.shape[2] + min(i, 0)]
         & mask[: mask.shape[0] - k, max(-j, 0) : mask.shape[1] + min(-j, 0), max(-i, 0) : mask.shape[2] + min(-i, 0)]
        ).sum()
        for i, j, k in DIRECTIONS
    ]  # fmt: skip
    assert whole.tolist() == expected
    monkeypatch.setattr(sizes, "RUNS_PER_PART", 5)
    assert count_pairs(runs).tolist() == expected
