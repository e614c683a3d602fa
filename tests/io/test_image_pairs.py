"""Images in two files, and those of FreeSurfer: right values in the right place, or refused by name."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.errors import BadInput
from medssl.io import image_headers, images
from tests.helpers.resource_limits import limit_resources

VOXELS = (np.arange(4 * 5 * 6).reshape(4, 5, 6) * 37 - 500).astype(np.int16)
AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def write_pair(folder, kind=nibabel.Nifti1Pair, voxels=VOXELS, packed=False, name="scan"):
    image = kind(voxels, AFFINE)
    if kind is not nibabel.AnalyzeImage:
        image.header.set_xyzt_units("mm")
        image.set_qform(AFFINE, 1)
        image.set_sform(AFFINE, 1)
    nibabel.save(image, folder / f"{name}.img")
    if packed:
        (folder / f"{name}.img.gz").write_bytes(gzip.compress((folder / f"{name}.img").read_bytes()))
        (folder / f"{name}.img").unlink()
    return folder / f"{name}.hdr"


def make_mgh(voxels=VOXELS, affine=AFFINE, code=4, dtype=">i2", version=1, has_orientation=1, volumes=1):
    """The bytes of an MGH file after the description of its format, written without a library."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    centre = affine @ [*(np.array(voxels.shape) / 2), 1]
    head = struct.pack(">7ih", version, *voxels.shape, volumes, code, 0, has_orientation)
    head += struct.pack(">15f", *spacing, *(affine[:3, :3] / spacing).T.ravel(), *centre[:3])
    return head.ljust(284, b"\0") + voxels.astype(dtype).tobytes(order="F")


def check(path, affine=AFFINE, voxels=VOXELS):
    volume = images.read(path)
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    header = image_headers.read_header(path)
    assert header is not None and header.shape == voxels.shape
    np.testing.assert_allclose(header.affine, affine, atol=1e-4)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("packed", [False, True])
def test_a_nifti_pair_is_what_other_libraries_read(tmp_path, kind, packed):
    path = write_pair(tmp_path, kind, packed=packed)
    check(path)
    if kind is nibabel.Nifti1Pair and not packed:
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), images.read(path).voxels)
        x, y, z = image.TransformIndexToPhysicalPoint((3, 4, 5))
        np.testing.assert_allclose(images.read(path).to_mm(np.array([[3.0, 4, 5]]))[0], (-x, -y, z), atol=1e-4)


def test_a_pair_keeps_its_scale_and_its_offset(tmp_path):
    path = write_pair(tmp_path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 108, 16.0, 2.0, 5.0)  # voxels start at byte 16, slope, intercept
    path.write_bytes(content)
    path.with_suffix(".img").write_bytes(bytes(16) + path.with_suffix(".img").read_bytes())
    check(path, voxels=VOXELS * 2 + 5)
    np.testing.assert_array_equal(nibabel.load(path).get_fdata(), VOXELS * 2 + 5)


@pytest.mark.parametrize(("code", "dtype"), [(0, ">u1"), (1, ">i4"), (3, ">f4"), (4, ">i2")])
@pytest.mark.parametrize("ending", [".mgh", ".mgz"])
def test_an_mgh_file_is_what_nibabel_reads(tmp_path, ending, code, dtype):
    voxels = VOXELS % 200 if code == 0 else VOXELS
    content = make_mgh(voxels, code=code, dtype=dtype) + struct.pack(">5f", 2000, 0.1, 3, 900, 0) + b"tags"
    path = tmp_path / f"scan{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".mgz" else content)
    check(path, voxels=voxels)
    image = nibabel.MGHImage.from_bytes(content)
    np.testing.assert_array_equal(np.asarray(image.dataobj), images.read(path).voxels)
    np.testing.assert_allclose(image.affine, images.read(path).affine, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_a_detached_nrrd_header_is_what_simpleitk_writes(tmp_path, packed):
    image = sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-12.5, 33.25, 8))
    sitk.WriteImage(image, str(tmp_path / "scan.nhdr"), packed)
    assert len(list(tmp_path.iterdir())) == 2
    check(tmp_path / "scan.nhdr", np.diag([-0.7, -1.1, 2.5, 1]) + np.outer([12.5, -33.25, 8, 0], [0, 0, 0, 1]))


def cut(name, count=2):
    def spoil(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-count])

    return spoil


def patch(offset, form, *values):
    def spoil(folder):
        content = bytearray((folder / "scan.hdr").read_bytes())
        struct.pack_into(form, content, offset, *values)
        (folder / "scan.hdr").write_bytes(content)

    return spoil


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


FAULTY_PAIRS = {
    "voxels cut": (cut("scan.img"), "truncated"),
    "voxels too long": (write("scan.img", bytes(999)), "longer than its header says"),
    "header cut": (cut("scan.hdr", 100), "not a NIfTI file"),
    "no voxels": (lambda folder: (folder / "scan.img").unlink(), "0 files of its name"),
    "voxels twice": (write("scan.img.gz", b""), "2 files of its name"),
    "header of a single file": (patch(344, "4s", b"n+1\0"), "not the header of a NIfTI pair"),
    "no orientation": (patch(252, "<hh", 0, 0), "neither sform nor qform"),
    "a text": (write("scan.hdr", b"ENVI\nsamples = 4\n"), "not a NIfTI file"),
    "absurd size": (patch(40, "<4h", 3, 30000, 30000, 30000), "need more than"),
    "voxels before the file": (patch(108, "<f", -4.0), "cannot start at byte"),
}


@pytest.mark.parametrize("fault", FAULTY_PAIRS)
def test_a_faulty_pair_is_refused_by_name(tmp_path, fault):
    spoil, words = FAULTY_PAIRS[fault]
    path = write_pair(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=words), limit_resources():
        images.read(path)


def test_an_analyze_image_is_refused_because_it_states_no_side(tmp_path):
    path = write_pair(tmp_path, nibabel.AnalyzeImage)
    with pytest.raises(BadInput, match=r"Analyze 7\.5 image, which does not state which side is left"):
        images.read(path)


def test_a_packed_pair_with_a_wrong_checksum_is_refused(tmp_path):
    path = write_pair(tmp_path, packed=True)
    content = bytearray((tmp_path / "scan.img.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "scan.img.gz").write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        images.read(path)


def spoil_checksum(content):
    packed = bytearray(gzip.compress(content))
    packed[-8] ^= 1
    return bytes(packed)


FAULTY_MGH = {
    "cut": (make_mgh()[:-2], "truncated"),
    "header cut": (make_mgh()[:200], "not an MGH file"),
    "another version": (make_mgh(version=2), "not an MGH file"),
    "a web page": (b"<!DOCTYPE html>" * 40, "not an MGH file"),
    "no orientation": (make_mgh(has_orientation=0), "orientation is not set"),
    "bits": (make_mgh(code=5), "type 5"),
    "several volumes": (make_mgh(np.concatenate([VOXELS, VOXELS])[:4], volumes=2), "holds 2 volumes"),
    "absurd size": (struct.pack(">7ih", 1, 90000, 90000, 90000, 1, 4, 0, 1).ljust(400, b"\0"), "not those of a volume"),
    "no size": (struct.pack(">7ih", 1, 0, 5, 6, 1, 4, 0, 1).ljust(400, b"\0"), "not those of a volume"),
    "sheared": (make_mgh(affine=AFFINE + np.diag([0, 0.7, 0, 0])), "sheared"),
    "a bomb": (gzip.compress(make_mgh(np.zeros((512, 512, 400), np.uint8), code=0, dtype=">u1")), "bomb"),
    "wrong checksum": (spoil_checksum(make_mgh()), "damaged"),
    "packed and cut": (gzip.compress(make_mgh())[:-12], "truncated or damaged"),
}


@pytest.mark.parametrize("fault", FAULTY_MGH)
def test_a_faulty_mgh_file_is_refused_by_name(tmp_path, fault):
    content, words = FAULTY_MGH[fault]
    (tmp_path / "scan.mgz").write_bytes(content)
    with pytest.raises(BadInput, match=words), limit_resources():
        images.read(tmp_path / "scan.mgz")


NHDR = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\nendian: little\nencoding: raw\n"
    "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)\ndata file: scan.raw\n"
)
FAULTY_NHDR = {
    "cut": (NHDR, 238, "238 bytes of voxels"),
    "gone": (NHDR.replace("scan.raw", "gone.raw"), 240, "in the same folder"),
    "elsewhere": (NHDR.replace("scan.raw", "/etc/passwd"), 240, "in the same folder"),
    "a list of files": (NHDR.replace("scan.raw", "LIST"), 240, "in the same folder"),
    "a skip": (NHDR + "byte skip: 4\n", 244, "after a skip"),
    "no data file": (NHDR.replace("data file: scan.raw\n", "\n"), 240, "in another file"),
}


@pytest.mark.parametrize("fault", FAULTY_NHDR)
def test_a_faulty_detached_header_is_refused_by_name(tmp_path, fault):
    text, num_bytes, words = FAULTY_NHDR[fault]
    (tmp_path / "scan.nhdr").write_text(text)
    (tmp_path / "scan.raw").write_bytes(bytes(num_bytes))
    with pytest.raises(BadInput, match=words):
        images.read(tmp_path / "scan.nhdr")


def test_each_file_of_a_pair_is_in_the_ledger_with_its_case(tmp_path):
    folder = tmp_path / "scans"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    scans = [rng.integers(0, 900, (12, 14, 16)).astype(np.int16) for _ in range(3)]
    label = np.zeros((12, 14, 16), np.uint8)
    label[3:6, 4:9, 5:9] = 1
    write_pair(folder, voxels=scans[0], name="mr-a")
    write_pair(folder, voxels=label, name="mr-a_seg")
    write_pair(folder, nibabel.AnalyzeImage, voxels=scans[1], name="old")
    sitk.WriteImage(sitk.GetImageFromArray(scans[1]), str(folder / "b" / "mr.nhdr"))
    (folder / "b" / "t1.mgz").write_bytes(gzip.compress(make_mgh(scans[2])))
    options = IngestConfig(num_workers=0, deidentify=False, spacing_mm="native")
    summary = ingest(folder, tmp_path / "store", options, lambda *_: None)
    rows = {str(row.path).removeprefix(f"{folder}/"): (row.status, row.case) for row in summary.rows}
    assert {name: status for name, (status, _) in rows.items()} == {
        "mr-a.hdr": "used", "mr-a.img": "used", "mr-a_seg.hdr": "used", "mr-a_seg.img": "used", "old.hdr": "refused",
        "old.img": "refused", "b/mr.nhdr": "used", "b/mr.raw": "used", "b/t1.mgz": "used",
    }  # fmt: skip
    assert len({rows[name] for name in ("mr-a.hdr", "mr-a.img", "mr-a_seg.hdr", "mr-a_seg.img")}) == 1
    (labelled,) = (case for case in summary.manifest.cases if case.label)
    np.testing.assert_array_equal(read_source(labelled, summary.manifest).voxels, scans[0])
    assert ingest(folder, tmp_path / "store", options, lambda *_: None).prepared == 0
