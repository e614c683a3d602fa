"""Regions that are numbered slab by slab are those of the whole array."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl.arrays import disk_arrays
from medssl.arrays.region_labels import label_regions
from medssl.volume import NEIGHBOURS_26


def compare_with_whole(array):
    numbers, regions = label_regions(array, lambda slab: slab > 0)
    whole, count = ndimage.label(array > 0, NEIGHBOURS_26)
    assert len(regions) == count
    values = set()
    for region in regions:
        mask = np.isin(numbers, region.parts)
        (value,) = np.unique(whole[mask])
        assert np.array_equal(mask, whole == value)
        assert region.box == ndimage.find_objects(whole)[value - 1]
        values.add(int(value))
    assert values == set(range(1, count + 1)) and np.array_equal(numbers > 0, array > 0)


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.15, 0.3]), st.permutations([0, 1, 2]), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_regions_are_those_of_the_whole_array(seed, density, order, rows):
    array = (np.random.default_rng(seed).random((7, 9, 11)) < density).astype(np.float32).transpose(order)
    row_bytes = array.nbytes // array.shape[disk_arrays.find_slowest_axis(array)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_arrays, "SLAB_BYTES", rows * row_bytes)
        compare_with_whole(array)


def test_a_region_whose_ends_meet_in_the_last_slab_is_one(monkeypatch):
    array = np.zeros((12, 5, 5), np.float32)
    array[:, 0, 0] = array[:, 4, 4] = array[11, 0, :] = array[11, :, 4] = 1
    monkeypatch.setattr(disk_arrays, "SLAB_BYTES", array[0].nbytes)
    _, regions = label_regions(array, lambda slab: slab > 0)
    assert len(regions) == 1 and len(regions[0].parts) == 23
    compare_with_whole(array)


def test_an_empty_array_has_no_region():
    numbers, regions = label_regions(np.zeros((3, 4, 5), np.float32), lambda slab: slab > 0)
    assert not numbers.any() and regions == []
