"""What is remembered of DICOM files gives the same series as reading them again, and nothing else is remembered."""

import os

import numpy as np
import pytest

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.deidentification import private_dir
from medssl.data.ingest.pipeline import HEADERS, ingest
from medssl.io.dicom import reader, series_files
from medssl.io.dicom.header_memory import memory as header_memory
from medssl.io.dicom.header_memory import packed_records
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.io.rejected import RejectedFiles
from tests.helpers.dicom_phantom import ROOT, make_multiframe, make_slices, save
from tests.io.dicom.test_suv import make_pet


def move_to_series(datasets, number):
    for k, d in enumerate(datasets):
        d.SeriesInstanceUID, d.SOPInstanceUID = f"{ROOT}20.{number}", f"{ROOT}30.{number}.{k}"
    return datasets


@pytest.fixture
def scans(tmp_path):
    """Series of all modalities and kinds of file, with damaged ones and others."""
    folder = tmp_path / "scans"
    save(make_slices(), folder / "ct")
    mr = move_to_series(make_slices(modality="MR"), 1)
    for d in mr:
        d.EchoTime, d.PatientAge, d.PatientSex, d.LossyImageCompression = "10", "061Y", "F", "01"
    save(mr, folder / "mr")
    save(move_to_series(make_pet(), 2), folder / "pet")
    save(move_to_series([make_multiframe(make_slices())], 3), folder / "enhanced")
    save(move_to_series(make_slices(), 4)[:1], folder / "single")
    cut = save(move_to_series(make_slices(), 5), folder / "cut")[2]
    cut.write_bytes(cut.read_bytes()[:-40])
    damaged = save(move_to_series(make_slices(), 6), folder / "damaged")[2]
    damaged.write_bytes(damaged.read_bytes()[:300])
    scout = move_to_series(make_slices(count=1), 7)
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(scout, folder / "scout")
    (folder / "note.txt").write_text("no image")
    return folder


def describe(items):
    """Everything about series and rejected files that an ingestion uses."""
    for item in items:
        if isinstance(item, RejectedFiles):
            yield item, item.reason.public
        else:
            volume = item.volume() if item.modality != "MR" else item.empty_volume()
            public = [message.public for message in (*item.warnings, *item.missing)]
            values = (item.uid, item.study, item.patient, item.description, item.files, item.frames, item.patient_info)
            yield values, public, volume.unit, volume.affine.tolist(), np.asarray(volume.voxels).tolist()


def read_all(scans, memory):
    return list(describe(reader.read(scans, memory=memory)))


def test_remembered_headers_give_the_same_series_without_reading(scans, tmp_path, monkeypatch):
    first = HeaderMemory()
    expected = read_all(scans, first)
    first.write(tmp_path / "headers", scans)
    assert (tmp_path / "headers").stat().st_mode & 0o077 == 0
    reads = []
    read_file = series_files.read_file
    monkeypatch.setattr(header_memory, "read_file", lambda path, opener: reads.append(path) or read_file(path, opener))
    assert read_all(scans, HeaderMemory.read(tmp_path / "headers")) == expected
    assert {path.parent.name for path in reads} <= {"damaged"}  # what cannot be read may be mended
    assert sum(isinstance(item[0], RejectedFiles) for item in expected) >= 4


def test_a_changed_file_is_read_again(scans, tmp_path):
    memory = HeaderMemory()
    before = read_all(scans, memory)
    memory.write(tmp_path / "headers", scans)
    changed = make_slices()
    for d in changed:
        d.SeriesDescription = "changed"
    for path in save(changed, scans / "ct"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    after = read_all(scans, HeaderMemory.read(tmp_path / "headers"))
    assert after != before and after == read_all(scans, HeaderMemory())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0.0.1 0\n{}", "cut", "another version"])
def test_a_damaged_or_older_memory_is_left(scans, tmp_path, content, monkeypatch):
    memory = HeaderMemory()
    expected = read_all(scans, memory)
    memory.write(tmp_path / "headers", scans)
    if content == "cut":
        content = (tmp_path / "headers").read_bytes()[:-20]
    if content == "another version":
        monkeypatch.setattr(packed_records, "__version__", "99.0")
    else:
        (tmp_path / "headers").write_bytes(content)
    stale = HeaderMemory.read(tmp_path / "headers")
    assert not stale._earlier.names and read_all(scans, stale) == expected


def test_removed_files_of_the_folder_are_forgotten_and_those_of_others_kept(scans, tmp_path):
    save(make_slices(count=2), tmp_path / "other")
    memory = HeaderMemory()
    list(reader.read(tmp_path / "other", memory=memory))
    memory.write(tmp_path / "headers", tmp_path / "other")
    memory = HeaderMemory.read(tmp_path / "headers")
    list(reader.read(scans, memory=memory))
    memory.write(tmp_path / "headers", scans)
    next((scans / "ct").iterdir()).unlink()
    memory = HeaderMemory.read(tmp_path / "headers")
    list(reader.read(scans, memory=memory))
    memory.write(tmp_path / "headers", scans)
    names = HeaderMemory.read(tmp_path / "headers")._earlier.names
    assert sum("/other/" in name for name in names) == 2
    assert sum("/scans/ct/" in name for name in names) == 5


@pytest.mark.parametrize("deidentify", [True, False])
def test_a_second_ingestion_reads_no_header(scans, tmp_path, monkeypatch, deidentify):
    options = IngestConfig(num_workers=0, deidentify=deidentify)
    first = ingest(scans, tmp_path / "store", options, lambda *_: None)
    place = private_dir(tmp_path / "store") if deidentify else tmp_path / "store"
    assert (place / HEADERS).is_file()
    assert not deidentify or not list((tmp_path / "store").rglob(HEADERS))
    reads = []
    read_file = series_files.read_file
    monkeypatch.setattr(header_memory, "read_file", lambda path, opener: reads.append(path) or read_file(path, opener))
    second = ingest(scans, tmp_path / "store", options, lambda *_: None)
    assert (second.prepared, second.rows, second.manifest) == (0, first.rows, first.manifest)
    assert {path.parent.name for path in reads} <= {"damaged"}


def test_an_ingestion_parses_each_file_once(tmp_path, monkeypatch):
    files = save(make_slices(), tmp_path / "scans")
    parsed = []
    parse = series_files.parse
    monkeypatch.setattr(series_files, "parse", lambda path, file: parsed.append(path) or parse(path, file))
    options = IngestConfig(num_workers=0, spacing_mm="native", deidentify=False)
    assert ingest(tmp_path / "scans", tmp_path / "store", options, lambda *_: None).prepared == 1
    assert sorted(parsed) == sorted(files)
    files[0].write_bytes(files[0].read_bytes()[:-2])
    memory = HeaderMemory()
    list(reader.read(tmp_path / "scans", memory=memory))
    os.utime(files[1], ns=(1, 1))
    parsed.clear()
    list(reader.read(tmp_path / "scans", memory=memory.select(files)))
    assert parsed == [files[1]]


@pytest.mark.parametrize("change", ["time", "size", "content and time", "place"])
def test_a_file_is_known_by_its_place_size_and_time_alone(scans, tmp_path, change):
    path = sorted((scans / "ct").iterdir())[0]
    memory = HeaderMemory()
    before = read_all(scans, memory)
    memory.write(tmp_path / "headers", scans)
    if change == "place":
        path = path.rename(path.with_name("moved.dcm"))
    elif change == "size":
        state = path.stat()
        path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        content = path.read_bytes()
        path.write_bytes(content.replace(b"THORAX", b"CHESTS") if change == "content and time" else content)
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    recalled = HeaderMemory.read(tmp_path / "headers")
    assert not recalled.has(path)
    assert all(recalled.has(p) for p in (scans / "ct").iterdir() if p != path)
    assert read_all(scans, recalled) == read_all(scans, HeaderMemory())
    assert change == "place" or read_all(scans, recalled) == before


def test_a_memory_that_is_torn_or_altered_anywhere_is_left(scans, tmp_path):
    memory = HeaderMemory()
    list(reader.read(scans, memory=memory))
    memory.write(tmp_path / "headers", scans)
    whole = (tmp_path / "headers").read_bytes()
    assert HeaderMemory.read(tmp_path / "headers")._earlier.names
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 60):
        altered = bytearray(whole)
        altered[place] ^= 1
        for content in (whole[:place], bytes(altered), whole[:place] + bytes(len(whole) - place)):
            (tmp_path / "headers").write_bytes(content)
            assert not HeaderMemory.read(tmp_path / "headers")._earlier.names


def test_the_sign_of_zero_and_every_value_is_remembered(tmp_path):
    slices = make_slices()
    for k, d in enumerate(slices):
        d.ImagePositionPatient = ["-0.0" if k % 2 else "0.0", "0", str(2.5 * k)]
    save(slices, tmp_path / "scans")
    memory = HeaderMemory()
    first = [item.frames for item in reader.read(tmp_path / "scans", memory=memory)]
    memory.write(tmp_path / "headers", tmp_path / "scans")
    second = [item.frames for item in reader.read(tmp_path / "scans", memory=HeaderMemory.read(tmp_path / "headers"))]
    assert repr(first) == repr(second)
