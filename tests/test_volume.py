"""Geometry: what is done to a Volume never moves anything in the patient."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medssl.volume import Volume

CODES = ["".join(p) for axes in permutations(("RL", "AP", "SI")) for p in product(*axes)]


def volume(shape=(7, 8, 9), spacing=(1.0, 1.5, 2.5), angle=0.0, unit="HU", seed=0) -> Volume:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [angle, angle / 2, -angle], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = rng.normal(0, 50, 3)
    return Volume(rng.integers(-1000, 2000, shape).astype(np.int16), affine, unit)


def smooth(shape, affine, unit="a.u.") -> Volume:
    """A linear function of patient space: linear interpolation gives it back exactly."""
    empty = Volume(np.zeros(shape, np.float32), affine, unit)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3).astype(float)
    values = empty.to_mm(index) @ np.array([0.5, -0.25, 1.0])
    return Volume(values.reshape(shape).astype(np.float32), affine, unit)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("angle", [0.0, 17.0])
def test_every_orientation_and_back_moves_no_voxel(codes, angle):
    v = volume(angle=angle)
    turned = v.oriented(codes)
    back = turned.oriented(v.orientation())
    assert turned.orientation() == codes
    assert np.array_equal(back.voxels, v.voxels)
    assert np.allclose(back.affine, v.affine, atol=1e-9)
    index = np.argwhere(turned.voxels == turned.voxels.max())[:1].astype(float)
    old = np.rint(v.to_index(turned.to_mm(index))).astype(int)[0]
    assert v.voxels[tuple(old)] == turned.voxels.max()


def test_channels_turn_with_their_volume():
    v = volume()
    both = Volume(np.stack([v.voxels, -v.voxels]), v.affine, "HU").oriented("PIR")
    assert np.array_equal(both.voxels[0], v.oriented("PIR").voxels)
    assert np.array_equal(both.voxels[1], -v.oriented("PIR").voxels)


@pytest.mark.parametrize("codes", ["RRA", "RA", "XYZ", "RASR"])
def test_a_wrong_orientation_is_refused(codes):
    with pytest.raises((ValueError, StopIteration)):
        volume().oriented(codes)


@given(
    shape=st.tuples(*[st.integers(4, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 4)] * 3),
    new=st.tuples(*[st.floats(0.5, 4)] * 3),
    angle=st.floats(-40, 40),
)
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_the_centre_and_the_values_of_a_linear_field(shape, spacing, new, angle):
    v = volume(shape, spacing, angle)
    field = smooth(shape, v.affine)
    out = field.resample(new, order=1)
    assert np.allclose(out.spacing_mm(), new)
    middle = (np.array([field.shape, out.shape]) - 1) / 2
    assert np.allclose(field.to_mm(middle[:1]), out.to_mm(middle[1:]), atol=1e-6)
    truth = smooth(out.shape, out.affine)
    margin = np.ceil(np.maximum(1, np.array(spacing) / np.array(new))).astype(int) + 1
    core = tuple(slice(m, n - m) for m, n in zip(margin, out.shape, strict=True))
    assert np.allclose(out.voxels[core], truth.voxels[core], atol=1e-3)


@given(angle=st.floats(1, 40), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_sampling_onto_an_oblique_grid_gives_the_field_at_its_points(angle, shift):
    a, b = volume((14, 15, 16)), volume((6, 6, 6), (1.0, 1.0, 1.0), angle)
    field = smooth(a.shape, a.affine)
    grid_affine = b.affine.copy()
    grid_affine[:3, 3] = a.to_mm(np.array([[6.0, 6.0, 6.0]]))[0] + shift
    grid = smooth((5, 5, 5), grid_affine)
    out = field.resample_to(grid, order=1, fill=np.nan)
    inside = np.isfinite(out.voxels)
    assert inside.any()
    assert np.allclose(out.voxels[inside], grid.voxels[inside], atol=1e-2)


def test_outside_the_field_of_view_is_filled():
    v = volume((4, 4, 4), (1.0, 1.0, 1.0))
    wide = Volume(np.zeros((8, 8, 8), np.int16), v.affine @ _shift(-2), "HU")
    out = v.resample_to(wide, order=1, fill=-1024.0)
    assert np.array_equal(out.voxels[2:6, 2:6, 2:6], v.voxels)
    assert (out.voxels[:2] == -1024).all() and (out.voxels[6:] == -1024).all()


def test_labels_are_never_mixed():
    label = Volume((volume().voxels > 0).astype(np.uint8), volume().affine, "label")
    with pytest.raises(ValueError, match="order=0"):
        label.resample((1.0, 1.0, 1.0), order=1)
    assert set(np.unique(label.resample((0.7, 0.9, 1.1), order=0).voxels)) <= {0, 1}


def test_downsampling_does_not_alias():
    stripes = np.tile(np.array([0, 1000], np.int16), 32)[:, None, None] * np.ones((1, 4, 4), np.int16)
    out = Volume(stripes, np.eye(4), "HU").resample((4.0, 1.0, 1.0), order=1)
    assert abs(int(out.voxels.mean()) - 500) < 10
    assert out.voxels.std() < 60


def test_like_names_the_difference():
    v = volume()
    moved = Volume(v.voxels, v.affine @ _shift(0.01), "HU")
    assert v.require_same_grid(v) is v
    with pytest.raises(ValueError, match="mm apart"):
        v.require_same_grid(moved)
    with pytest.raises(ValueError, match="shapes differ"):
        v.require_same_grid(volume((5, 5, 5)))


@pytest.mark.parametrize("broken", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([1.0, 1, 0, 1])])
def test_an_impossible_affine_is_refused(broken):
    with pytest.raises(ValueError, match="affine"):
        Volume(np.zeros((3, 3, 3)), broken.astype(float), "HU")


def _shift(by: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = by
    return affine


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from((1, -1))] * 3), st.sampled_from((0, 1)))
def test_how_voxels_lie_in_memory_changes_nothing(axes, steps, order):
    plain = np.random.default_rng(0).integers(0, 900, (18, 35, 21)).astype(np.int16)
    back = [axes.index(axis) for axis in range(3)]
    stored = np.ascontiguousarray(plain.transpose(axes)[tuple(slice(None, None, s) for s in steps)])
    view = stored[tuple(slice(None, None, s) for s in steps)].transpose(back)
    odd, even = (Volume(v, np.diag([0.8, 1.0, 2.0, 1.0]), "a.u.") for v in (view, plain))
    for change in (lambda v: v.oriented("PIL"), lambda v: v.resample((1.1, 0.9, 1.7), order)):
        one, other = change(odd), change(even)
        assert np.array_equal(one.voxels, other.voxels) and one.voxels.flags.c_contiguous
        assert one.voxels.dtype == plain.dtype
