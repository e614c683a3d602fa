"""Shapes of phantoms: distances, views of a canvas and the inverse of a warp."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.phantoms.datasets import PROTOCOLS, grid_affine
from medssl.data.phantoms.shapes import (
    Canvas,
    Warp,
    capsule_distance,
    ellipsoid_distance,
    rounded_rectangle_distance,
    voxel_centres,
)
from medssl.data.phantoms.vessels import grow_tree

seeds = st.integers(0, 10**6)


def draw_points(rng, n=200, reach=60):
    return rng.uniform(-reach, reach, (3, n)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_an_ellipsoid_of_equal_radii_is_a_ball(seed):
    points = draw_points(np.random.default_rng(seed))
    exact = np.linalg.norm(points - np.array([[3], [4], [5]]), axis=0) - 20
    np.testing.assert_allclose(ellipsoid_distance(points, (3, 4, 5), (20, 20, 20)), exact, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_capsule_is_as_far_as_the_nearest_point_of_its_axis(seed):
    points = draw_points(np.random.default_rng(seed))
    axis = np.linspace((-10, 0, 5), (20, 8, -4), 2001)
    nearest = np.linalg.norm(points.T[:, None] - axis, axis=-1).min(1)
    np.testing.assert_allclose(capsule_distance(points, axis[0], axis[-1], 3, 3), nearest - 3, atol=0.02)


def test_a_rounded_rectangle_is_zero_on_its_half_axes():
    x, y = np.array([30.0, 0, -30, 0], np.float32), np.array([0, 12.0, 0, -12], np.float32)
    np.testing.assert_allclose(rounded_rectangle_distance(x, y, 30, 12), 0, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_an_inverted_warp_is_undone_by_the_warp(seed):
    rng = np.random.default_rng(seed)
    warp, points = Warp.draw(rng, 5, 5.0, 110, 240), draw_points(rng)
    np.testing.assert_allclose(warp(warp.invert(points)), points, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(PROTOCOLS))
def test_a_view_contains_every_point_of_its_box(seed, protocol):
    rng = np.random.default_rng(seed)
    affine = grid_affine((20, 18, 16), (7.0, 8.0, 9.0), protocol.orientation, protocol.oblique_deg)
    canvas = Canvas.create_blank((20, 18, 16), affine, Warp.draw(rng, 5, 5.0, 110, 240))
    low = rng.uniform(-60, 20, 3)
    high = low + rng.uniform(5, 60, 3)
    inside = ((low <= canvas.points.T) & (high >= canvas.points.T)).all(-1).T
    part = canvas.view_box(low, high)
    part.label[...] = 1
    assert (canvas.label[inside] == 1).all()
    np.testing.assert_allclose(part.points, canvas.points[:, canvas.label == 1].reshape(part.points.shape), atol=1e-4)
    assert canvas.label.sum() < canvas.label.size or inside.mean() > 0.05


def test_the_affine_of_a_view_locates_its_voxels():
    canvas = Canvas.create_blank(
        (9, 8, 7), np.diag([3.0, 4, 5, 1]), Warp.draw(np.random.default_rng(0), 5, 0.0, 110, 240)
    )
    part = canvas.view_box((9, 12, 10), (15, 20, 20)).view_box((9, 12, 10), (15, 20, 20))
    np.testing.assert_allclose(voxel_centres(part.shape, part.affine), part.points, atol=1e-3)


def test_painting_blends_at_the_edge():
    canvas = Canvas.create_blank((1, 1, 3), np.eye(4), Warp.draw(np.random.default_rng(0), 5, 0.0, 110, 240))
    canvas.paint(np.array([[[-2.0, 0.0, 2.0]]], np.float32), 100.0, 7)
    np.testing.assert_allclose(canvas.image.ravel(), [100, 50, 0])
    assert canvas.label.ravel().tolist() == [7, 0, 0]


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_fork_starts_where_its_trunk_ends_and_is_thinner(seed):
    tubes = grow_tree(np.random.default_rng(seed), (0, 0, 0), (1, 0, 0), 5.0, 20.0, 4)
    assert len(tubes) == 2**5 - 1
    ends = np.array([t.end for t in tubes])
    for tube in tubes[1:]:
        trunk = tubes[int(np.linalg.norm(ends - tube.start, axis=1).argmin())]
        np.testing.assert_allclose(trunk.end, tube.start, atol=1e-9)
        assert tube.radius < trunk.radius
