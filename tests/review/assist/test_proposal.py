"""Proposals follow clicks, edges, the current mask and signed cases, on phantoms whose answer is known."""

import numpy as np
import pytest

from medssl.review.assist.proposal import (
    MAX_SIDE,
    AssistImage,
    apply_proposal,
    choose_box,
    learn_from_mask,
    propose_mask,
)
from medssl.review.assist.random_walker import solve_random_walker
from medssl.review.assist.scene import Clicks
from medssl.volume import Volume

SIDE = 40


def ball(centre, radius, side=SIDE):
    offsets = np.indices((side,) * 3) - np.reshape(centre, (3, 1, 1, 1))
    return (offsets**2).sum(0) <= radius**2


def make_image(mask, contrast=60.0, noise=10.0, unit="HU"):
    voxels = np.random.default_rng(1).normal(0, noise, mask.shape) + contrast * mask
    return AssistImage.from_volume(Volume(voxels.astype(np.float32), np.eye(4), unit))


def click(inside=(), outside=()):
    return Clicks(*(np.array(points, np.int64).reshape(-1, 3) for points in (inside, outside)))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("unit", ["HU", "a.u."])
def test_clicks_alone_find_a_ball_with_contrast(unit):
    truth = ball((20, 20, 20), 9)
    empty = np.zeros_like(truth)
    clicks = click([(20, 20, 20)], [(20, 20, 34), (20, 6, 20)])
    proposal = propose_mask(make_image(truth, unit=unit), empty, clicks)
    assert dice(apply_proposal(empty, proposal), truth) > 0.9


def test_a_click_inside_adds_a_lobe_and_a_click_outside_removes_one():
    body, lobe, leak = ball((20, 20, 16), 7), ball((20, 20, 27), 5), ball((20, 31, 16), 5)
    image = make_image(body | lobe)
    before = body | leak
    assert dice(before, body | lobe) < 0.85
    after = apply_proposal(before, propose_mask(image, before, click([(20, 20, 28)], [(20, 32, 16)])))
    assert dice(after, body | lobe) > 0.9
    assert after[20, 20, 28] and not after[20, 32, 16]


def test_the_clicked_voxels_are_kept_even_against_the_image():
    truth = ball((20, 20, 20), 8)
    clicks = click([(20, 20, 20), (20, 20, 30)], [(20, 14, 20)])
    after = propose_mask(make_image(truth), truth, clicks)
    mask = apply_proposal(truth, after)
    assert mask[20, 20, 30] and not mask[20, 14, 20]


def test_nothing_changes_far_from_the_box():
    before = ball((20, 20, 20), 5)
    before[0, 0, 0] = True
    proposal = propose_mask(make_image(before), ball((20, 20, 20), 5), click([(20, 20, 24)]))
    assert apply_proposal(before, proposal)[0, 0, 0]


def test_signed_cases_make_the_first_proposal_better():
    context = None
    for radius in (8, 9, 10):
        truth = ball((20, 20, 20), radius)
        lesson = learn_from_mask(make_image(truth, contrast=25.0), truth)
        context = lesson if context is None else context + lesson
    truth = ball((19, 21, 20), 9)
    empty, image = np.zeros_like(truth), make_image(truth, contrast=25.0)
    alone, taught = (propose_mask(image, empty, click([(19, 21, 20)]), lesson) for lesson in (None, context))
    scores = [dice(apply_proposal(empty, proposal), truth) for proposal in (alone, taught)]
    assert scores[1] > 0.85 and scores[1] > scores[0] + 0.1


def test_an_encoder_tells_apart_what_intensities_do_not():
    truth = ball((20, 20, 20), 8)
    image = make_image(truth, contrast=0.0)
    encoding = Volume(np.stack([2.0 * truth, 1.0 - truth]).astype(np.float16), np.eye(4), "a.u.")
    encoded = AssistImage(image.volume, image.scale, encoding)
    empty, clicks = np.zeros_like(truth), click([(20, 20, 20)], [(20, 20, 34), (6, 20, 20)])
    scores = [dice(apply_proposal(empty, propose_mask(i, empty, clicks)), truth) for i in (image, encoded)]
    assert scores[1] > 0.75 and scores[1] > scores[0] + 0.1


def test_a_large_box_is_cut_around_the_last_click():
    mask = np.zeros((200, 150, 30), bool)
    mask[5:195, 5:145, 10:20] = True
    box = choose_box(mask, click([(190, 140, 15)]), (1.0, 1.0, 1.0))
    assert [side.stop - side.start for side in box] == [MAX_SIDE, MAX_SIDE, 30]
    assert all(side.start <= c < side.stop for side, c in zip(box, (190, 140, 15), strict=True))


def test_the_walker_stops_at_an_edge_and_keeps_its_seeds():
    intensity = np.zeros((3, 3, 21), np.float32)
    intensity[:, :, 12:] = 2
    inside, outside = np.zeros((2, 3, 3, 21), bool)
    inside[1, 1, 2], outside[1, 1, 18] = True, True
    prior = np.full(intensity.shape, 0.5, np.float32)
    probability = solve_random_walker(prior, intensity, inside, outside, (1.0, 1.0, 1.0))[1, 1]
    assert probability[2] > 0.99 and probability[18] < 0.01
    assert (probability[:12] > 0.5).all() and (probability[12:] < 0.5).all()


def test_proposals_repeat_exactly():
    truth = ball((20, 20, 20), 8)
    image, clicks = make_image(truth), click([(20, 20, 20)], [(20, 20, 32)])
    first, second = (propose_mask(image, np.zeros_like(truth), clicks) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)
