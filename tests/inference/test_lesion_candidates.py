"""Candidates are peaks with the voxels that belong to them, on hills whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.inference.detector import numbered
from medssl.inference.lesion_candidates import NEIGHBOURS_26, candidates


def hills(shape, *tops):
    """Bells given as (centre, height, width); where they meet, the higher counts."""
    at = np.indices(shape).transpose(1, 2, 3, 0)
    bells = [h * np.exp(-0.5 * ((at - centre) ** 2).sum(-1) / w**2) for centre, h, w in tops]
    return np.max([np.zeros(shape), *bells], axis=0).astype(np.float32)


def test_a_faint_lesion_is_found_with_its_whole_body_as_a_sure_one_is():
    sure, faint = (candidates(hills((20, 20, 20), ((10, 10, 10), height, 2)), 1) for height in (1.0, 0.2))
    assert [one.score for one in (*sure, *faint)] == pytest.approx([1.0, 0.2])
    assert np.array_equal(sure[0].voxels, faint[0].voxels)
    radius = 2 * np.sqrt(2 * np.log(1 / 0.4))
    assert len(sure[0].voxels) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.1)


def test_the_surest_come_first_and_no_more_than_asked_for():
    p = hills((30, 12, 12), *[((5 + 10 * n, 6, 6), height, 1) for n, height in enumerate([0.3, 0.9, 0.6])])
    assert [one.score for one in candidates(p, 1)] == pytest.approx([0.9, 0.6, 0.3])
    assert [one.score for one in candidates(p, 1, most=2)] == pytest.approx([0.9, 0.6])
    assert [one.score for one in candidates(p, 1, least=0.5)] == pytest.approx([0.9, 0.6])


def test_a_weak_neighbour_on_the_flank_of_a_strong_one_is_a_candidate_of_its_own():
    p = hills((30, 16, 16), ((9, 8, 8), 1.0, 2.5), ((17, 8, 8), 0.3, 1.5))
    strong, weak = candidates(p, 1)
    assert np.allclose(strong.voxels.mean(0), (9, 8, 8), atol=0.5)
    assert np.allclose(weak.voxels.mean(0), (17, 8, 8), atol=1.0)


def test_the_halo_of_a_candidate_is_none():
    assert len(candidates(hills((40, 40, 40), ((20, 20, 20), 1.0, 5)), 1, least=0.05)) == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_even_volume_has_no_candidate_or_is_one(value):
    p = np.full((5, 6, 7), value, np.float32)
    found = candidates(p, 3)
    assert [len(one.voxels) for one in found] == [210] * int(value)
    assert all(np.array_equal(one.box, [0, 0, 0, 5, 6, 7]) and one.label == 3 for one in found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.8, 1.5]))
def test_candidates_are_single_parts_that_never_touch(seed, smooth):
    p = np.random.default_rng(seed).random((9, 10, 11)).astype(np.float32)
    p = ndimage.gaussian_filter(p, smooth) if smooth else p
    found = candidates(p / p.max(), 1, least=0.3)
    drawn = numbered(found, p.shape)
    assert [int((drawn == n).sum()) for n in range(1, len(found) + 1)] == [len(one.voxels) for one in found]
    assert ndimage.label(drawn > 0, NEIGHBOURS_26)[1] == len(found)
    assert all(one.score == pytest.approx((p / p.max())[tuple(one.voxels.T)].max()) for one in found)
