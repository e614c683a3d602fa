"""Arrays on disk hold the values of arrays in memory, in any order of axes, and their pages can be released."""

import errno
import os
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from medssl.arrays import disk_arrays
from medssl.arrays.disk_arrays import (
    allocate_like,
    create_disk_array,
    is_on_disk,
    iterate_slabs,
    release_pages,
    store_on_disk,
    transform_slabs,
)
from medssl.errors import BadInput


@pytest.fixture(autouse=True)
def _store_small_arrays(monkeypatch):
    monkeypatch.setattr(disk_arrays, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(disk_arrays, "SLAB_BYTES", 1000)


def read_mapped_mb():
    """Returns how many MB of mapped files this process has in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return (kb["Rss"] - kb["Anonymous"]) / 1000


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flip", [False, True])
def test_values_and_order_of_axes_are_kept(order, flip):
    voxels = np.random.default_rng(0).integers(-9, 9, (7, 11, 13)).astype(np.int16).transpose(order)
    voxels = voxels[:, ::-1] if flip else voxels
    stored = store_on_disk(voxels)
    assert is_on_disk(stored)
    assert np.array_equal(stored, voxels)
    assert np.array_equal(np.argsort(stored.strides), np.argsort(np.abs(voxels.strides)))
    covered = np.zeros(voxels.shape, int)
    for index in iterate_slabs(stored):
        covered[index] += 1
    assert (covered == 1).all()
    doubled = transform_slabs(lambda slab: slab * 2, stored, allocate_like(stored, voxels.shape, np.int32))
    assert is_on_disk(doubled)
    assert np.array_equal(doubled, voxels * 2)
    assert np.array_equal(np.argsort(doubled.strides), np.argsort(stored.strides))


def test_arrays_in_memory_stay_there():
    voxels = np.zeros((3, 4, 5))
    assert not is_on_disk(allocate_like(voxels, (3, 4, 5), np.float32))
    release_pages(voxels)


def test_pages_are_released():
    before = read_mapped_mb()
    voxels = create_disk_array((32, 1000, 1000), np.uint8)
    for plane in voxels:
        plane[:] = 7
    assert read_mapped_mb() - before > 30
    release_pages(voxels[3:].T)
    assert read_mapped_mb() - before < 2
    assert (voxels[::9, ::99] == 7).all()


def test_a_full_disk_is_named_before_anything_is_written(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(BadInput, match=r"no space for a temporary file of 7 MiB \(No space left on device\)"):
        create_disk_array((2, 4_000_000), np.uint8)
    assert not list(tmp_path.iterdir())
