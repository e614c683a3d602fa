"""Candidates are peaks with their voxels, tested on known Gaussians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.inference.detector import instance_map
from medssl.inference.lesion_candidates import NEIGHBOURS_26, extract_candidates


def hills(shape, *peaks):
    """Returns the maximum of Gaussians given as (centre, height, width)."""
    indices = np.indices(shape).transpose(1, 2, 3, 0)
    gaussians = [h * np.exp(-0.5 * ((indices - centre) ** 2).sum(-1) / w**2) for centre, h, w in peaks]
    return np.max([np.zeros(shape), *gaussians], axis=0).astype(np.float32)


def test_faint_lesion_gets_the_same_extent():
    sure, faint = (extract_candidates(hills((20, 20, 20), ((10, 10, 10), height, 2)), 1) for height in (1.0, 0.2))
    assert [candidate.score for candidate in (*sure, *faint)] == pytest.approx([1.0, 0.2])
    assert np.array_equal(sure[0].voxels, faint[0].voxels)
    radius = 2 * np.sqrt(2 * np.log(1 / 0.4))
    assert len(sure[0].voxels) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)


def test_highest_scores_come_first_up_to_the_limit():
    p = hills((30, 12, 12), *[((5 + 10 * n, 6, 6), height, 1) for n, height in enumerate([0.3, 0.9, 0.6])])
    assert [candidate.score for candidate in extract_candidates(p, 1)] == pytest.approx([0.9, 0.6, 0.3])
    assert [candidate.score for candidate in extract_candidates(p, 1, max_candidates=2)] == pytest.approx([0.9, 0.6])
    assert [candidate.score for candidate in extract_candidates(p, 1, min_score=0.5)] == pytest.approx([0.9, 0.6])


def test_weak_neighbour_of_a_strong_peak_is_separate():
    p = hills((30, 16, 16), ((9, 8, 8), 1.0, 2.5), ((17, 8, 8), 0.3, 1.5))
    strong, weak = extract_candidates(p, 1)
    assert np.allclose(strong.voxels.mean(0), (9, 8, 8), atol=0.5)
    assert np.allclose(weak.voxels.mean(0), (17, 8, 8), atol=1.0)


def test_surroundings_of_a_candidate_give_no_other():
    assert len(extract_candidates(hills((40, 40, 40), ((20, 20, 20), 1.0, 5)), 1, min_score=0.05)) == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_even_volume_has_no_candidate_or_is_one(value):
    p = np.full((5, 6, 7), value, np.float32)
    candidates = extract_candidates(p, 3)
    assert [len(candidate.voxels) for candidate in candidates] == [210] * int(value)
    assert all(np.array_equal(candidate.box, [0, 0, 0, 5, 6, 7]) and candidate.label == 3 for candidate in candidates)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.8, 1.5]))
def test_candidates_are_connected_and_never_touch(seed, smooth):
    p = np.random.default_rng(seed).random((9, 10, 11)).astype(np.float32)
    p = ndimage.gaussian_filter(p, smooth) if smooth else p
    candidates = extract_candidates(p / p.max(), 1, min_score=0.3)
    instances = instance_map(candidates, p.shape)
    assert [int((instances == n).sum()) for n in range(1, len(candidates) + 1)] == [
        len(candidate.voxels) for candidate in candidates
    ]
    assert ndimage.label(instances > 0, NEIGHBOURS_26)[1] == len(candidates)
    assert all(
        candidate.score == pytest.approx((p / p.max())[tuple(candidate.voxels.T)].max()) for candidate in candidates
    )
