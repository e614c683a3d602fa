"""Case selection prefers representative and uncertain cases, and never repeats one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.inference.case_selection import case_embedding, case_similarity, case_uncertainty, rank_cases, select_slices
from medssl.inference.networks.torch_network import TorchNetwork


def clusters(sizes, seed=0, spread=0.1):
    """Returns points around distant centres, one cluster after the other."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 10, (len(sizes), 6))
    return np.concatenate([c + rng.normal(0, spread, (n, 6)) for c, n in zip(centres, sizes, strict=True)])


def names(points):
    return [f"c{n}" for n in range(len(points))]


def test_each_cluster_is_selected_once_the_largest_first():
    points = clusters([4, 12, 7])
    cluster_of = np.repeat([0, 1, 2], [4, 12, 7])
    selection = rank_cases(points, None, names(points), 0, 3)
    assert [int(cluster_of[int(selected.case[1:])]) for selected in selection] == [1, 2, 0]


def test_labelled_cluster_comes_last():
    points = clusters([5, 5])
    selection = rank_cases(points, None, names(points), 1, 1)
    assert int(selection[0].case[1:]) >= 5


def test_outlier_is_not_preferred():
    points = np.concatenate([clusters([20], spread=1.0), np.full((1, 6), 300.0)])
    assert rank_cases(points, None, names(points), 0, 1)[0].case != "c20"


def test_uncertain_cluster_is_preferred():
    points = clusters([8, 8])
    for uncertain_rows, expected in ((slice(0, 8), range(8)), (slice(8, 16), range(8, 16))):
        uncertainty = np.full(16, 0.1)
        uncertainty[uncertain_rows] = 0.9
        best = rank_cases(points, uncertainty, names(points), 0, 1)[0]
        assert int(best.case[1:]) in expected
        assert best.uncertainty == 0.9 and "more uncertain than" in best.reason


@given(st.integers(2, 25), st.integers(0, 6), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_selection_is_unique_unlabelled_and_coverage_grows(count, labelled, n, seed):
    points = np.random.default_rng(seed).normal(0, 1, (count, 5))
    labelled = min(labelled, count - 1)
    if n > count - labelled:
        with pytest.raises(BadInput, match="request fewer cases"):
            rank_cases(points, None, names(points), labelled, n)
        return
    selection = rank_cases(points, None, names(points), labelled, n)
    chosen = [int(selected.case[1:]) for selected in selection]
    assert len(set(chosen)) == n and min(chosen) >= labelled
    assert [selected.rank for selected in selection] == [*range(1, n + 1)]
    coverage = [selected.coverage for selected in selection]
    assert coverage == sorted(coverage) and 0 < coverage[-1] <= 1
    similarity = case_similarity(points)
    assert coverage[-1] == pytest.approx(similarity[:, [*range(labelled), *chosen]].max(1).mean())


def test_similarity_is_symmetric_and_scale_invariant():
    points = np.random.default_rng(0).normal(0, 1, (9, 4))
    similarity = case_similarity(points)
    assert np.allclose(similarity, similarity.T) and np.allclose(np.diag(similarity), 1)
    assert np.allclose(similarity, case_similarity(points * [1, 10, 100, 1000] + 7))


def test_similarity_is_a_gaussian_of_distances():
    points = np.random.default_rng(1).normal(0, 1, (7, 5))
    scaled = (points - points.mean(0)) / points.std(0)
    squared = np.array([[((a - b) ** 2).sum() for b in scaled] for a in scaled])
    middle = np.median(squared[~np.eye(7, dtype=bool)])
    assert np.allclose(case_similarity(points), np.exp(-squared / middle))


def test_embedding_is_mean_and_deviation_of_features():
    x = np.random.default_rng(0).random((1, 20, 8, 12)).astype(np.float32)
    encode = torch.nn.AvgPool3d(4)
    embedding = case_embedding(x, TorchNetwork(encode), (8, 8, 8))
    windows = [x[:, i : i + 8, :, k : k + 8] for i in (0, 8, 12) for k in (0, 4)]
    cells = torch.cat([encode(torch.from_numpy(window)[None]).flatten() for window in windows]).double()
    assert embedding == pytest.approx([float(cells.mean()), float(cells.std(correction=0))], abs=1e-6)
    assert len(case_embedding(x[:, :5, :5, :5], TorchNetwork(encode), (8, 8, 8))) == 2


def test_uncertainty_is_the_highest_entropy():
    x = np.zeros((1, 20, 20, 20), np.float32)
    x[0, :5, :5, :5] = 0.5
    network = TorchNetwork(lambda w: torch.cat([1 - w, w], 1))
    uncertainty = case_uncertainty(x, network, (20, 20, 20))
    assert uncertainty == pytest.approx(1.0, abs=1e-3)
    assert case_uncertainty(0 * x, network, (20, 20, 20)) < 1e-3


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_are_selected_from_each_kind_the_most_common_first(axis):
    """A volume of 12 dark, 24 bright and 12 medium slices."""
    x = np.zeros((1, 16, 16, 48), np.float32)
    x[..., :12], x[..., 12:36], x[..., 36:] = 0.1, 0.9, 0.5
    x = np.moveaxis(x, 3, 1 + axis) + np.random.default_rng(0).normal(0, 0.02, 1).astype(np.float32)
    network = TorchNetwork(torch.nn.AvgPool3d(4))
    first, second, third = select_slices(x, network, (16, 16, 16), axis, 3)
    assert first < 12 <= second < 36 <= third
    (only,) = select_slices(x, network, (16, 16, 16), axis, 1)
    assert 12 <= only < 36
    with pytest.raises(BadInput, match="49 slices were requested of a case with 48"):
        select_slices(x, network, (16, 16, 16), axis, 49)
