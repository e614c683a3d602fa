"""`predict --dicom-out` writes documents that are not verified, once per case and complete or not at all."""

import csv
import errno
import json
import re
import shutil
import subprocess
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from medssl import cli
from medssl.data.ingest.read_source import ScanRef, list_stored_scans
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.export import export
from medssl.export.predicted_documents import PredictedDocuments
from medssl.files import sha256
from medssl.io.dicom import reader
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.predictions_folder import read_findings, read_index
from medssl.volume import Volume
from tests.export.test_export import A1, ReviewedPredictions, read_table
from tests.helpers.finished_runs import make_finished_run, write_scans

DOCUMENTS = {"findings.json", "montage.png", "report.pdf", "seg.dcm", "sr.dcm"}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A run, two DICOM series, and what `predict --dicom-out` makes of them."""
    place = tmp_path_factory.mktemp("predicted")
    make_finished_run(place / "run")
    for name in ("one", "two"):
        noise = np.random.default_rng(len(name)).normal(0, 300, (20, 18, 16)).astype(np.int16)
        image = Volume(noise, np.diag([1.0, 1.0, 1.5, 1.0]), "HU").reorient("LPS")
        write_series(image, place / "scans" / name, SeriesInfo(name))
    assert predict(place) == 0
    return place


def predict(place, *options, scans="scans", out="out", documents="documents"):
    words = [place / "run", place / scans, "--out", place / out, "--dicom-out", place / documents, *options]
    return cli.run("predict", [str(word) for word in words])


def test_each_series_gets_unverified_documents_that_name_the_network(predicted):
    index = read_index(predicted / "out")
    for case in index.cases:
        folder = predicted / "documents" / case
        assert {path.name for path in folder.iterdir()} == DOCUMENTS
        assert (folder / "seg.dcm").stat().st_mode & 0o077 == 0
        seg, report = dcmread(folder / "seg.dcm"), dcmread(folder / "sr.dcm")
        assert {segment.SegmentAlgorithmType for segment in seg.SegmentSequence} == {"AUTOMATIC"}
        assert seg.DeviceSerialNumber == index.weights_sha256
        assert (report.VerificationFlag, report.CompletionFlag) == ("UNVERIFIED", "PARTIAL")
        (series,) = [
            s for s in reader.read(predicted / "scans") if case.endswith(s.uid) or s.study == seg.StudyInstanceUID
        ]
        assert report.StudyInstanceUID == seg.StudyInstanceUID == series.study
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid
        assert len(re.findall(rb"/Type\s*/Page\b", (folder / "report.pdf").read_bytes())) == 1
        with Image.open(folder / "montage.png") as picture:
            assert picture.width > 300 and len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_the_tables_hold_what_readers_measure(predicted):
    index = read_index(predicted / "out")
    rows = read_table(predicted / "documents")
    findings = [finding for case in index.cases for finding in read_findings(index.case_folder(case))]
    assert list(rows) == [finding.id for finding in findings]
    for finding in findings:
        row = rows[finding.id]
        assert float(row["mask_long_axis_mm"]) == pytest.approx(finding.long_axis_mm, abs=0.01)
        assert float(row["extent_z_mm"]) == pytest.approx(finding.high_mm[2] - finding.low_mm[2], abs=0.01)
        assert float(row["mean_intensity"]) == pytest.approx(finding.mean_intensity, abs=0.01)
        assert (row["kind"], row["verdict"], row["outline_type"]) == (finding.kind, "", "AUTOMATIC")
    content = json.loads((predicted / "documents" / index.cases[0] / "findings.json").read_text())
    assert content["notice"] == "Research use only. Not for clinical use."
    assert [row["finding"] for row in content["findings"]] == [f.id for f in findings if f.case == index.cases[0]]


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
def test_a_validator_finds_no_error(predicted, name):
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (Debian: dicom3tools)")
    for path in (predicted / "documents").rglob(name):
        process = subprocess.run([program, path], capture_output=True, text=True, timeout=60)
        assert not [line for line in (process.stdout + process.stderr).splitlines() if line.startswith("Error")]


def test_a_killed_command_resumes_and_writes_no_case_twice(predicted, monkeypatch):
    write, calls = export.CaseExporter.write, []

    def interrupt(self, folder, series):
        calls.append(self.name)
        rows = write(self, folder, series)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rows

    monkeypatch.setattr(export.CaseExporter, "write", interrupt)
    assert predict(predicted, out="killed", documents="killed-documents") == 130
    first, second = read_index(predicted / "killed").cases
    written = predicted / "killed-documents" / first / "seg.dcm"
    before = sha256(written)
    assert not (predicted / "killed-documents" / second).exists()
    assert list(read_table(predicted / "killed-documents")) == [
        f.id for f in read_findings(predicted / "killed" / first)
    ]
    assert predict(predicted, "--resume", out="killed", documents="killed-documents") == 0
    assert calls == [first, second, second] and sha256(written) == before
    assert read_table(predicted / "killed-documents").keys() == read_table(predicted / "documents").keys()


def test_documents_of_another_prediction_are_refused(predicted, capsys):
    assert predict(predicted, out="third") == 2
    assert "exists already; choose another --dicom-out" in capsys.readouterr().err
    shutil.copytree(predicted / "documents", predicted / "other")
    for path in (predicted / "other").rglob("findings.json"):
        path.write_text(path.read_text().replace("labels_sha256", "labels"))
    assert predict(predicted, "--resume", documents="other") == 2
    assert "holds the documents of another prediction" in capsys.readouterr().err


def test_image_files_have_no_dicom_documents(predicted):
    write_scans(predicted / "images", 1)
    options = ("--modality", "CT")
    assert predict(predicted, *options, scans="images", out="images-out", documents="images-documents") == 0
    names = {path.name for path in (predicted / "images-documents" / "scan0").iterdir()}
    assert names == DOCUMENTS - {"seg.dcm", "sr.dcm"}


def test_a_case_that_cannot_be_exported_is_named_and_the_others_are_written(predictions, tmp_path, caplog):
    review = ReviewedPredictions(predictions)
    documents = PredictedDocuments.open(tmp_path / "documents", resume=False)
    scans = {case: list((review.dicom / case).rglob("*.dcm")) for case in review.index.cases}
    scans["case-b"] = scans["case-a"]
    for case, files in scans.items():
        documents.add_scan(review.index, ScanRef(case, case, None, lambda: None, list_files=lambda f=files: tuple(f)))
    assert "case-b: no documents: no DICOM series has the grid" in caplog.text
    with pytest.raises(BadInput, match="1 cases have no documents: case-b"):
        documents.require_complete()
    assert sorted(path.name for path in (tmp_path / "documents").iterdir()) == ["case-a", "case-c", "findings.csv"]
    assert not [*tmp_path.rglob(".part-*")]
    assert dcmread(tmp_path / "documents/case-c/sr.dcm").VerificationFlag == "UNVERIFIED"  # no finding, no SEG


@pytest.mark.parametrize(("number", "is_case_left_out"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_a_series_that_cannot_be_read_costs_its_case_and_a_full_disk_the_batch(
    predictions, tmp_path, number, is_case_left_out
):
    documents = PredictedDocuments.open(tmp_path / "documents", resume=False)

    def fail():
        raise OSError(number, "the disk is broken")

    scan = ScanRef("case-a", "a", None, lambda: None, list_files=fail)
    with nullcontext() if is_case_left_out else pytest.raises(OSError, match="broken"):
        documents.add_scan(ReviewedPredictions(predictions).index, scan)
    with pytest.raises(BadInput, match=r"case-a.*broken") if is_case_left_out else nullcontext():
        documents.require_complete()


def test_predictions_that_nobody_opened_are_delivered_on_request(predictions, tmp_path, capsys):
    review = ReviewedPredictions(predictions)
    (predictions.parent / "predictions-review.sqlite").unlink(missing_ok=True)
    words = [str(predictions), "--dicom", str(review.dicom), "--out", str(tmp_path / "out")]
    assert cli.run("deliver", words) == 2 and "no verdicts here" in capsys.readouterr().err
    assert cli.run("deliver", [*words, "--unsigned", "--audit-db", str(tmp_path / "none.sqlite")]) == 2
    assert not (tmp_path / "none.sqlite").exists()
    assert cli.run("deliver", [*words, "--unsigned"]) == 0
    assert dcmread(tmp_path / "out/case-a/sr.dcm").VerificationFlag == "UNVERIFIED"
    assert read_table(tmp_path / "out")[A1]["verdict"] == ""
    actions = [event.action for event in ReviewedPredictions(predictions).store.read_events()]
    assert actions == ["predict"] * 3 + ["deliver"] * 3


def test_scans_of_a_store_lead_to_their_files(predicted):
    words = [predicted / "scans", "--out", predicted / "store", "--workers", "0"]
    assert cli.run("ingest", [str(word) for word in words]) == 0
    scans = list_stored_scans(Manifest.read(predicted / "store/manifest.csv"))
    assert len(scans) == 2
    for scan in scans:
        assert scan.is_deidentified and all(path.exists() for path in scan.list_files())


def test_the_table_is_plain_csv(predicted):
    with (predicted / "documents/findings.csv").open(newline="") as handle:
        assert {row["notice"] for row in csv.DictReader(handle)} == {"Research use only. Not for clinical use."}
