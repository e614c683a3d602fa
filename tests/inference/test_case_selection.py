"""Cases to annotate next: those that stand for many, in doubt if a network is, and none twice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.inference.case_selection import doubted, embedded, similarity, suggest


def clusters(sizes, seed=0, spread=0.1):
    """Points about far-off centres, a cluster after the other."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 10, (len(sizes), 6))
    return np.concatenate([c + rng.normal(0, spread, (n, 6)) for c, n in zip(centres, sizes, strict=True)])


def names(points):
    return [f"c{n}" for n in range(len(points))]


def test_every_cluster_is_shown_before_any_is_shown_twice_and_the_largest_first():
    points = clusters([4, 12, 7])
    of = np.repeat([0, 1, 2], [4, 12, 7])
    told = suggest(points, None, names(points), 0, 3)
    assert [int(of[int(one.case[1:])]) for one in told] == [1, 2, 0]


def test_a_cluster_that_is_labelled_already_is_left_for_last():
    points = clusters([5, 5])
    told = suggest(points, None, names(points), 1, 1)
    assert int(told[0].case[1:]) >= 5


def test_a_lone_odd_case_is_not_preferred_to_a_typical_one():
    points = np.concatenate([clusters([20], spread=1.0), np.full((1, 6), 300.0)])
    assert suggest(points, None, names(points), 0, 1)[0].case != "c20"


def test_where_the_network_doubts_more_is_asked():
    points = clusters([8, 8])
    for doubtful, expected in ((slice(0, 8), range(8)), (slice(8, 16), range(8, 16))):
        doubt = np.full(16, 0.1)
        doubt[doubtful] = 0.9
        one = suggest(points, doubt, names(points), 0, 1)[0]
        assert int(one.case[1:]) in expected
        assert one.doubt == 0.9 and "in doubt" in one.reason


@given(st.integers(2, 25), st.integers(0, 6), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_case_twice_none_that_is_labelled_and_coverage_only_grows(count, labelled, n, seed):
    points = np.random.default_rng(seed).normal(0, 1, (count, 5))
    labelled = min(labelled, count - 1)
    if n > count - labelled:
        with pytest.raises(BadInput, match="lower --n"):
            suggest(points, None, names(points), labelled, n)
        return
    told = suggest(points, None, names(points), labelled, n)
    chosen = [int(one.case[1:]) for one in told]
    assert len(set(chosen)) == n and min(chosen) >= labelled
    assert [one.rank for one in told] == [*range(1, n + 1)]
    covered = [one.coverage for one in told]
    assert covered == sorted(covered) and 0 < covered[-1] <= 1
    alike = similarity(points)
    assert covered[-1] == pytest.approx(alike[:, [*range(labelled), *chosen]].max(1).mean())


def test_alike_is_symmetric_one_for_itself_and_the_same_on_any_scale():
    points = np.random.default_rng(0).normal(0, 1, (9, 4))
    alike = similarity(points)
    assert np.allclose(alike, alike.T) and np.allclose(np.diag(alike), 1)
    assert np.allclose(alike, similarity(points * [1, 10, 100, 1000] + 7))


def test_alike_is_the_bell_of_the_distances_between_pairs():
    points = np.random.default_rng(1).normal(0, 1, (7, 5))
    scaled = (points - points.mean(0)) / points.std(0)
    squared = np.array([[((a - b) ** 2).sum() for b in scaled] for a in scaled])
    middle = np.median(squared[~np.eye(7, dtype=bool)])
    assert np.allclose(similarity(points), np.exp(-squared / middle))


def test_a_case_is_the_mean_and_spread_of_its_cells_at_any_size():
    x = np.random.default_rng(0).random((1, 20, 8, 12)).astype(np.float32)
    encode = torch.nn.AvgPool3d(4)
    told = embedded(x, encode, (8, 8, 8))
    cut = [x[:, i : i + 8, :, k : k + 8] for i in (0, 8, 12) for k in (0, 4)]
    cells = torch.cat([encode(torch.from_numpy(part)[None]).flatten() for part in cut]).double()
    assert told == pytest.approx([float(cells.mean()), float(cells.std(correction=0))], abs=1e-6)
    assert len(embedded(x[:, :5, :5, :5], encode, (8, 8, 8))) == 2


def test_doubt_is_the_entropy_where_it_is_highest():
    x = np.zeros((1, 20, 20, 20), np.float32)
    x[0, :5, :5, :5] = 0.5
    told = doubted(x, lambda w: torch.cat([1 - w, w], 1), (20, 20, 20))
    assert told == pytest.approx(1.0, abs=1e-3)
    assert doubted(0 * x, lambda w: torch.cat([1 - w, w], 1), (20, 20, 20)) < 1e-3
