"""The normalised cut finds a planted region whatever the sign of its eigenvector, on any grid."""

import numpy as np
import pytest
from scipy import linalg

from medssl.errors import BadInput
from medssl.retrieval.features import normalize
from medssl.retrieval.normalized_cut import WEAK_EDGE, compute_cut, propose_region
from medssl.volume import Volume


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def plant_blob(affine, shape=(14, 12, 10), noise=0.5, seed=0):
    """Features that differ in a ball with a radius of 4 cells, with noise; also the ball and its centre in mm."""
    random = np.random.default_rng(seed)
    index = np.moveaxis(np.indices(shape), 0, -1)
    ball = np.linalg.norm(index - [7, 6, 5], axis=-1) <= 3.6
    inside, outside = random.normal(0, 1, (2, 16))
    common = 4 * random.normal(0, 1, 16)  # what all features have in common
    voxels = np.where(ball[..., None], inside, outside) + common + noise * random.normal(0, 1, (*shape, 16))
    features = normalize(Volume(np.moveaxis(voxels, -1, 0), affine, "a.u."))
    return features, ball, tuple(features.to_mm(np.array([7.0, 6.0, 5.0])).tolist())


GRIDS = [
    np.eye(4),
    np.diag([-2.0, 2.0, 5.0, 1.0]),
    np.array([[0, 3, 0, 9], [-2, 0, 0, 4], [0, 0, 2.5, -7], [0, 0, 0, 1.0]]),
]


@pytest.mark.parametrize("affine", GRIDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_region_is_proposed(affine, seed):
    features, ball, centre_mm = plant_blob(affine, seed=seed)
    region = propose_region(features, centre_mm, 100.0)
    assert region.unit == "label" and dice(region.voxels > 0, ball) > 0.7


def test_a_place_outside_the_region_gets_the_rest():
    features, ball, _ = plant_blob(np.eye(4))
    region = propose_region(features, (0.0, 0.0, 0.0), 100.0)
    assert dice(region.voxels > 0, ~ball) > 0.7


def test_the_box_has_the_geometry_of_the_scan():
    features, ball, centre_mm = plant_blob(GRIDS[1])
    region = propose_region(features, centre_mm, 8.0)
    assert region.shape == (9, 9, 3)
    inside_mm = region.to_mm(np.argwhere(region.voxels).astype(float))
    cells = np.rint(features.to_index(inside_mm)).astype(int)
    assert ball[tuple(cells.T)].mean() > 0.8


def test_the_cut_is_the_generalised_eigenvector_of_the_paper():
    rows = np.random.default_rng(0).normal(0, 1, (30, 5))
    similarity = rows @ rows.T
    weight = np.where(similarity > np.quantile(similarity, 0.6), 1, WEAK_EDGE)
    weight[np.eye(30, dtype=bool)] = 1
    degree = np.diag(weight.sum(1))
    _, vectors = linalg.eigh(degree - weight, degree)
    expected, vector = vectors[:, 1], compute_cut(similarity, 0.6)
    cosine = expected @ vector / np.linalg.norm(expected) / np.linalg.norm(vector)
    assert abs(cosine) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("place_mm", "reach_mm", "message"),
    [
        ((99.0, 0.0, 0.0), 5.0, "outside the features of"),
        ((7.0, 6.0, 5.0), 0.5, "are 1 cells of 1 x 1 x 1 mm, and a normalised cut needs 8 to 4096"),
    ],
)
def test_a_box_that_is_no_graph_is_refused(place_mm, reach_mm, message):
    features, _, _ = plant_blob(np.eye(4))
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        propose_region(features, place_mm, reach_mm)
