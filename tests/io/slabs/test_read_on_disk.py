"""Images read on disk equal those read in memory, whatever their type; damaged files are refused alike."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medssl.arrays import disk_arrays
from medssl.arrays.disk_arrays import is_on_disk
from medssl.errors import BadInput, InputWarning
from medssl.io import images
from medssl.io.slabs import nifti_slices
from medssl.io.slabs.read_on_disk import read_on_disk


@pytest.fixture(autouse=True)
def _store_small_arrays(monkeypatch):
    monkeypatch.setattr(disk_arrays, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(disk_arrays, "SLAB_BYTES", 500)
    monkeypatch.setattr(nifti_slices, "BLOCK_BYTES", 300)


def write_image(path, voxels, slope=1.0, intercept=0.0, byte_order="<"):
    header = nibabel.Nifti1Header(endianness=byte_order)
    header.set_data_dtype(voxels.dtype)
    image = nibabel.Nifti1Image(voxels, np.diag([0.7, 0.8, 2.5, 1.0]), header)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
@pytest.mark.parametrize("scale", [(1.0, 0.0), (2.0, -1024.0), (0.37, 5.5)])
def test_voxels_equal_those_in_memory(tmp_path, dtype, scale):
    voxels = np.random.default_rng(0).integers(0, 120, (6, 5, 9)).astype(dtype)
    path = write_image(tmp_path / "ct.nii.gz", voxels, *scale)
    expected, found = images.read(path), read_on_disk(path)
    assert is_on_disk(found.voxels)
    assert found.voxels.dtype == expected.voxels.dtype
    assert np.array_equal(found.voxels, expected.voxels)
    assert np.array_equal(found.affine, expected.affine)


def test_big_endian_fractions_and_other_formats(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(6, 5, 9))
    path = write_image(tmp_path / "ct.nii", voxels.astype(">f8"), byte_order=">")
    found = read_on_disk(path)
    assert found.voxels.dtype == np.float32
    assert np.array_equal(found.voxels, images.read(path).voxels)
    image = sitk.GetImageFromArray(voxels.astype(np.float32))
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    assert is_on_disk(read_on_disk(tmp_path / "ct.mha").voxels)
    assert np.array_equal(read_on_disk(tmp_path / "ct.mha").voxels, images.read(tmp_path / "ct.mha").voxels)


def test_values_that_are_no_numbers_become_the_lowest(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(6, 5, 9)).astype(np.float32)
    voxels[1, 2, 3], voxels[5, 4, 8] = np.nan, np.inf
    path = write_image(tmp_path / "ct.nii.gz", voxels)
    with pytest.warns(InputWarning, match="2 voxels are no finite numbers"):
        found = read_on_disk(path)
    assert found.voxels[1, 2, 3] == found.voxels[5, 4, 8] == np.nanmin(voxels)


@pytest.mark.parametrize("content", [lambda b: b[:-10], lambda b: b + b"0", lambda b: b[:100]])
def test_damaged_files_are_refused(tmp_path, content):
    path = write_image(tmp_path / "ct.nii.gz", np.zeros((6, 5, 9), np.int16))
    path.write_bytes(gzip.compress(content(gzip.decompress(path.read_bytes()))))
    with pytest.raises(BadInput):
        images.read(path)
    with pytest.raises(BadInput):
        read_on_disk(path)
