"""NRRD and MetaImage are read with the right voxels in the right place, or rejected with the fault named."""

import bz2
import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from medssl.errors import BadInput
from medssl.io import images, nifti
from medssl.volume import Volume
from tests.helpers.resource_limits import limit_resources

VOXELS = (np.arange(4 * 5 * 6).reshape(4, 5, 6) * 37 - 500).astype(np.int16)
DIRECTION = (0.8, -0.36, 0.48, 0.6, 0.48, -0.64, 0.0, 0.8, 0.6)
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\nendian: little\nencoding: raw\n"
    "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)\n"
)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 4 5 6\nElementSpacing = 1 2 3\nDimSize = 4 5 6\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
BODY = VOXELS.transpose(2, 1, 0).tobytes()
DAMAGED = gzip.compress(BODY)[:-6] + bytes(6)
BOMB = "1024 1024 600\nendian: little\nencoding: gzip"
TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_another_library_is_right(tmp_path, ending, packed):
    image = sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 33.25, 8))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"), packed)
    volume = images.read(tmp_path / f"scan{ending}")
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    for index in [(0, 0, 0), (3, 4, 5)]:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.to_mm(np.array([index], float))[0], (-x, -y, z), atol=1e-3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_each_type_of_voxels_is_what_simpleitk_reads(tmp_path, ending, packed, dtype):
    voxels = np.random.default_rng(0).integers(0 if dtype[0] == "u" else -100, 120, (6, 5, 4)).astype(dtype)
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), packed)
    np.testing.assert_array_equal(images.read(path).voxels, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_big_endian_voxels_are_what_simpleitk_reads(tmp_path, ending):
    text = NRRD.replace("little", "big") + "\n" if ending == ".nrrd" else META.replace("MSB = False", "MSB = True")
    path = tmp_path / f"scan{ending}"
    path.write_bytes(text.encode() + VOXELS.transpose(2, 1, 0).astype(">i2").tobytes())
    np.testing.assert_array_equal(images.read(path).voxels, VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, VOXELS)


@pytest.mark.parametrize(("encoding", "pack"), [("gz", gzip.compress), ("bzip2", bz2.compress)])
def test_a_packed_nrrd_is_read_and_keys_of_other_programs_are_not(tmp_path, encoding, pack):
    text = NRRD.replace("raw", encoding) + "# sizes: 1 1 1\nsizes:=1 1 1\nnote:=a: b\n\n"
    (tmp_path / "scan.nrrd").write_bytes(text.encode() + pack(BODY))
    np.testing.assert_array_equal(images.read(tmp_path / "scan.nrrd").voxels, VOXELS)


@pytest.mark.parametrize(("space", "origin"), [("LPS", (-4, -5, 6)), ("RAS", (4, 5, 6)), ("LAS", (-4, 5, 6))])
def test_an_nrrd_lies_where_its_space_says(tmp_path, space, origin):
    (tmp_path / "scan.nrrd").write_bytes(NRRD.replace("left-posterior-superior", space).encode() + b"\n" + BODY)
    affine = images.read(tmp_path / "scan.nrrd").affine
    np.testing.assert_allclose(affine[:3, 3], origin)
    np.testing.assert_allclose(np.diag(affine)[:3], np.sign(origin) * [1, 2, 3])


def nrrd(old="", new="", body=BODY):
    assert old in NRRD
    return ".nrrd", NRRD.replace(old, new).encode() + b"\n" + body


def meta(old="", new="", body=BODY):
    assert old in META
    return ".mha", META.replace(old, new).encode() + body


REFUSED = {
    "a web page": ((".nrrd", b"<!DOCTYPE html>"), "not an NRRD"),
    "a page called mha": ((".mha", b"<!DOCTYPE html>"), "has no DimSize"),
    "nrrd without a space": (nrrd("space: left-posterior-superior\n"), "has no space"),
    "nrrd without directions": (nrrd("space directions: (1,0,0) (0,2,0) (0,0,3)\n"), "has no space directions"),
    "nrrd without origin": (nrrd("space origin: (4,5,6)\n"), "has no space origin"),
    "nrrd in a space of its own": (nrrd("left-posterior-superior", "scanner-xyz"), "its space is"),
    "nrrd in micrometres": (nrrd("endian", 'space units: "um" "um" "um"\nendian'), "space units"),
    "nrrd elsewhere": (nrrd("endian", "data file: /etc/passwd\nendian"), "in another file"),
    "nrrd with a skip": (nrrd("endian", "byte skip: 4\nendian"), "in another file"),
    "nrrd cut": (nrrd(body=BODY[:-2]), "238 bytes of voxels"),
    "nrrd too long": (nrrd(body=BODY + bytes(2)), "242 bytes of voxels"),
    "nrrd of four axes": (nrrd("sizes: 4 5 6", "sizes: 4 5 6 1"), "not those of one volume"),
    "nrrd of absurd size": (nrrd("sizes: 4 5 6", "sizes: 90000 90000 90000"), "not those of one volume"),
    "nrrd of no number": (nrrd("(0,2,0)", "(0,nan,0)"), "finite numbers are needed"),
    "nrrd sheared": (nrrd("(0,2,0)", "(0.7,2,0)"), "sheared"),
    "nrrd singular": (nrrd("(0,2,0)", "(2,0,0)"), "sheared"),
    "nrrd of two directions": (nrrd(" (0,0,3)"), "9 finite numbers are needed"),
    "nrrd of text": (nrrd("raw", "ascii"), "its encoding is 'ascii'"),
    "nrrd of no byte order": (nrrd("endian: little\n"), "has no endian"),
    "nrrd with two sizes": (nrrd("endian", "sizes: 6 5 4\nendian"), "has sizes twice"),
    "nrrd packed and damaged": (nrrd("raw", "gzip", DAMAGED), "its voxels are damaged"),
    "nrrd packed and no gzip": (nrrd("raw", "gzip"), "its voxels are damaged"),
    "nrrd packed and cut": (nrrd("raw", "gzip", gzip.compress(BODY)[:-9]), "not the 240 bytes"),
    "nrrd packed without its checksum": (nrrd("raw", "gzip", gzip.compress(BODY)[:-4]), "not the 240 bytes"),
    "nrrd packed, too short": (nrrd("raw", "gzip", gzip.compress(BODY[:-2])), "not the 240 bytes"),
    "nrrd packed, too long": (nrrd("raw", "bzip2", bz2.compress(BODY + BODY)), "not the 240 bytes"),
    "nrrd packed by bzip2 and damaged": (nrrd("raw", "bz2", b"BZh9" + BODY), "its voxels are damaged"),
    "nrrd that is a bomb": (nrrd("4 5 6\nendian: little\nencoding: raw", BOMB, gzip.compress(BODY)), "bomb"),
    "nrrd of blocks": (nrrd("short", "block"), "type 'block'"),
    "mha without directions": (meta("TransformMatrix = 1 0 0 0 1 0 0 0 1\n"), "has no TransformMatrix"),
    "mha without place": (meta("Offset = 4 5 6\n"), "has no Offset"),
    "mha without spacing": (meta("ElementSpacing = 1 2 3\n"), "has no ElementSpacing"),
    "mha of no spacing": (meta("Spacing = 1 2 3", "Spacing = 0 2 3"), "must be positive"),
    "mha of negative spacing": (meta("Spacing = 1 2 3", "Spacing = 1 -2 3"), "must be positive"),
    "mha of spacing nan": (meta("Spacing = 1 2 3", "Spacing = nan 2 3"), "finite numbers are needed"),
    "mha in micrometres": (meta("Spacing = 1 2 3", "Spacing = 1000 2000 3000"), "impossible"),
    "mha cut": (meta(body=BODY[:-2]), "238 bytes of voxels"),
    "mha too long": (meta(body=BODY + bytes(2)), "242 bytes of voxels"),
    "mha elsewhere": (meta("LOCAL", "/etc/passwd"), "in the same folder"),
    "mha nowhere": (meta("LOCAL", "gone.raw"), "in the same folder"),
    "mha of three channels": (meta("DimSize", "ElementNumberOfChannels = 3\nDimSize"), "Channels is 3"),
    "mha of two axes": (meta("DimSize = 4 5 6", "DimSize = 4 30"), "not those of one volume"),
    "mha of words": (meta("MET_SHORT", "MET_STRING"), "type 'MET_STRING'"),
    "mha of text": (meta("BinaryData = True", "BinaryData = False"), "BinaryData is False"),
    "mha to be scaled": (meta("DimSize", "ElementToIntensityFunctionSlope = 2\nDimSize"), "Slope is 2"),
    "mha with another header": (meta("DimSize", "HeaderSize = 8\nDimSize"), "HeaderSize is 8"),
    "mha packed and damaged": (meta("CompressedData = False", "CompressedData = True"), "its voxels are damaged"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_faulty_image_is_refused_by_name(tmp_path, fault):
    (ending, content), words = REFUSED[fault]
    (tmp_path / f"scan{ending}").write_bytes(content)
    with pytest.raises(BadInput, match=words) as caught, limit_resources():
        images.read(tmp_path / f"scan{ending}")
    assert "\n" not in str(caught.value)


def test_a_label_may_come_in_any_ending(tmp_path):
    (tmp_path / "label.mha").write_bytes(META.encode() + (BODY[:0] + np.abs(VOXELS % 3).tobytes()))
    assert images.read(tmp_path / "label.mha", label=True).unit == "label"


def test_an_unknown_ending_is_refused(tmp_path):
    assert not images.is_image(tmp_path / "scan.png")
    with pytest.raises(BadInput, match=r"not one of \.nii"):
        images.read(tmp_path / "scan.png")


@pytest.mark.parametrize("ending", images.ENDINGS)
def test_a_missing_file_is_refused(tmp_path, ending):
    with pytest.raises(BadInput, match="no such file"):
        images.read(tmp_path / f"gone{ending}")


def test_nifti_goes_through_our_own_reader(tmp_path):
    volume = Volume(VOXELS, np.diag([1.0, 2.0, 3.0, 1.0]), "a.u.")
    nifti.write(volume, tmp_path / "SCAN.NII.GZ")
    np.testing.assert_array_equal(images.read(tmp_path / "SCAN.NII.GZ").voxels, VOXELS)
