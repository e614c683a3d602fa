"""Slices that a reader drew stay as drawn, and give the mask of the others, with and without signed cases."""

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.review.assist.assist_request import AssistRequest
from medssl.review.assist.depth import measure_signed_depth
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.review.assist.proposal import AssistImage, apply_proposal, learn_from_mask, propose_mask
from medssl.review.assist.scene import Clicks
from medssl.review.assist.signed_shape import SignedShape, place_by_slices
from medssl.volume import Volume

SHAPE, SPACING = (30, 32, 34), (1.2, 0.8, 1.0)


def make_body(centre=(15, 16, 17), radii=(7, 9, 8)):
    """An ellipsoid with a bump on one side."""
    grid = [np.arange(n) * mm for n, mm in zip(SHAPE, SPACING, strict=True)]
    i, j, k = np.meshgrid(*grid, indexing="ij")
    ci, cj, ck = (c * mm for c, mm in zip(centre, SPACING, strict=True))
    ellipsoid = ((i - ci) / radii[0]) ** 2 + ((j - cj) / radii[1]) ** 2 + ((k - ck) / radii[2]) ** 2 <= 1
    return ellipsoid | ((i - ci - 7) ** 2 + (j - cj) ** 2 + (k - ck - 3) ** 2 <= 9)


def make_image(mask, contrast):
    voxels = np.random.default_rng(4).normal(0, 15, SHAPE) + contrast * mask
    return AssistImage.from_volume(Volume(voxels.astype(np.float32), np.diag([*SPACING, 1.0]), "HU"))


def keep_slices(truth, drawn):
    return truth & drawn.mark(SHAPE)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def propose(image, mask, drawn, context=None):
    return apply_proposal(mask, propose_mask(image, mask, Clicks.none(), context, drawn))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("contrast", [0.0, 60.0])
def test_three_slices_of_any_plane_give_the_finding(axis, contrast):
    truth = make_body()
    middle = (15, 16, 17)[axis]
    indices = [(), (), ()]
    indices[axis] = (middle - 4, middle, middle + 5)
    drawn = DrawnSlices(*indices)
    start = keep_slices(truth, drawn)
    after = propose(make_image(truth, contrast), start, drawn)
    assert dice(start, truth) < 0.5 and dice(after, truth) > 0.85
    known = drawn.mark(SHAPE)
    np.testing.assert_array_equal(after[known], truth[known])


def test_an_empty_slice_ends_the_finding_there():
    truth = make_body()
    drawn = DrawnSlices(along_k=(17, 24))
    start = keep_slices(truth, drawn)
    start[:, :, 24] = False
    after = propose(make_image(truth, 0.0), start, drawn)
    assert not after[:, :, 24:].any() and after[:, :, 18].any()


def test_a_slice_that_was_made_right_corrects_its_neighbours():
    truth = make_body()
    wrong = np.roll(truth, 3, axis=1)
    drawn = DrawnSlices(along_k=(13, 17, 21))
    start = np.where(drawn.mark(SHAPE), truth, wrong)
    after = propose(make_image(truth, 25.0), start, drawn)
    assert dice(after, truth) > dice(start, truth) + 0.05
    for k in (14, 18):
        assert dice(after[:, :, k], truth[:, :, k]) > dice(wrong[:, :, k], truth[:, :, k]) + 0.05


def test_signed_shapes_give_the_finding_from_one_slice():
    truth = make_body()
    context = None
    for n in (-2, 0, 3):
        other = make_body((15 + n, 16 - n, 16), (7.2 + 0.2 * n, 9, 8))
        lesson = learn_from_mask(make_image(other, 25.0), other)
        context = lesson if context is None else context + lesson
    drawn = DrawnSlices(along_k=(13,))
    start, image = keep_slices(truth, drawn), make_image(truth, 25.0)
    alone, taught = (dice(propose(image, start, drawn, lessons), truth) for lessons in (None, context))
    assert taught > 0.9 and taught > alone + 0.05


def test_a_shape_is_placed_where_it_was_drawn():
    truth = make_body()
    shape = SignedShape.from_mask(np.roll(truth, (3, -2, 2), (0, 1, 2)), SPACING)
    drawn = DrawnSlices(along_i=(14,), along_k=(16, 20))
    cost, middle = shape.fit(truth, drawn, SPACING)
    assert cost < 0.1 and dice(shape.sample(SHAPE, SPACING, middle) > 0, truth) > 0.93
    placed = place_by_slices([shape, shape], truth, drawn, SPACING)
    np.testing.assert_allclose(placed, shape.sample(SHAPE, SPACING, middle), atol=1e-5)
    assert place_by_slices([], truth, drawn, SPACING) is None
    assert place_by_slices([shape], np.zeros(SHAPE, bool), drawn, SPACING) is None


def test_the_signed_depth_of_a_ball_is_the_distance_to_its_surface():
    i, j, k = np.indices((41, 41, 41)) - 20
    distance = np.sqrt(i**2 + j**2 + k**2)
    depth = measure_signed_depth(distance <= 10, (1.0, 1.0, 1.0))
    near = distance < 22
    assert np.abs(depth - (10 - distance))[near].max() < 1.0
    assert (measure_signed_depth(np.zeros((3, 3), bool), (1.0, 1.0)) < 0).all()


@pytest.mark.parametrize("slices", [[[3, 0]], [[0, -1]], [[2, 34]], [[0]], [[0, 1, 2]]])
def test_a_slice_that_does_not_exist_is_refused(slices):
    with pytest.raises(BadInput):
        AssistRequest.parse(f'{{"label": 1, "mask": [[0, 1]], "slices": {slices}}}'.encode()).read_slices(SHAPE)


def test_slices_are_read_once_and_in_order():
    request = AssistRequest.parse(b'{"label": 1, "mask": [[0, 1]], "slices": [[2, 7], [2, 3], [2, 7], [0, 1]]}')
    assert request.read_slices(SHAPE) == DrawnSlices((1,), (), (3, 7))
