"""A slab file holds the voxels of its image as the viewer shows them, and what is damaged is refused."""

import nibabel
import numpy as np
import pytest

from medssl.errors import BadInput, InputWarning
from medssl.io import nifti
from medssl.io.slabs import slab_file
from medssl.io.slabs.from_nifti import convert, name_slab_file, open_current
from medssl.io.slabs.slab_file import SlabFile
from medssl.viewer import wire
from medssl.volume import Volume


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    monkeypatch.setattr(slab_file, "SLAB_BYTES", 200)


def make_volume(dtype, codes="RAS", low=-900, high=900):
    voxels = np.random.default_rng(3).integers(low, high, (5, 7, 11)).astype(dtype)
    return Volume(voxels, np.diag([0.7, 0.8, 2.5, 1.0]), "a.u.").reorient(codes)


def write(volume, tmp_path):
    nifti.write(volume, tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "IAR"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_slabs_hold_what_the_viewer_gets_of_the_whole_volume(tmp_path, codes, dtype):
    volume = make_volume(dtype, codes, 0 if dtype is np.uint8 else -900, 200)
    if dtype is np.float32:
        volume.voxels[0, 0, 0] += 0.5
    image = write(volume, tmp_path)
    slabs = convert(image, name_slab_file(image), "a.u.")
    header, data = wire.encode(volume)
    assert len(slabs.table.ranges) > 2
    assert slabs.read_planes(0, 11).tobytes(order="F") == data
    described = wire.describe_slabs(slabs, "a.u.")
    rounded = {"affine", "spacing_mm", "windows"}
    assert {key: described[key] for key in header.keys() - rounded} == {
        key: header[key] for key in header.keys() - rounded
    }
    np.testing.assert_allclose(described["affine"], header["affine"], atol=1e-5)


@pytest.mark.parametrize("planes", [(0, 1), (1, 4), (3, 11), (0, 11)])
def test_planes_come_from_several_slabs(tmp_path, planes):
    volume = make_volume(np.int16)
    image = write(volume, tmp_path)
    slabs = convert(image, name_slab_file(image), "a.u.")
    assert (slabs.read_planes(*planes) == volume.voxels[..., slice(*planes)]).all()
    unpacked = np.frombuffer(slab_file.igzip.decompress(slabs.read_packed(*planes)), "<i2")
    assert (unpacked == volume.voxels[..., slice(*planes)].ravel(order="F")).all()


def test_a_scale_factor_is_applied_and_missing_values_become_the_smallest(tmp_path):
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    voxels[0, 0, 0] = np.nan
    voxels[1, 2, 3] = np.inf
    image = nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1]))
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(2, 10)
    nibabel.save(image, tmp_path / "image.nii.gz")
    slabs = convert(tmp_path / "image.nii.gz", tmp_path / "image.slabs", "a.u.")
    with pytest.warns(InputWarning, match="no finite numbers"):
        expected = nifti.read(tmp_path / "image.nii.gz").reorient("RAS").voxels
    np.testing.assert_allclose(slabs.table.values.decode(slabs.read_planes(0, 4)), expected, atol=0.01)


def test_only_the_slab_that_is_read_is_unpacked(tmp_path, monkeypatch):
    image = write(make_volume(np.int16), tmp_path)
    slabs = convert(image, name_slab_file(image), "a.u.")
    sizes = []
    unpack = slabs._unpack
    monkeypatch.setattr(slabs, "_unpack", lambda *args: sizes.append(args[2]) or unpack(*args))
    slabs.read_planes(4, 5)
    assert sizes == [2 * 5 * 7 * 2]  # two planes


@pytest.mark.parametrize("change", [lambda b: b[:-1] + b"x", lambda b: b[: len(b) // 2], lambda b: b""])
def test_a_damaged_file_is_refused_and_not_current(tmp_path, change):
    image = write(make_volume(np.int16), tmp_path)
    path = convert(image, name_slab_file(image), "a.u.").path
    assert open_current(image, path) is not None
    path.write_bytes(change(path.read_bytes()))
    assert open_current(image, path) is None
    with pytest.raises(BadInput, match="damaged"):
        SlabFile(path)


def test_a_slab_that_unpacks_to_more_than_its_planes_is_refused(tmp_path):
    image = write(make_volume(np.int16), tmp_path)
    slabs = convert(image, name_slab_file(image), "a.u.")
    size = slabs.table.sizes[0]
    bomb = slab_file.igzip.compress(bytes(10_000), 1)[:size].ljust(size, b"\0")
    slabs.path.write_bytes(bomb + slabs.path.read_bytes()[size:])
    with pytest.raises(BadInput, match=r"another size|damaged"):
        SlabFile(slabs.path).read_planes(0, 1)


def test_a_slab_file_of_another_image_is_not_current(tmp_path):
    image = write(make_volume(np.int16), tmp_path)
    path = convert(image, name_slab_file(image), "a.u.").path
    write(make_volume(np.int16, low=-5, high=5), tmp_path)
    assert open_current(image, path) is None


@pytest.mark.parametrize("num_bytes", [-100, 100])
def test_a_file_of_another_length_than_its_header_states_is_refused(tmp_path, num_bytes):
    image = write(make_volume(np.int16), tmp_path)
    content = slab_file.igzip.decompress(image.read_bytes())
    content = content[:num_bytes] if num_bytes < 0 else content + bytes(num_bytes)
    image.write_bytes(slab_file.igzip.compress(content))
    with pytest.raises(BadInput, match=r"truncated|longer"):
        convert(image, name_slab_file(image), "a.u.")
    assert [path.name for path in tmp_path.iterdir()] == ["image.nii.gz"]


@pytest.mark.parametrize("voxels", [np.full((2, 2, 2), -1, np.int16), np.full((2, 2, 2), 0.5, np.float32)])
def test_labels_are_whole_numbers_from_0(tmp_path, voxels):
    image = write(Volume(voxels, np.eye(4), "a.u."), tmp_path)
    with pytest.raises(BadInput, match="whole numbers from 0"):
        convert(image, name_slab_file(image), "label")


def test_an_empty_mask_that_packs_a_thousand_times_is_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(slab_file, "SLAB_BYTES", 1 << 22)
    image = write(Volume(np.zeros((400, 400, 500), np.uint8), np.eye(4), "label"), tmp_path)
    assert image.stat().st_size * 200 < 400 * 400 * 500
    assert not convert(image, name_slab_file(image), "label").read_planes(0, 1).any()
