"""Weighted box clustering: properties on random boxes, and results on known ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.inference.box_ensemble import cluster_boxes


def random_votes(seed, count, spread=20.0):
    """Returns random boxes of random voters."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, spread, (count, 3))
    boxes = np.concatenate([low, low + random.uniform(2, 9, (count, 3))], 1)
    score, weight = random.uniform(0.05, 1, count), random.uniform(0.1, 1, count)
    return boxes, score, weight, random.integers(0, 4, count), np.full(count, 4.0)


def make_vote(box, score, weight=1.0, voter=0, expected=1.0):
    return np.array([box], float), np.array([score]), np.array([weight]), np.array([voter]), np.array([expected])


def concatenate_votes(*votes):
    return tuple(np.concatenate(parts) for parts in zip(*votes, strict=True))


BOX = (1, 2, 3, 7, 9, 8)
NEIGHBOUR = (2, 2, 3, 8, 9, 8)


def test_single_box_is_unchanged():
    boxes, scores = cluster_boxes(*make_vote(BOX, 0.3, weight=0.01))
    assert np.allclose(boxes, [BOX])
    assert scores == pytest.approx([0.3])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 25))
def test_order_of_boxes_does_not_matter(seed, count):
    votes = random_votes(seed, count)
    permutation = np.random.default_rng(seed + 1).permutation(count)
    original, shuffled = cluster_boxes(*votes), cluster_boxes(*(x[permutation] for x in votes))
    assert all(np.array_equal(a, b) for a, b in zip(original, shuffled, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25))
def test_clusters_stay_within_the_range_of_votes(seed, count):
    boxes, scores, *others = random_votes(seed, count)
    merged, merged_scores = cluster_boxes(boxes, scores, *others)
    assert 1 <= len(merged) <= count
    assert (merged >= boxes.min(0) - 1e-9).all() and (merged <= boxes.max(0) + 1e-9).all()
    assert (merged_scores > 0).all() and merged_scores.max() <= scores.max() + 1e-12
    assert (np.diff(merged_scores) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 25), st.floats(0.1, 0.9))
def test_scaled_scores_scale_the_cluster_scores_only(seed, count, factor):
    boxes, scores, *others = random_votes(seed, count)
    (boxes_full, scores_full), (boxes_scaled, scores_scaled) = (
        cluster_boxes(boxes, scores, *others),
        cluster_boxes(boxes, scores * factor, *others),
    )
    assert np.allclose(boxes_full, boxes_scaled)
    assert np.allclose(scores_full * factor, scores_scaled)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.2, 0.9), st.floats(0.01, 0.1))
def test_higher_score_raises_the_cluster_score(score, increase):
    neighbour = make_vote(NEIGHBOUR, 0.2, voter=1, expected=2.0)
    (weak,), (strong,) = (
        cluster_boxes(*concatenate_votes(make_vote(BOX, s, expected=2.0), neighbour))[1]
        for s in (score + 0.05, score + 0.05 + increase)
    )
    assert strong > weak


def test_missing_votes_lower_the_score_only():
    (alone, sure), (diluted, unsure) = (cluster_boxes(*make_vote(BOX, 0.8, expected=n)) for n in (1.0, 4.0))
    assert np.allclose(alone, diluted)
    assert unsure == pytest.approx(sure / 4)


def test_overlapping_boxes_merge_and_distant_ones_do_not():
    far = make_vote((30, 30, 30, 34, 34, 34), 0.4)
    boxes, scores = cluster_boxes(*concatenate_votes(make_vote(BOX, 0.6), make_vote(NEIGHBOUR, 0.6, voter=1), far))
    assert len(boxes) == 2 and scores == pytest.approx([0.6, 0.4])
    assert 1 < boxes[0][0] < 2 and np.allclose(boxes[0][1:3], BOX[1:3])


def test_central_boxes_weigh_more_than_those_at_the_edge():
    central, edge = make_vote(BOX, 0.6, weight=1.0), make_vote(NEIGHBOUR, 0.6, weight=0.1, voter=1)
    (box,), _ = cluster_boxes(*concatenate_votes(central, edge))
    assert box[0] < 1.2


def test_flat_or_missing_boxes_give_no_cluster():
    flat = make_vote((3, 3, 3, 3, 9, 9), 0.9)
    assert [len(part) for part in cluster_boxes(*flat)] == [0, 0]
    assert [part.shape for part in cluster_boxes(*(x[:0] for x in flat))] == [(0, 6), (0,)]
