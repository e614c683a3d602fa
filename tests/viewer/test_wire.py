"""What the browser gets is what was stored."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medssl.errors import BadInput
from medssl.viewer import wire
from medssl.volume import Volume

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=5)


def volume(voxels, unit="HU", codes="RAS"):
    return Volume(np.asarray(voxels), np.diag([0.7, 0.8, 2.5, 1.0]), unit).reorient(codes)


@given(arrays(np.int16, SHAPES), st.sampled_from(["RAS", "LPS", "SPL", "IAR"]))
def test_hounsfield_units_come_back_exactly_as_ras(voxels, codes):
    header, data = wire.encode(volume(voxels, codes=codes))
    back = wire.decode(header, data)
    np.testing.assert_array_equal(back.voxels, voxels)
    np.testing.assert_allclose(back.affine, np.diag([0.7, 0.8, 2.5, 1.0]), atol=1e-12)
    assert header["exact"] and header["shape"] == list(voxels.shape)


@given(arrays(np.float32, SHAPES, elements=st.floats(-1e4, 1e6, width=32)))
def test_real_values_come_back_to_half_a_step(voxels):
    header, data = wire.encode(volume(voxels, "a.u."))
    assert np.abs(wire.decode(header, data).voxels - voxels).max() <= header["slope"] * 0.51 + 1e-2
    assert header["exact"] == bool((voxels == np.rint(voxels)).all() and np.abs(voxels).max() <= 32767)


def test_the_first_axis_runs_fastest():
    voxels = np.zeros((3, 4, 5), np.int16)
    voxels[1, 2, 3] = 7
    header, data = wire.encode(volume(voxels))
    assert np.frombuffer(data, "<i2")[1 + 3 * (2 + 4 * 3)] == 7
    assert header["dtype"] == "int16"


def test_slabs_join_to_the_whole():
    voxels = np.random.default_rng(1).integers(-1000, 1000, (300, 200, 90), np.int16)
    header, data = wire.encode(volume(voxels))
    ranges = wire.list_slabs(header)
    assert len(ranges) > 1 and ranges[0][0] == 0 and ranges[-1][1] == 90
    assert b"".join(gzip.decompress(wire.compress_slab(header, data, a, b)) for a, b in ranges) == data


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 6), (3, 3), (4, 2)])
def test_planes_that_are_not_there_are_refused(start, stop):
    header, data = wire.encode(volume(np.zeros((2, 2, 5), np.int16)))
    with pytest.raises(BadInput, match="planes 0 to 5"):
        wire.compress_slab(header, data, start, stop)


def test_probabilities_keep_a_255th_and_labels_their_names():
    header, data = wire.encode(volume(np.linspace(0, 1, 27).reshape(3, 3, 3), "probability"))
    assert header["dtype"] == "uint8"
    assert np.abs(wire.decode(header, data).voxels.ravel() - np.linspace(0, 1, 27)).max() < 0.5 / 255 + 1e-6
    labels = np.arange(27, dtype=np.int32).reshape(3, 3, 3)
    assert (wire.decode(*wire.encode(volume(labels, "label"))).voxels == labels).all()


@pytest.mark.parametrize("bad", [np.full((2, 2, 2), np.nan), np.zeros((2, 2, 2, 2))])
def test_what_cannot_be_shown_is_refused(bad):
    with pytest.raises(BadInput):
        wire.encode(Volume(bad, np.eye(4), "a.u."))
    with pytest.raises(BadInput, match="number them from 1"):
        wire.encode(Volume(np.full((2, 2, 2), 70_000), np.eye(4), "label"))


def test_a_tilted_scan_is_marked():
    turn = np.array([[0.94, -0.342, 0, 0], [0.342, 0.94, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    header, _ = wire.encode(Volume(np.zeros((4, 4, 4), np.int16), turn, "HU"))
    assert 19 < header["oblique_degrees"] < 21
    assert header["letters"]["axial"] == ["RA", "LP", "AL", "PR"]
    assert wire.encode(volume(np.zeros((4, 4, 4), np.int16)))[0]["oblique_degrees"] == 0
