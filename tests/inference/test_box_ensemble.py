"""Weighted box clustering: what it must keep whatever the boxes are, and what it gives of boxes that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.inference.box_ensemble import clustered


def said(seed, count, spread=20.0):
    """Boxes of random voters about random places."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, spread, (count, 3))
    boxes = np.concatenate([low, low + random.uniform(2, 9, (count, 3))], 1)
    score, weight = random.uniform(0.05, 1, count), random.uniform(0.1, 1, count)
    return boxes, score, weight, random.integers(0, 4, count), np.full(count, 4.0)


def one(box, score, weight=1.0, voter=0, expected=1.0):
    return np.array([box], float), np.array([score]), np.array([weight]), np.array([voter]), np.array([expected])


def together(*votes):
    return tuple(np.concatenate(parts) for parts in zip(*votes, strict=True))


BOX = (1, 2, 3, 7, 9, 8)
BESIDE = (2, 2, 3, 8, 9, 8)


def test_one_box_of_one_voter_is_left_as_it_is():
    boxes, scores = clustered(*one(BOX, 0.3, weight=0.01))
    assert np.allclose(boxes, [BOX])
    assert scores == pytest.approx([0.3])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 25))
def test_the_order_of_the_boxes_changes_nothing(seed, count):
    votes = said(seed, count)
    turn = np.random.default_rng(seed + 1).permutation(count)
    straight, shuffled = clustered(*votes), clustered(*(x[turn] for x in votes))
    assert all(np.array_equal(a, b) for a, b in zip(straight, shuffled, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25))
def test_clusters_stay_within_what_was_said(seed, count):
    boxes, scores, *rest = said(seed, count)
    merged, merged_scores = clustered(boxes, scores, *rest)
    assert 1 <= len(merged) <= count
    assert (merged >= boxes.min(0) - 1e-9).all() and (merged <= boxes.max(0) + 1e-9).all()
    assert (merged_scores > 0).all() and merged_scores.max() <= scores.max() + 1e-12
    assert (np.diff(merged_scores) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.floats(0.1, 0.9))
def test_halved_scores_leave_the_boxes_and_halve_the_clusters(seed, count, factor):
    boxes, scores, *rest = said(seed, count)
    (a, of_a), (b, of_b) = clustered(boxes, scores, *rest), clustered(boxes, scores * factor, *rest)
    assert np.allclose(a, b)
    assert np.allclose(of_a * factor, of_b)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.2, 0.9), st.floats(0.01, 0.1))
def test_a_surer_box_makes_a_surer_cluster(score, more):
    beside = one(BESIDE, 0.2, voter=1, expected=2.0)
    (weak,), (strong,) = (
        clustered(*together(one(BOX, s, expected=2.0), beside))[1] for s in (score + 0.05, score + 0.05 + more)
    )
    assert strong > weak


def test_voters_that_stay_silent_lower_the_score_and_move_nothing():
    (alone, sure), (asked, unsure) = (clustered(*one(BOX, 0.8, expected=n)) for n in (1.0, 4.0))
    assert np.allclose(alone, asked)
    assert unsure == pytest.approx(sure / 4)


def test_two_that_agree_meet_between_them_and_one_far_away_stays_alone():
    far = one((30, 30, 30, 34, 34, 34), 0.4)
    boxes, scores = clustered(*together(one(BOX, 0.6), one(BESIDE, 0.6, voter=1), far))
    assert len(boxes) == 2 and scores == pytest.approx([0.6, 0.4])
    assert 1 < boxes[0][0] < 2 and np.allclose(boxes[0][1:3], BOX[1:3])


def test_the_middle_of_a_window_counts_more_than_its_edge():
    central, edge = one(BOX, 0.6, weight=1.0), one(BESIDE, 0.6, weight=0.1, voter=1)
    (box,), _ = clustered(*together(central, edge))
    assert box[0] < 1.2


def test_boxes_without_a_volume_and_no_boxes_at_all_are_no_clusters():
    flat = one((3, 3, 3, 3, 9, 9), 0.9)
    assert [len(part) for part in clustered(*flat)] == [0, 0]
    assert [part.shape for part in clustered(*(x[:0] for x in flat))] == [(0, 6), (0,)]
