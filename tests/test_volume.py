"""Operations on a Volume never move anything in the patient, and its representations describe it."""

import base64
import io
import re
import subprocess
import sys
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from medssl.arrays import resampling
from medssl.volume import Volume

CODES = ["".join(p) for axes in permutations(("RL", "AP", "SI")) for p in product(*axes)]


def make_volume(shape=(7, 8, 9), spacing=(1.0, 1.5, 2.5), angle=0.0, unit="HU", seed=0) -> Volume:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [angle, angle / 2, -angle], degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = rng.normal(0, 50, 3)
    return Volume(rng.integers(-1000, 2000, shape).astype(np.int16), affine, unit)


def make_linear(shape, affine, unit="a.u.") -> Volume:
    """A linear function of patient space: linear interpolation gives it back exactly."""
    empty = Volume(np.zeros(shape, np.float32), affine, unit)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3).astype(float)
    values = empty.to_mm(index) @ np.array([0.5, -0.25, 1.0])
    return Volume(values.reshape(shape).astype(np.float32), affine, unit)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("angle", [0.0, 17.0])
def test_every_orientation_and_back_moves_no_voxel(codes, angle):
    v = make_volume(angle=angle)
    reoriented = v.reorient(codes)
    back = reoriented.reorient(v.orientation())
    assert reoriented.orientation() == codes
    assert np.array_equal(back.voxels, v.voxels)
    assert np.allclose(back.affine, v.affine, atol=1e-9)
    index = np.argwhere(reoriented.voxels == reoriented.voxels.max())[:1].astype(float)
    old = np.rint(v.to_index(reoriented.to_mm(index))).astype(int)[0]
    assert v.voxels[tuple(old)] == reoriented.voxels.max()


def test_channels_turn_with_their_volume():
    v = make_volume()
    both = Volume(np.stack([v.voxels, -v.voxels]), v.affine, "HU").reorient("PIR")
    assert np.array_equal(both.voxels[0], v.reorient("PIR").voxels)
    assert np.array_equal(both.voxels[1], -v.reorient("PIR").voxels)


@pytest.mark.parametrize("codes", ["RRA", "RA", "XYZ", "RASR"])
def test_a_wrong_orientation_is_refused(codes):
    with pytest.raises((ValueError, StopIteration)):
        make_volume().reorient(codes)


@given(
    shape=st.tuples(*[st.integers(4, 12)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 4)] * 3),
    new=st.tuples(*[st.floats(0.5, 4)] * 3),
    angle=st.floats(-40, 40),
)
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_the_centre_and_the_values_of_a_linear_field(shape, spacing, new, angle):
    v = make_volume(shape, spacing, angle)
    field = make_linear(shape, v.affine)
    out = field.resample(new, order=1)
    assert np.allclose(out.spacing_mm(), new)
    middle = (np.array([field.shape, out.shape]) - 1) / 2
    assert np.allclose(field.to_mm(middle[:1]), out.to_mm(middle[1:]), atol=1e-6)
    truth = make_linear(out.shape, out.affine)
    margin = np.ceil(np.maximum(1, np.array(spacing) / np.array(new))).astype(int) + 1
    core = tuple(slice(m, n - m) for m, n in zip(margin, out.shape, strict=True))
    assert np.allclose(out.voxels[core], truth.voxels[core], atol=1e-3)


@given(angle=st.floats(1, 40), shift=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_sampling_onto_an_oblique_grid_gives_the_field_at_its_points(angle, shift):
    a, b = make_volume((14, 15, 16)), make_volume((6, 6, 6), (1.0, 1.0, 1.0), angle)
    field = make_linear(a.shape, a.affine)
    grid_affine = b.affine.copy()
    grid_affine[:3, 3] = a.to_mm(np.array([[6.0, 6.0, 6.0]]))[0] + shift
    grid = make_linear((5, 5, 5), grid_affine)
    out = field.resample_to(grid, order=1, fill=np.nan)
    inside = np.isfinite(out.voxels)
    assert inside.any()
    assert np.allclose(out.voxels[inside], grid.voxels[inside], atol=1e-2)


def test_outside_the_field_of_view_is_filled():
    v = make_volume((4, 4, 4), (1.0, 1.0, 1.0))
    wide = Volume(np.zeros((8, 8, 8), np.int16), v.affine @ _shift(-2), "HU")
    out = v.resample_to(wide, order=1, fill=-1024.0)
    assert np.array_equal(out.voxels[2:6, 2:6, 2:6], v.voxels)
    assert (out.voxels[:2] == -1024).all() and (out.voxels[6:] == -1024).all()


def test_labels_are_never_mixed():
    label = Volume((make_volume().voxels > 0).astype(np.uint8), make_volume().affine, "label")
    with pytest.raises(ValueError, match="order=0"):
        label.resample((1.0, 1.0, 1.0), order=1)
    assert set(np.unique(label.resample((0.7, 0.9, 1.1), order=0).voxels)) <= {0, 1}


def test_downsampling_does_not_alias():
    stripes = np.tile(np.array([0, 1000], np.int16), 32)[:, None, None] * np.ones((1, 4, 4), np.int16)
    out = Volume(stripes, np.eye(4), "HU").resample((4.0, 1.0, 1.0), order=1)
    assert abs(int(out.voxels.mean()) - 500) < 10
    assert out.voxels.std() < 60


def test_a_different_grid_is_named():
    v = make_volume()
    moved = Volume(v.voxels, v.affine @ _shift(0.01), "HU")
    assert v.require_same_grid(v) is v
    with pytest.raises(ValueError, match="mm apart"):
        v.require_same_grid(moved)
    with pytest.raises(ValueError, match="shapes differ"):
        v.require_same_grid(make_volume((5, 5, 5)))


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
    transposed, contiguous = (Volume(v, np.diag([0.8, 1.0, 2.0, 1.0]), "a.u.") for v in (view, plain))
    for change in (lambda v: v.reorient("PIL"), lambda v: v.resample((1.1, 0.9, 1.7), order)):
        result, expected = change(transposed), change(contiguous)
        assert np.array_equal(result.voxels, expected.voxels) and result.voxels.flags.c_contiguous
        assert result.voxels.dtype == plain.dtype


def read_preview(volume: Volume) -> np.ndarray:
    content = re.search(r'src="data:image/png;base64,([^"]+)"', volume._repr_html_())
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content[1]))))


def test_a_volume_is_described_in_one_line():
    channels = Volume(np.zeros((2, 7, 8, 9), np.float32), np.diag([-1.0, 1.5, 2.5000001, 1]), "probability")
    assert repr(channels) == (
        "Volume(shape=(2, 7, 8, 9), spacing_mm=(1.0, 1.5, 2.5), unit='probability', orientation='LAS')"
    )


@pytest.mark.parametrize("codes", ["RAS", "PIL", "SLA"])
def test_a_notebook_shows_three_middle_planes_with_right_anterior_and_superior_at_the_left_and_top(codes):
    voxels = np.zeros((41, 41, 21), np.uint8)
    voxels[20:, 20:, 10:] = 1
    volume = Volume(voxels, np.diag([1.0, 1.0, 41 / 21, 1.0]), "label").reorient(codes)
    preview = read_preview(volume)
    assert preview.shape == (200, 608)
    for plane in (preview[:, :200], preview[:, 204:404], preview[:, 408:]):
        assert (plane[:95, :95] == 255).all() and plane[110:].max() == plane[:, 110:].max() == 0


@pytest.mark.parametrize(
    "voxels", [np.full((2, 3, 4, 5), np.nan, np.float32), np.ones((1, 1, 300), bool), np.full((3, 3, 3), 7, np.int16)]
)
def test_a_volume_without_contrast_has_a_picture_too(voxels):
    volume = Volume(voxels, np.diag([0.5, 1.0, 2.0, 1.0]), "a.u.")
    assert read_preview(volume).size and "axial, coronal and sagittal" in volume._repr_html_()


def test_a_picture_needs_no_torch():
    script = (
        "import sys, numpy, medssl.volume as v\n"
        "v.Volume(numpy.ones((3, 3, 3)), numpy.eye(4), 'HU')._repr_html_()\nprint('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill", [None, -1024.0])
def test_resampling_in_slabs_gives_the_same_bytes(order, fill, monkeypatch):
    volume = make_volume((11, 12, 40))
    change = np.diag([0.8, 1.3, -1.6, 1.0])
    change[:3, 3] = (-2, 1, 38)
    grid = Volume(np.zeros((12, 9, 31), np.int16), volume.affine @ change, "HU")
    whole = volume.resample_to(grid, order, fill)
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 500)
    assert volume.resample_to(grid, order, fill).voxels.tobytes() == whole.voxels.tobytes()
    assert len(np.unique(whole.voxels)) > 100


def test_an_orientation_without_a_copy_is_a_view():
    volume = make_volume()
    view, copied = volume.reorient("PIL", copy=False), volume.reorient("PIL")
    assert np.shares_memory(view.voxels, volume.voxels) and not np.shares_memory(copied.voxels, volume.voxels)
    assert np.array_equal(view.voxels, copied.voxels) and np.array_equal(view.affine, copied.affine)
