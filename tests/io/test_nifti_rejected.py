"""Unusual and broken NIfTI files are read with the right voxels in the right place, or rejected by name."""

import gzip
import struct
import warnings

import nibabel
import numpy as np
import pytest

from medssl.errors import BadInput, InputWarning
from medssl.io import nifti
from tests.helpers.resource_limits import limit_resources

# A reader that hangs on a broken file fails by this timeout; `limit_resources` limits CPU time and memory.
pytestmark = pytest.mark.timeout(20)

AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])
VOXELS = (np.arange(4 * 5 * 6).reshape(4, 5, 6) * 37 - 500).astype(np.int16)
OFFSETS = {"dim": 40, "datatype": 70, "bitpix": 72, "pixdim": 76, "vox_offset": 108, "slope": 112, "inter": 116,
           "units": 123, "qform": 252, "sform": 254, "quatern": 256, "srow": 280, "magic": 344}  # fmt: skip


def nifti_bytes(voxels=VOXELS, affine=AFFINE, kind=nibabel.Nifti1Image, units="mm"):
    image = kind(voxels, None)
    image.header.set_xyzt_units(units)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image.to_bytes()


def patch_header(**fields):
    """The file with some header bytes replaced: name=(format, values...)."""
    content = bytearray(nifti_bytes())
    for name, (form, *values) in fields.items():
        struct.pack_into("<" + form, content, OFFSETS[name], *values)
    return bytes(content)


def without_codes():
    return patch_header(qform=("hh", 0, 0))


def gzip_with_wrong_checksum():
    content = bytearray(gzip.compress(nifti_bytes()))
    content[-8] ^= 1
    return bytes(content)


REFUSED = {
    "a web page": (b"<!DOCTYPE html>" + bytes(600), "not a NIfTI file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "not a NIfTI file"),
    "nothing": (b"", "empty; copy the file again"),
    "cut in the header": (nifti_bytes()[:200], "not a NIfTI file"),
    "cut in the voxels": (nifti_bytes()[:-1], "truncated"),
    "a gzip cut": (gzip.compress(nifti_bytes())[:-40], "truncated or damaged"),
    "a gzip cut in its checksum": (gzip.compress(nifti_bytes())[:-4], "truncated or damaged"),
    "a gzip with a wrong checksum": (gzip_with_wrong_checksum(), "truncated or damaged"),
    "a rotten gzip": (gzip.compress(nifti_bytes())[:60] + bytes(40) + gzip.compress(nifti_bytes())[100:], "damaged"),
    "bytes after the voxels": (nifti_bytes() + bytes(2), "longer than its header says"),
    "dims too small": (patch_header(dim=("4h", 3, 4, 5, 5)), "longer than its header says"),
    "dims too large": (patch_header(dim=("4h", 3, 4, 5, 7)), "truncated"),
    "absurd dims": (patch_header(dim=("4h", 3, 32000, 32000, 32000)), "GiB"),
    "zero dims": (patch_header(dim=("4h", 3, 4, 0, 6)), "dimensions"),
    "negative dims": (patch_header(dim=("4h", 3, 4, -5, 6)), "dimensions"),
    "two axes": (patch_header(dim=("4h", 2, 4, 5, 6)), "dimensions"),
    "nine axes": (patch_header(dim=("4h", 9, 4, 5, 6)), "dimensions"),
    "four volumes": (nifti_bytes(np.zeros((2, 2, 2, 4), np.int16)), "holds 4 volumes"),
    "colour": (nifti_bytes(np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "no plain numbers"),
    "complex numbers": (nifti_bytes(np.zeros((2, 2, 2), np.complex64)), "no plain numbers"),
    "an unknown type": (patch_header(datatype=("h", 999)), "no plain numbers"),
    "bits that do not fit": (patch_header(bitpix=("h", 8)), "bits per voxel do not fit"),
    "two files": (patch_header(magic=("4s", b"ni1\0")), "single-file"),
    "no magic": (patch_header(magic=("4s", bytes(4))), "single-file"),
    "voxels inside the header": (patch_header(vox_offset=("f", 40)), "cannot start"),
    "voxels at no number": (patch_header(vox_offset=("f", float("nan"))), "cannot start"),
    "voxels far behind": (patch_header(vox_offset=("f", 1e9)), "cannot start"),
    "zero spacing": (patch_header(pixdim=("4f", 1, 1.5, 0, 3)), "must be positive"),
    "negative spacing": (patch_header(pixdim=("4f", 1, -1.5, 2, 3)), "must be positive"),
    "spacing that is no number": (patch_header(pixdim=("4f", 1, float("nan"), 2, 3)), "must be positive"),
    "spacing of another grid": (patch_header(pixdim=("4f", 1, 1.5, 2, 4), qform=("h", 0)), "is not pixdim's"),
    "no orientation": (without_codes(), "left and right are unknown"),
    "sform and qform that disagree": (patch_header(quatern=("6f", 0, 0, 0, 30, -20, 39)), "mm apart"),
    "sform and qform mirrored": (patch_header(pixdim=("f", -1)), "mm apart"),
    "a quaternion beyond one": (patch_header(quatern=("3f", 3, 3, 3)), "no rotation"),
    "a singular sform": (patch_header(srow=("12f", *[0] * 12)), "pixdim"),
    "a sheared sform": (patch_header(qform=("h", 0), srow=("8f", 1.5, 0.7, 0, 0, 0, 1.87, 0, 0)), "sheared"),
    "an sform that is no number": (patch_header(srow=("f", float("nan"))), "not finite"),
    "an unknown unit": (patch_header(units=("b", 5)), "unknown unit"),
    "millimetres called metres": (patch_header(units=("b", 1)), "impossible"),
    "millimetres called micrometres": (patch_header(units=("b", 3)), "impossible"),
    "an endless scale": (patch_header(slope=("f", float("inf"))), "finite numbers"),
    "an offset that is no number": (patch_header(slope=("ff", 2, float("nan"))), "finite numbers"),
    "a scale that overflows": (patch_header(slope=("f", 3e38)), "overflow"),
    "no finite voxel": (nifti_bytes(np.full((3, 3, 3), np.nan, np.float32)), "not one voxel"),
}  # fmt: skip
LABELS = {
    "fractions": (np.full((3, 3, 3), 0.5, np.float32), "fractions"),
    "an interpolated edge": (np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3), "fractions"),
    "negative values": (np.full((3, 3, 3), -1, np.int16), "negative"),
    "no number": (np.full((3, 3, 3), np.nan, np.float32), "NaN"),
    "the image itself": (np.arange(12**3, dtype=np.int16).reshape(12, 12, 12), "is this the image"),
    "one-hot": (np.zeros((3, 3, 3, 2), np.uint8), "holds 2 volumes"),
}


def write_scan(tmp_path, content):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("fault", REFUSED)
def test_a_faulty_nifti_is_refused_by_name(tmp_path, fault):
    content, words = REFUSED[fault]
    path = write_scan(tmp_path, content)
    with pytest.raises(BadInput, match=words) as caught, limit_resources():
        nifti.read(path)
    assert "scan.nii.gz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", LABELS)
def test_a_label_that_is_none_is_refused(tmp_path, fault):
    voxels, words = LABELS[fault]
    path = write_scan(tmp_path, nifti_bytes(voxels))
    with pytest.raises(BadInput, match=words), limit_resources():
        nifti.read(path, label=True)


def assert_read(tmp_path, content, voxels=VOXELS, affine=AFFINE):
    volume = nifti.read(write_scan(tmp_path, content))
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    return volume


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "int64"]
)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_any_number_type_and_byte_order_is_right(tmp_path, dtype, kind, order):
    voxels = np.abs(VOXELS // 40).astype(dtype)
    image = kind(voxels, None, kind.header_class(endianness=order))
    image.header.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, 1)
    volume = assert_read(tmp_path, image.to_bytes(), voxels)
    assert volume.voxels.dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32)


def test_one_code_alone_is_right(tmp_path):
    assert_read(tmp_path, patch_header(sform=("h", 0)))
    assert_read(tmp_path, patch_header(qform=("h", 0)))


def test_metres_and_micrometres_become_millimetres(tmp_path):
    for units, factor in (("meter", 1000), ("micron", 0.001)):
        affine = np.diag([1 / factor] * 3 + [1.0]) @ AFFINE
        assert_read(tmp_path, nifti_bytes(affine=affine, units=units))


def test_a_scale_is_applied(tmp_path):
    assert_read(tmp_path, patch_header(slope=("ff", 2, 10)), VOXELS * 2 + 10)
    assert_read(tmp_path, patch_header(slope=("ff", 0, 10)), VOXELS)
    np.testing.assert_allclose(
        nifti.read(write_scan(tmp_path, patch_header(slope=("ff", 0.25, -1)))).voxels, VOXELS * 0.25 - 1, atol=1e-4
    )


def test_a_label_through_a_scale_is_whole(tmp_path):
    content = bytearray(nifti_bytes((VOXELS > 0).astype(np.uint8) * 255))
    struct.pack_into("<f", content, OFFSETS["slope"], 1 / 255)
    label = nifti.read(write_scan(tmp_path, bytes(content)), label=True)
    np.testing.assert_array_equal(label.voxels, VOXELS > 0)


def test_a_single_fourth_axis_is_dropped(tmp_path):
    assert_read(tmp_path, nifti_bytes(VOXELS[..., None]))


def test_an_unset_unit_is_taken_as_mm_with_a_warning(tmp_path):
    with pytest.warns(InputWarning, match="unit of length is not set"):
        assert_read(tmp_path, patch_header(units=("b", 0)))


def test_voxels_that_are_no_numbers_become_the_lowest_with_a_warning(tmp_path):
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, 1], voxels[1, 1, 1] = np.nan, np.inf
    with pytest.warns(InputWarning, match="2 voxels are no finite numbers and became -500"):
        volume = nifti.read(write_scan(tmp_path, nifti_bytes(voxels)))
    assert volume.voxels[0, 0, 1] == volume.voxels[1, 1, 1] == -500


def test_a_constant_image_is_warned_about(tmp_path):
    with pytest.warns(InputWarning, match="every voxel is 3"):
        nifti.read(write_scan(tmp_path, nifti_bytes(np.full((3, 3, 3), 3, np.int16))))


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    content = patch_header(dim=("4h", 3, 4, 5, 6))
    path = write_scan(tmp_path, gzip.compress(content + bytes(200 << 20), 1))
    with pytest.raises(BadInput, match="longer than its header says"), limit_resources(mib=32):
        nifti.read(path)


def test_a_good_file_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_read(tmp_path, gzip.compress(nifti_bytes()))
