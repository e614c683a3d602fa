"""Stored volumes are read back exactly, in whole or in part; truncated files are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data import store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.volume import Volume

AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, 7], [0, 0, 3, 1], [0, 0, 0, 1.0]])
SHAPE = (70, 40, 33)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    """A two-channel volume that spans several chunks, and its open file."""
    voxels = np.random.default_rng(0).integers(-1000, 1000, (2, *SHAPE)).astype(np.int16)
    path = tmp_path_factory.mktemp("store") / "a.b2nd"
    store.write(path, Volume(voxels, AFFINE, "HU"), {"source": "a"})
    return voxels, store.read(path)


def test_voxels_affine_and_unit_are_read_back(ct):
    voxels, stored = ct
    volume = stored.volume()
    assert np.array_equal(volume.voxels, voxels) and np.array_equal(volume.affine, AFFINE) and volume.unit == "HU"


@settings(max_examples=60, deadline=None)
@given(corner=st.tuples(*[st.integers(-50, 80)] * 3), size=st.tuples(*[st.integers(1, 50)] * 3))
def test_any_crop_equals_a_slice_of_the_padded_volume(ct, corner, size):
    voxels, stored = ct
    padded = np.pad(voxels, [(0, 0)] + [(100, 100)] * 3, constant_values=-1024)
    slices = tuple(slice(c + 100, c + 100 + s) for c, s in zip(corner, size, strict=True))
    assert np.array_equal(stored.crop(corner, size), padded[(slice(None), *slices)])


def test_sample_points_lie_on_their_class(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 5:9, 3:30], label[40:42, 20, 20] = 1, 3
    store.write(tmp_path / "l.b2nd", Volume(label, AFFINE, "label"), {})
    points = store.read(tmp_path / "l.b2nd").sample_points
    assert set(points) == {"1", "3"}
    for name, voxels in points.items():
        assert (label[tuple(voxels.T)] == int(name)).all()
    assert len(points["3"]) == 2


def test_sample_points_of_a_large_class_are_few_and_spread_evenly(tmp_path):
    store.write(tmp_path / "l.b2nd", Volume(np.ones(SHAPE, np.uint8), AFFINE, "label"), {})
    points = store.read(tmp_path / "l.b2nd").sample_points["1"]
    assert len(points) == store.MAX_SAMPLE_POINTS
    assert np.abs(points.mean(0) - (np.array(SHAPE) - 1) / 2).max() < 1


def test_the_hash_depends_on_voxels_and_affine_but_not_on_the_memory_layout():
    voxels = np.random.default_rng(0).integers(0, 9, (6, 5, 4)).astype(np.int16)
    original = store.content_sha256(Volume(voxels, AFFINE, "HU"))
    assert original == store.content_sha256(Volume(np.asfortranarray(voxels), AFFINE, "HU"))
    changed = voxels.copy()
    changed[0, 0, 0] += 1
    assert original != store.content_sha256(Volume(changed, AFFINE, "HU"))
    assert original != store.content_sha256(Volume(voxels, AFFINE + np.eye(4)[3] * [[1], [0], [0], [0]], "HU"))


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.b2nd"
    store.write(path, Volume(np.ones(SHAPE, np.int16), AFFINE, "HU"), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"a\.b2nd"):
        store.read(path)


def test_a_folder_without_store_json_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"store\.json"):
        StoreMetadata.read(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(BadInput, match="JSON"):
        StoreMetadata.read(tmp_path)
