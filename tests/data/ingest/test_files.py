"""Files as people keep them: links, archives, compressed and foreign files; read, or refused by name."""

import csv
import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.data.ingest import file_ledger
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.errors import BadInput
from medssl.io import archives, dicom, nifti
from tests.helpers.dicom_phantom import error_against_truth, make_multiframe, make_slices, save

CANARY = "Smithson"


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


def run(scans, **options):
    config = IngestConfig(**{"num_workers": 0, "spacing_mm": "native", "deidentify": False, "modality": "CT"} | options)
    return ingest(scans, scans.parent / "store", config, lambda *_: None)


def write_nifti(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = (np.random.default_rng(value).normal(0, 200, (12, 10, 8)) - 500).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 2, 1]))
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)
    return voxels


def reasons(summary):
    return {Path(row.path).name: row.reason for row in summary.rows if row.status == "refused"}


def link_series(scans):
    for path in save(make_slices(), scans.parent / "real"):
        (scans / path.name).symlink_to(path)


def link_folder(scans):
    save(make_slices(), scans.parent / "real")
    (scans / "linked").symlink_to(scans.parent / "real")


def datalad(scans):
    for n, subject in enumerate(("sub-01", "sub-02")):
        key = scans / ".git" / "annex" / "objects" / f"MD5E-s{n}--x{n}.nii.gz"
        write_nifti(key, n)
        (scans / subject / "anat").mkdir(parents=True)
        (scans / subject / "anat" / f"{subject}_T1w.nii.gz").symlink_to(key)


LINKED = {"files": (link_series, 1), "a folder": (link_folder, 1), "datalad": (datalad, 2)}


@pytest.mark.parametrize("kind", LINKED)
def test_links_are_followed_on_request_and_else_refused_with_the_option(scans, kind):
    write, count = LINKED[kind]
    write(scans)
    with pytest.raises(BadInput, match=r"holds no scan.*follow links with --follow-links"):
        run(scans)
    summary = run(scans, follow_links=True)
    assert len(summary.manifest.cases) == count
    assert not any(".git" in row.path for row in summary.rows)


def test_links_in_a_circle_and_without_a_file_are_refused_by_name(scans):
    write_nifti(scans / "a.nii.gz")
    (scans / "loop").symlink_to(scans)
    (scans / "gone.nii.gz").symlink_to(scans / "nothing")
    summary = run(scans, follow_links=True)
    assert len(summary.manifest.cases) == 1
    assert all("a link to no file, or to a folder around it" in text for text in reasons(summary).values())
    assert set(reasons(summary)) == {"loop", "gone.nii.gz"}


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"study/{file.name}")


def make_tar(path, files):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for file in files:
            archive.add(file, f"./study/{file.name}")


ARCHIVES = {"a.zip": make_zip, "a.tar": make_tar, "a.tar.gz": make_tar, "a.tgz": make_tar}


@pytest.mark.parametrize("name", ARCHIVES)
def test_nifti_in_an_archive_is_a_scan(scans, name):
    voxels = write_nifti(scans.parent / f"{CANARY}.nii.gz")
    ARCHIVES[name](scans / name, [scans.parent / f"{CANARY}.nii.gz"])
    summary = run(scans)
    (case,) = summary.manifest.cases
    np.testing.assert_array_equal(read_source(case, summary.manifest).voxels, voxels)
    assert {row.status for row in summary.rows} == {"used"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_dicom_in_an_archive_is_read(scans, name):
    ARCHIVES[name](scans / name, save(make_slices(), scans.parent / "real"))
    (series,) = dicom.read(scans)
    assert error_against_truth(series.volume()) <= 0.51


def test_names_in_an_archive_stay_out_of_a_deidentified_store(scans):
    write_nifti(scans.parent / f"{CANARY}.nii.gz")
    make_zip(scans / "a.zip", [scans.parent / f"{CANARY}.nii.gz"])
    run(scans, deidentify=True)
    leaks = [p for p in (scans.parent / "store").rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]
    assert not leaks


def test_single_gzipped_dicom_files_are_read(scans):
    for path in save(make_slices(), scans.parent / "real"):
        (scans / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    (series,) = dicom.read(scans)
    assert error_against_truth(series.volume()) <= 0.51


@pytest.mark.parametrize("name", ["bomb.dcm.gz", "bomb.tar.gz"])
def test_a_gzip_bomb_is_refused_by_its_ratio(scans, name):
    with gzip.open(scans / name, "wb") as file:
        file.write(bytes(80 << 20))
    (rejected,) = dicom.read(scans)
    assert "times its size: a decompression bomb" in rejected.reason and name in rejected.reason


def test_a_nifti_bomb_is_refused_by_its_ratio(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((400, 400, 300), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "bomb.nii.gz")
    with pytest.raises(BadInput, match=r"bomb.nii.gz: unpacks to \d+ times its size"):
        nifti.read(tmp_path / "bomb.nii.gz")
    assert not nifti.read(tmp_path / "bomb.nii.gz", label=True).voxels.any()


def test_files_of_macos_about_others_are_ignored_quietly(scans):
    write_nifti(scans / "a.nii.gz")
    (scans / "._a.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(90))
    summary = run(scans)
    assert [Path(row.path).name for row in summary.rows] == ["a.nii.gz"]


@pytest.mark.parametrize("deidentify", [False, True])
def test_the_ledger_is_utf8_and_names_every_file(scans, deidentify):
    names = [b"a%20\xff\xe9.nii.gz", "Ä#|b.nii.gz".encode()]
    for n, name in enumerate(names):
        write_nifti(scans / f"{n}.nii.gz", n)
        (scans / f"{n}.nii.gz").rename(scans / os.fsdecode(name))
    (scans / os.fsdecode(b"\xfe.txt")).write_text("x")
    run(scans, deidentify=deidentify)
    tables = [scans.parent / "store" / "ledger.csv", *scans.parent.glob("store.private/files.csv")]
    for table in tables:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == 3
    if not deidentify:
        paths = {Path(row.path).name for row in file_ledger.read_ledger(tables[0])}
        assert paths == {*map(os.fsdecode, names), os.fsdecode(b"\xfe.txt")}


def count_opened(monkeypatch):
    opened = []
    real = archives._open_archive
    monkeypatch.setattr(archives, "_open_archive", lambda path, stack: (opened.append(path), real(path, stack))[1])
    return opened


@pytest.mark.parametrize("count", [4, 24])
def test_an_archive_is_opened_as_often_for_many_members_as_for_few(scans, monkeypatch, count):
    make_zip(scans / "a.zip", save(make_slices(count=count), scans.parent / "real"))
    opened = count_opened(monkeypatch)
    (series,) = dicom.read(scans)
    assert error_against_truth(series.volume()) <= 0.51
    assert len(opened) == 2  # for the headers, and for the pixels


def test_a_multi_frame_file_in_an_archive_is_unpacked_once_for_its_pixels(scans, monkeypatch):
    make_zip(scans / "a.zip", save([make_multiframe(make_slices(count=12))], scans.parent / "real"))
    (series,) = dicom.read(scans)
    unpacked = []
    real = archives._Archive.read
    monkeypatch.setattr(archives._Archive, "read", lambda self, name: (unpacked.append(name), real(self, name))[1])
    assert error_against_truth(series.volume()) <= 0.51
    assert len(unpacked) == 1
