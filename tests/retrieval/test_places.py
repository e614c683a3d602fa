"""A place is found again in mm, whatever the grids, and the way back reveals a match that is none."""

import numpy as np
import pytest

from medssl.retrieval.features import normalize
from medssl.retrieval.places import describe_place, find_most_similar, match_place
from medssl.volume import Volume

DIRECTIONS = np.random.default_rng(0).normal(0, 0.12, (24, 3))
PLACE_MM = (6.0, -9.0, 4.0)


def encode_position(affine, shape, scale=1.0):
    """Features that are waves of the position in mm, so that places are alike if they are near each other."""
    grid = Volume(np.zeros(shape, np.float32), affine, "a.u.")
    points = grid.to_mm(np.moveaxis(np.indices(shape), 0, -1).astype(float))
    phase = points @ DIRECTIONS.T * scale
    return normalize(Volume(np.moveaxis(np.concatenate([np.cos(phase), np.sin(phase)], -1), -1, 0), affine, "a.u."))


def make_affine(
    spacing_mm, flips=(1, 1, 1), order=(0, 1, 2), degrees=0.0, centre_mm=(0.0, 0.0, 0.0), shape=(24, 24, 24)
):
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn @ np.diag(flips))[:, list(order)] * np.array(spacing_mm)
    affine[:3, 3] = np.array(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


GRIDS = {
    "the same": (make_affine((2, 2, 2)), (24, 24, 24)),
    "shifted": (make_affine((2, 2, 2), centre_mm=(3.3, -5.1, 2.0)), (24, 24, 24)),
    "thick slices": (make_affine((1.5, 1.5, 5), shape=(32, 32, 10)), (32, 32, 10)),
    "flipped": (make_affine((2, 2, 3), flips=(-1, -1, 1)), (24, 24, 24)),
    "permuted": (make_affine((2, 3, 2), flips=(-1, 1, -1), order=(2, 0, 1)), (24, 24, 24)),
    "oblique": (make_affine((2, 2, 2), degrees=25), (24, 24, 24)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_place_is_found_within_a_voxel_on_any_grid(name):
    affine, shape = GRIDS[name]
    source = [encode_position(*GRIDS["the same"]), encode_position(make_affine((4, 4, 4)), (12, 12, 12), 0.5)]
    target = [encode_position(affine, shape), encode_position(affine @ np.diag([2, 2, 1, 1]), shape, 0.5)]
    match = match_place(source, PLACE_MM, target)
    diagonal_mm = np.linalg.norm(np.linalg.norm(affine[:3, :3], axis=0))
    assert np.linalg.norm(np.subtract(match.place_mm, PLACE_MM)) <= 0.7 * diagonal_mm
    assert match.back_mm <= 0.7 * diagonal_mm + 2
    assert 0.85 < match.similarity <= 1.001


def test_the_features_at_a_place_are_interpolated_and_at_the_edge_outside():
    ramp = np.stack([np.broadcast_to(np.arange(5.0)[:, None, None], (5, 4, 3)), np.ones((5, 4, 3))])
    level = Volume(ramp, np.diag([2.0, 1.0, 1.0, 1.0]), "a.u.")
    for x_mm, value in ((3.0, 1.5), (8.0, 4.0), (-5.0, 0.0), (99.0, 4.0)):
        (vector,) = describe_place([level], (x_mm, 1.0, 1.0))
        np.testing.assert_allclose(vector, np.array([value, 1]) / np.hypot(value, 1), atol=1e-9)


def test_a_map_of_one_voxel_along_an_axis_is_no_exception():
    level = Volume(np.ones((2, 4, 4, 1)), np.eye(4), "a.u.")
    assert describe_place([level], (1.0, 1.0, 0.0))[0] == pytest.approx([0.5**0.5] * 2)


def make_spots(*spots, width=2, shape=(16, 8, 8)):
    """Features that are zero but at the first voxels of some spots."""
    voxels = np.zeros((2, *shape), np.float32)
    voxels[1] = 1
    for place, value in spots:
        voxels[(slice(None), *place)] = (np.cos(value), np.sin(value))
    return Volume(voxels, np.eye(4), "a.u.")


def test_a_coarse_level_decides_between_places_that_look_alike():
    fine = make_spots(((3, 4, 4), 0.0), ((12, 4, 4), 0.0))
    half = np.zeros((2, 2, 1, 1), np.float32)
    half[:, 0, 0, 0], half[:, 1, 0, 0] = (1, 0), (0, 1)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = 3.5
    coarse = Volume(half, affine, "a.u.")
    for place in ((3.0, 4.0, 4.0), (12.0, 4.0, 4.0)):
        match = match_place([fine, coarse], place, [fine, coarse])
        assert match.place_mm == place and match.back_mm == 0


def test_the_way_back_from_a_wrong_match_ends_elsewhere():
    source = make_spots(((3, 4, 4), 0.4), ((12, 4, 4), 0.0))
    target = make_spots(((5, 4, 4), 0.1))
    assert match_place([source], (3.0, 4.0, 4.0), [target]).back_mm == 9
    assert match_place([source], (12.0, 4.0, 4.0), [target]).back_mm == 0


def test_features_without_information_find_places_by_chance():
    random = np.random.default_rng(0)
    shape, errors, chances = (16, 16, 16), [], []
    for _ in range(60):
        source, target = (Volume(random.normal(0, 1, (8, *shape)), np.eye(4), "a.u.") for _ in range(2))
        place, other = random.integers(0, 16, (2, 3)).astype(float)
        match = match_place([source], tuple(place.tolist()), [target])
        errors.append(np.linalg.norm(np.subtract(match.place_mm, place)))
        chances.append(np.linalg.norm(other - place))
    assert np.mean(errors) == pytest.approx(np.mean(chances), abs=2)


def test_the_similarity_of_a_place_with_itself_is_1():
    features = encode_position(*GRIDS["the same"])
    index = (4, 7, 9)
    place_mm = tuple(features.to_mm(np.array(index, float)).tolist())
    found_mm, similarity = find_most_similar(describe_place([features], place_mm), [features])
    assert found_mm == pytest.approx(place_mm) and similarity == pytest.approx(1, abs=2e-3)
