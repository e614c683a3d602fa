"""Structures do not depend on the blocks they arrive in, and equal the connected components of the whole volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.arrays import disk_arrays
from medssl.arrays.disk_arrays import is_on_disk
from medssl.inference.connected_findings import label_components
from medssl.inference.findings import run_store
from medssl.inference.findings.collect import ComponentCollector
from medssl.inference.findings.runs import find_runs
from medssl.volume import NEIGHBOURS_26


def make_maps(seed, shape, num_labels, density):
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, num_labels + 1, shape) * (rng.random(shape) < density)
    return labels.astype(np.uint8), *rng.random((2, *shape)), rng.integers(-1000, 1000, shape).astype(np.int16)


def collect(maps, heights, organs=()):
    collector = ComponentCollector(organs)
    first = 0
    while first < maps[0].shape[2]:
        height = heights[first % len(heights)]
        collector.add(*_cut(maps[:1], first, height), first, *_cut(maps[1:], first, height))
        first += height
    return collector.merge()


def _cut(maps, first, height):
    return [voxels[:, :, first : first + height].T for voxels in maps]


@settings(max_examples=20)
@given(
    st.integers(0, 10_000), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 3), st.sampled_from([0.05, 0.2, 0.4]),
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
)  # fmt: skip
def test_blocks_do_not_matter(seed, shape, num_labels, density, heights):
    maps = make_maps(seed, shape, num_labels, density)
    labels, confidence, uncertainty, image = maps
    structures = collect(maps, heights)
    for label in range(1, num_labels + 1):
        numbers = label_components(labels == label)
        order = structures.order(label, 0)
        assert len(order) == numbers.max()
        for rank, number in enumerate(order, 1):
            inside = numbers == rank
            runs = structures.runs.select(number)
            low, high = np.zeros(3, int), np.array(shape)
            assert np.array_equal(runs.draw(low, high).T, inside)
            found = structures.summarize(number)
            assert found.peak == confidence[inside].max()
            assert found.uncertainty == pytest.approx(uncertainty[inside].mean())
            assert found.mean == pytest.approx(image[inside].mean(), abs=1e-9)
            assert found.sd == pytest.approx(image[inside].std(), abs=1e-5)


def test_an_organ_is_one_structure():
    maps = make_maps(1, (9, 8, 7), 2, 0.1)
    structures = collect(maps, [2], organs={2})
    (organ,) = structures.order(2, 0)
    assert structures.sums[organ, 0] == (maps[0] == 2).sum()
    assert len(structures.order(1, 0)) == ndimage.label(maps[0] == 1, NEIGHBOURS_26)[1]


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2))
def test_runs_draw_their_voxels_and_turn(seed, shape, axis):
    labels = make_maps(seed, shape, 1, 0.4)[0]
    runs = find_runs(labels.T, np.array([3, 2, 1]))
    low = np.array([3, 2, 1])
    assert np.array_equal(runs.draw(low, low + shape).T, labels > 0)
    if len(runs):
        turned = runs.swap_slices(axis)
        counts = np.bincount((np.argwhere(labels) + low)[:, axis])
        assert np.array_equal(np.bincount(turned.slice, turned.lengths), counts)
        assert turned.lengths.sum() == (labels > 0).sum()


def test_nothing_has_no_structure():
    assert collect(make_maps(0, (4, 4, 4), 1, 0.0), [2]).order(1, 0) == []


def test_many_runs_lie_on_disk(monkeypatch):
    maps = make_maps(0, (30, 20, 12), 3, 0.4)
    expected = collect(maps, [5, 7])
    monkeypatch.setattr(disk_arrays, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(run_store, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(run_store, "RUNS_PER_PART", 100)
    found = collect(maps, [5, 7])
    assert is_on_disk(found.runs.columns)
    assert not is_on_disk(expected.runs.columns)
    np.testing.assert_array_equal(found.runs.columns, expected.runs.columns)
    np.testing.assert_array_equal(found.runs.corners, expected.runs.corners)
