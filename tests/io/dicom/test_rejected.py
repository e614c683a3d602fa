"""Broken DICOM is rejected with a code and a message that names the fault, and never read wrongly."""

import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medssl.errors import BadInput
from medssl.io import dicom
from medssl.io.rejected import RejectedFiles
from tests.helpers.dicom_phantom import (
    ROOT,
    error_against_truth,
    make_multiframe,
    make_slices,
    paint,
    save,
    save_one,
    slice_values,
    with_compressed_frames,
)
from tests.helpers.resource_limits import limit_resources

# A reader that hangs on a broken file fails by this timeout; `limit_resources` limits CPU time and memory.
pytestmark = pytest.mark.timeout(20)


def each(**attributes):
    """All slices get these attributes (None deletes one)."""

    def change(datasets):
        for d in datasets:
            _set(paint(d) if "PixelData" not in d else d, attributes)

    return change


def one(**attributes):
    """The third slice alone gets them."""

    def change(datasets):
        _set(paint(datasets[2]), attributes)

    return change


def _set(dataset, attributes):
    for name, value in attributes.items():
        if value is None:
            dataset.pop(name, None)
        else:
            dataset.add_new(name, *value) if isinstance(value, tuple) else setattr(dataset, name, value)


def twice(datasets):
    datasets.append(make_slices()[2])
    datasets[-1].SOPInstanceUID += ".1"
    paint(datasets[-1], slice_values(datasets[-1]) + 50)


def one_uid_two_contents(datasets):
    datasets.append(make_slices()[2])
    paint(datasets[-1], slice_values(datasets[-1]) + 50)


def wobble(datasets):
    datasets[3].ImagePositionPatient[0] += 0.5


def shift_last(datasets):
    datasets[-1].ImagePositionPatient[2] += 0.3


def other_size(datasets):
    datasets[2].Rows = 10


def drop(k):
    def change(datasets):
        del datasets[k]

    return change


def signs(datasets):
    """Unsigned numbers that a signed flag hides: HU beyond anything."""
    for d in datasets:
        d.RescaleIntercept = "0"
        paint(d, slice_values(d) - 600)
        d.PixelRepresentation = 0


def spare_bits(datasets):
    for d in datasets:
        paint(d)
        d.BitsStored, d.HighBit = 8, 7


def half_zero(datasets):
    paint(datasets[2])
    content = datasets[2].PixelData
    datasets[2].PixelData = content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def short(datasets):
    paint(datasets[2])
    datasets[2].PixelData = datasets[2].PixelData[:-64]


def long(datasets):
    paint(datasets[2])
    datasets[2].PixelData += bytes(64)


def colour(datasets):
    for d in datasets:
        d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
        d.PixelData = bytes(d.Rows * d.Columns * 3)
        d["PixelData"].VR = "OB"


def lut(datasets):
    for d in datasets:
        d.ModalityLUTSequence = [Dataset()]


def slab_of_another_patient(datasets):
    datasets[2].PatientID = "patient-2"


def echoes_laid_into_each_other(datasets):
    for k, d in enumerate(datasets):
        d.EchoTime = 5 + 10 * (k % 2)


SERIES = {
    "no position": (one(ImagePositionPatient=None), "geometry", "ImagePositionPatient is missing"),
    "no orientation": (one(ImageOrientationPatient=None), "geometry", "ImageOrientationPatient is missing"),
    "no pixel spacing": (each(PixelSpacing=None), "geometry", "PixelSpacing is missing"),
    "empty pixel spacing": (each(PixelSpacing=("DS", "")), "geometry", "PixelSpacing is missing"),
    "one pixel spacing": (each(PixelSpacing="1.5"), "geometry", r"PixelSpacing is \[1.5\]"),
    "zero spacing": (each(PixelSpacing=[0, 0]), "geometry", "impossible"),
    "negative spacing": (each(PixelSpacing=[-1.5, 2]), "geometry", "impossible"),
    "spacing in micrometres": (each(PixelSpacing=[1500, 2000]), "geometry", "impossible"),
    "orientation of zeros": (each(ImageOrientationPatient=[0] * 6), "geometry", "no pair of perpendicular"),
    "orientation too long": (each(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]), "geometry", "no pair of perpendicular"),
    "orientation not square": (each(ImageOrientationPatient=[1, 0, 0, 0.3, 0.95, 0]), "geometry", "no pair"),
    "orientation of five": (each(ImageOrientationPatient=[1, 0, 0, 0, 1]), "geometry", "6 finite number"),
    "position beyond the room": (one(ImagePositionPatient=[0, 0, 1e9]), "geometry", "impossible"),
    "one slice turned": (one(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "mixed", "different orientation"),
    "one slice scaled": (one(PixelSpacing=[1.5, 2.1]), "mixed", "different pixel spacing"),
    "one slice smaller": (other_size, "mixed", "different size"),
    "one slice of another frame of reference": (one(FrameOfReferenceUID=ROOT + "5"), "mixed", "frame of reference"),
    "one slice of another patient": (slab_of_another_patient, "mixed", "more than one patient"),
    "one slice of another study": (one(StudyInstanceUID=ROOT + "6"), "mixed", "more than one study"),
    "no series identifier": (each(SeriesInstanceUID=None), "mixed", "no series or study identifier"),
    "a slice missing": (drop(2), "gaps", "from -4.50 to 0.50 mm"),
    "uneven slices": (shift_last, "gaps", "from 3.00 to 5.80 mm"),
    "a slice off the line": (wobble, "mixed", "0.500 mm off the line"),
    "two slices at one place": (twice, "duplicates", "no tag distinguishes them"),
    "one instance with two contents": (one_uid_two_contents, "mixed", "one SOP instance differ in content"),
    "echoes laid into each other": (echoes_laid_into_each_other, "mixed", "EchoTime changes"),
    "a single slice": (lambda datasets: datasets.__delitem__(slice(1, None)), "too-few", "a single slice"),
    "no rescale": (each(RescaleSlope=None, RescaleIntercept=None), "values", "is missing"),
    "no intercept in one slice": (one(RescaleIntercept=None), "values", "RescaleSlope or RescaleIntercept"),
    "zero slope": (each(RescaleSlope="0"), "values", "RescaleSlope is 0"),
    "slope beyond numbers": (each(RescaleSlope="1e308"), "values", "finite slope"),
    "slope of several": (each(RescaleSlope=["1", "2"]), "values", r"\[1, 2\]"),
    "a lookup table for values": (lut, "values", "lookup table"),
    "colour": (colour, "colour", "colour image"),
    "no bits": (each(BitsStored=("US", 0)), "values", "BitsStored is 0"),
    "more bits stored than allocated": (each(BitsStored=17, HighBit=16), "values", "17 bits stored in 16"),
    "bits aligned elsewhere": (each(BitsStored=12, HighBit=15), "values", "HighBit is 15"),
    "odd allocation": (each(BitsAllocated=24), "values", "in 24 allocated"),
    "no sign flag": (each(PixelRepresentation=None), "values", "PixelRepresentation is None"),
    "no rows": (each(Rows=None, PixelData=("OW", bytes(384))), "values", "Rows is None"),
    "absurd rows": (each(Rows=60000, PixelData=("OW", bytes(384))), "values", "Rows is 60000"),
    "two frames in a single-frame kind": (each(NumberOfFrames=2), "pixels", "bytes of pixels"),
    "pixels too short": (short, "pixels", "bytes of pixels"),
    "pixels too long": (long, "pixels", "bytes of pixels"),
    "a kilovolt image": (each(SOPClassUID="1.2.840.10008.5.1.4.1.1.1"), "not-an-image", "Computed Radiography"),
    "a screenshot": (each(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "not-an-image", "Secondary Capture"),
    "a report": (each(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"), "not-an-image", "Comprehensive SR"),
    "drawn contours": (each(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3"), "annotation", "RT Structure Set"),
    "a segmentation": (each(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "annotation", "Segmentation"),
    "a localizer": (each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer", "scout"),
}  # fmt: skip
DECODED = {
    "a sign that is not there": (signs, "values", "impossible"),
    "more bits used than declared": (spare_bits, "values", "more than the 8 bits"),
    "a slice torn into zeros": (half_zero, "pixels", "breaks off into zeros"),
}


def refusals(folder, source=None):
    with limit_resources():
        results = list(dicom.read(source or folder))
    assert all(isinstance(r, RejectedFiles) for r in results), results
    listed = [path for r in results for path in r.files]
    assert sorted(listed) == sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    return results


@pytest.mark.parametrize("fault", SERIES)
def test_a_faulty_series_is_refused_with_all_its_files(tmp_path, fault):
    change, code, words = SERIES[fault]
    datasets = make_slices()
    change(datasets)
    save(datasets, tmp_path)
    for refused in refusals(tmp_path):
        assert refused.code == code
        assert re.search(words, refused.reason), refused.reason
        assert "Doe" not in refused.reason and "patient-" not in refused.reason


@pytest.mark.parametrize("fault", DECODED)
def test_a_fault_in_the_pixels_is_refused_when_they_are_read(tmp_path, fault):
    change, code, words = DECODED[fault]
    datasets = make_slices()
    change(datasets)
    save(datasets, tmp_path)
    (series,) = dicom.read(tmp_path)
    with pytest.raises(BadInput, match=words) as caught, limit_resources():
        series.volume()
    assert caught.value.code == code


def write_compressed(folder, syntax, frame, **attributes):
    """A series whose slices claim `syntax` and hold `frame` as their only compressed frame."""
    datasets = [with_compressed_frames(d, frame) for d in make_slices(count=3)]
    each(**attributes)(datasets)
    save(datasets, folder, syntax)


CODECS = {
    "random bytes for JPEG 2000": (JPEG2000Lossless, bytes(range(256)), {}),
    "random bytes for JPEG-LS": (JPEGLSLossless, bytes(range(256)), {}),
    "random bytes for RLE": (RLELossless, bytes(range(256)), {}),
    "an empty frame": (JPEGLSLossless, b"\0\0", {}),
    "a frame of 256 million voxels in 256 bytes": (RLELossless, bytes(256), {"Rows": 16384, "Columns": 16384}),
}


@pytest.mark.parametrize("fault", CODECS)
def test_a_broken_codestream_is_refused_and_kills_nothing(tmp_path, fault):
    syntax, frame, attributes = CODECS[fault]
    write_compressed(tmp_path, syntax, frame, **attributes)
    for result in dicom.read(tmp_path):
        if isinstance(result, dicom.Series):
            with pytest.raises(BadInput, match="decode"), limit_resources(mib=1024 if "Rows" in attributes else 256):
                result.volume()


def cut(share):
    def write(path):
        save_one(make_slices()[0], path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return write


def bytes_of(content):
    return lambda path: path.write_bytes(content)


def dicomdir(path):
    index = Dataset()
    index.DirectoryRecordSequence = []
    index.FileSetID = "DISK1"
    save_one(index, path)


def without_pixels(path):
    d = make_slices()[0]
    save_one(paint(d), path)
    del d.PixelData
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.save_as(path)


def make_deflated(content):
    """A file that is marked as deflated, with this content after its meta group."""

    def write(path):
        save_one(make_slices()[0], path, DeflatedExplicitVRLittleEndian)
        head = path.read_bytes()[:132]
        meta = path.read_bytes()[132:]
        length = struct.unpack("<I", meta[8:12])[0]
        path.write_bytes(head + meta[: 12 + length] + content())

    return write


def bomb():
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"".join(machine.compress(bytes(1 << 24)) for _ in range(8)) + machine.flush()


def write_nested(path):
    """Three thousand sequences in each other, of undefined length."""
    save_one(make_slices()[0], path)
    content = path.read_bytes()
    position = content.index(b"\x08\x00\x16\x00UI")
    deep = b"\x08\x00\x06\x00SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 3000
    path.write_bytes(content[:position] + deep + content[position:])


def long_element(path):
    save_one(make_slices()[0], path)
    content = path.read_bytes()
    position = content.index(b"\x08\x00\x16\x00UI")
    path.write_bytes(content[:position] + b"\x08\x00\x15\x00OB\x00\x00\xf0\xff\xff\x7f" + content[position:])


def claims(syntax):
    """A native file whose meta group names another encoding."""

    def write(path):
        d = make_slices()[0]
        save_one(paint(d), path)
        d.file_meta.TransferSyntaxUID = syntax
        content = path.read_bytes()
        native, other = str(ExplicitVRLittleEndian).encode() + b"\0", str(syntax).encode()
        head = content[132:].replace(b"UI\x14\x00" + native, b"UI" + _pad_uid(other), 1)
        path.write_bytes(content[:132] + head)

    return write


def _pad_uid(uid):
    uid += b"\0" * (len(uid) % 2)
    return struct.pack("<H", len(uid)) + uid


def encapsulated_but_native(path):
    save_one(with_compressed_frames(make_slices()[0], bytes(64)), path, RLELossless)
    content = path.read_bytes()
    path.write_bytes(content.replace(str(RLELossless).encode() + b"\0", b"1.2.840.10008.1.2.1\0", 1))


def cut_fragments(path):
    save_one(with_compressed_frames(make_slices()[0], bytes(512)), path, RLELossless)
    path.write_bytes(path.read_bytes()[:-100])


def frames_undescribed(path):
    whole = make_multiframe(make_slices())
    whole.PerFrameFunctionalGroupsSequence.pop()
    save_one(whole, path)


def unknown_kind_of_value(path):
    """The identifier of the slice has a value representation that does not exist."""
    save_one(make_slices()[0], path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00U\xe7", 1))


def bytes_moved_into_the_pixels(path):
    save_one(make_slices()[0], path)
    content = path.read_bytes()
    path.write_bytes(content[:-100] + b"some" + content[-100:])


FILES = {
    "an identifier of an unknown kind": (unknown_kind_of_value, "values", "SOPInstanceUID cannot be read"),
    "bytes moved into the pixels": (bytes_moved_into_the_pixels, "pixels", "more bytes follow"),
    "an empty file": (bytes_of(b""), "not-a-file", "empty"),
    "a web page": (bytes_of(b"<!DOCTYPE html><html>" + bytes(400)), "not-dicom", "not a DICOM file"),
    "a text": (bytes_of(b"see attached"), "not-dicom", "not a DICOM file"),
    "noise": (bytes_of(np.random.default_rng(0).bytes(5000)), "not-dicom", "not a DICOM file"),
    "noise after the magic word": (
        bytes_of(bytes(128) + b"DICM" + np.random.default_rng(1).bytes(5000)), None, ""),
    "only the magic word": (bytes_of(bytes(128) + b"DICM"), "unreadable", "no DICOM attributes"),
    "a file cut in its pixels": (cut(0.9), "pixels", "truncated"),
    "a file cut in its header": (cut(0.4), None, ""),
    "a file cut in its first bytes": (cut(0.1), "not-dicom", "not a DICOM file"),
    "an index": (dicomdir, "not-an-image", "DICOMDIR"),
    "no pixels at all": (without_pixels, "pixels", "no pixel data"),
    "a deflate bomb": (make_deflated(bomb), "too-big", "bomb"),
    "a damaged deflate stream": (make_deflated(lambda: b"\xff" * 500), "unreadable", "damaged"),
    "a deflate stream that ends early": (make_deflated(lambda: zlib.compress(bytes(999))[2:-9]),
        "unreadable",
        "breaks off",
    ),
    "sequences nested without end": (write_nested, "unreadable", "damaged"),
    "an element of two gigabytes": (long_element, None, ""),
    "native pixels marked as compressed": (claims(JPEG2000Lossless), "pixels", "not encapsulated"),
    "compressed pixels marked as native": (encapsulated_but_native, "pixels", "encapsulated"),
    "a film": (claims(MPEG2MPML), "pixels", "MPEG2"),
    "fragments that break off": (cut_fragments, "pixels", "break off"),
    "frames without a description": (frames_undescribed, "geometry", "describes 5 of its 6 frames"),
    "a pipe": (os.mkfifo, "not-a-file", "link, pipe or device"),
    "a link into the devices": (lambda path: path.symlink_to("/dev/zero"), "not-a-file", "link, pipe or device"),
    "a link to itself": (lambda path: path.symlink_to(path), "not-a-file", "link, pipe or device"),
    "a link to its own folder": (lambda path: path.symlink_to(path.parent), "not-a-file", "link, pipe or device"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FILES)
def test_a_faulty_file_is_refused_by_name(tmp_path, fault):
    write, code, words = FILES[fault]
    write(tmp_path / "bad.dcm")
    (refused,) = refusals(tmp_path)
    assert code in (None, refused.code), refused
    assert re.search(words, refused.reason), refused.reason
    assert "bad.dcm" in refused.reason


@pytest.mark.parametrize(
    "fault",
    ["a file cut in its pixels", "fragments that break off", "no pixels at all", "an identifier of an unknown kind"],
)
def test_a_faulty_slice_takes_its_series_with_it(tmp_path, fault):
    save(make_slices()[1:], tmp_path)
    FILES[fault][0](tmp_path / "bad.dcm")
    (refused,) = refusals(tmp_path)
    assert len(refused.files) == 6
    assert "bad.dcm" in refused.reason and "other 5 files" in refused.reason


def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(100 << 20))


def zip_that_leads_out(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../a.dcm", b"x")


def zip_of_two_equal_names(path):
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.dcm", b"x")
        archive.writestr("a.dcm", b"y")


def torn_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.dcm", bytes(5000))
    path.write_bytes(path.read_bytes()[:3000])


def locked_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.dcm", bytes(5000))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


ZIPS = {
    "a bomb": (zip_bomb, "zip bomb"),
    "a path that leads out": (zip_that_leads_out, "leads out"),
    "two files with one name": (zip_of_two_equal_names, "two files with one name"),
    "a torn archive": (torn_zip, "damaged archive"),
    "a locked archive": (locked_zip, "encrypted"),
}


@pytest.mark.parametrize("fault", ZIPS)
def test_a_faulty_archive_is_refused(tmp_path, fault):
    write, words = ZIPS[fault]
    write(tmp_path / "scans.zip")
    (refused,) = refusals(tmp_path)
    assert (refused.code, refused.files) == ("archive", (tmp_path / "scans.zip",))
    assert words in refused.reason


def test_a_rotten_member_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.dcm", bytes(5000))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with limit_resources():
        (refused,) = dicom.read([path])
    assert (refused.code, refused.files) == ("archive", (path / "a.dcm",))


def test_a_huge_element_before_the_pixels_is_passed_over(tmp_path):
    """Nothing that is read is larger than a few MiB; what is, a vendor's raw data, stays on the disk."""
    save(make_slices(), tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        position = content.index(b"\x28\x00\x02\x00US")
        private = b"\x09\x00\x10\x00LO\x04\x00RAW \x09\x00\x01\x10OB\x00\x00" + struct.pack("<I", 200 << 20)
        with path.open("wb") as file:
            file.write(content[:position] + private)
            file.seek(200 << 20, 1)
            file.write(content[position:])
    with limit_resources(mib=64):
        (series,) = dicom.read(tmp_path)
        assert error_against_truth(series.volume()) <= 0.51


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        list(dicom.read(Path(tmp_path / "nowhere")))


def test_every_fault_of_this_table_is_another_one():
    assert len(SERIES) + len(DECODED) + len(CODECS) + len(FILES) + len(ZIPS) >= 60
