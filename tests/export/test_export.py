"""What reaches a hospital is what a reviewer signed, on the series that it was found in, or nothing."""

import csv
import io
import json
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from medssl import cli
from medssl.data.ingest.dicom_studies import series_name
from medssl.errors import BadInput
from medssl.export.export import Wanted, archive, write
from medssl.export.reviewed_findings import reviewed
from medssl.export.source_series import origin, scanned
from medssl.io import nifti
from medssl.io.dicom import annotations as labels
from medssl.io.dicom import reader as dicom
from medssl.io.dicom.series_writer import SeriesInfo, dicom_series
from medssl.predictions_folder import Study, read_findings, read_index
from medssl.render import pdf
from medssl.review import mask_runs as masks
from medssl.review.access.reviewers import Reviewer
from medssl.review.corrected_labels import part
from medssl.review.event import Act
from medssl.review.event_store import Store, beside
from medssl.review.reading import fold
from tests.conftest import write_phantom_case

FULL = "CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
A1, A2 = "case-a-1-1", "case-a-1-2"


class Desk:
    """Someone who reads, and the scans that were predicted."""

    def __init__(self, predictions):
        self.index = read_index(predictions)
        self.scans = predictions.parent / "scans"
        self.store = Store(beside(predictions))
        self.number = 0
        for case in self.index.cases:
            self.scan(case)

    def scan(self, case: str, series: str = "1", name: str = "") -> None:
        image = read_image(self, case).oriented("LPS")
        dicom_series(image, self.scans / (name or case) / series, SeriesInfo(name or case, series=series))

    def does(self, action: str, finding: str = "", case: str = "case-a", role: str = "reader", **said) -> "Desk":
        self.number += 1
        act = Act(
            session="s", number=self.number, reviewer="ana", role=role, action=action, finding=finding, case=case,
            **said,
        )  # fmt: skip
        self.store.record(act)
        return self

    def signs(self, case: str = "case-a", **said) -> "Desk":
        return self.does("sign", case=case, details="[]", **said)

    def delivers(self, out, **wanted):
        return {o.case: o.reason for o in write(self.index, self.store, out, Wanted(self.scans, **wanted))}

    def labels(self, case: str = "case-a"):
        return nifti.read(self.index.case(case) / "labels.nii.gz", label=True)


@pytest.fixture
def desk(predictions):
    return Desk(predictions)


def read_image(desk, case: str):
    return replace(nifti.read(desk.index.case(case) / "image.nii.gz"), unit="HU")


def table(out) -> dict[str, dict[str, str]]:
    with (out / "findings.csv").open(newline="") as handle:
        return {row["finding"]: row for row in csv.DictReader(handle)}


def drawn(desk, out, case: str = "case-a"):
    """The delivered segments on the grid of the prediction."""
    (series,) = dicom.read(desk.scans / case)
    volume = labels.read(out / case / "seg.dcm").volume(series.volume())
    return volume.oriented(desk.labels(case).orientation()).require_same_grid(desk.labels(case)).voxels


def test_what_was_rejected_is_in_no_segment_and_in_the_report(desk, tmp_path):
    desk.does("accept", A1).does("reject", A2, reason="vessel").signs()
    told = desk.delivers(tmp_path / "out", organization="Hospital")
    assert told == {"case-a": "", "case-b": "not read", "case-c": "not read"}
    kept = np.zeros(desk.labels().shape, bool)
    found = {f.id: f for f in read_findings(desk.index.case("case-a"))}
    at = np.rint(desk.labels().to_index(np.array([found[A1].centre_mm]))).astype(int)[0]
    kept[tuple(at)] = True
    got = drawn(desk, tmp_path / "out")
    assert got[tuple(at)] == 1 and got.max() == 1
    assert np.count_nonzero(got) * desk.labels().voxel_ml() == pytest.approx(found[A1].volume_ml)
    rows = table(tmp_path / "out")
    assert (rows[A1]["verdict"], rows[A1]["segment"]) == ("accept", "1")
    assert (rows[A2]["verdict"], rows[A2]["segment"], rows[A2]["reason"]) == ("reject", "", "vessel")
    assert (rows[A1]["reviewer"], rows[A1]["role"]) == ("ana", "reader")
    data = dcmread(tmp_path / "out/case-a/seg.dcm")
    assert data.SegmentSequence[0].TrackingUID == rows[A1]["tracking_uid"]
    report = hd.sr.srread(tmp_path / "out/case-a/sr.dcm")
    ana = next(c for c in report.content.get_observer_contexts() if c.observer_type.meaning == "Person")
    who = ana.observer_identifying_attributes
    assert (who.name, who.organization_name, who.role_in_organization.meaning) == ("ana^", "Hospital", "reader")
    assert report.VerificationFlag == "VERIFIED"
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    assert group.tracking_uid == rows[A1]["tracking_uid"]
    assert (tmp_path / "out/case-a/report.pdf").read_bytes().startswith(b"%PDF")


def test_what_was_drawn_is_delivered(desk, tmp_path):
    before = desk.labels().oriented("RAS")
    wanted = before.voxels.copy()
    wanted[2:4, 3:6, 5:8] = 2
    desk.does("accept", A1).does("accept", A2).does(
        "missed", "reader-1", label=2,
        details=json.dumps(
            dict.fromkeys(("centre_mm", "low_mm", "high_mm"), (0, 0, 0))
            | {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0, "label": 2, "name": "cyst"}
        ),
    )  # fmt: skip
    desk.does("stroke", "reader-1", mask=masks.pack(masks.diff(before.voxels, wanted))).signs()
    desk.delivers(tmp_path / "out")
    expected = replace(before, voxels=wanted).oriented(desk.labels().orientation()).voxels
    assert np.array_equal(drawn(desk, tmp_path / "out") > 0, expected > 0)
    rows = table(tmp_path / "out")
    assert (rows["reader-1"]["verdict"], rows["reader-1"]["name"]) == ("missed", "cyst")
    assert float(rows["reader-1"]["volume_ml"]) == pytest.approx(18 * before.voxel_ml(), abs=1e-3)
    kinds = [s.SegmentAlgorithmType for s in dcmread(tmp_path / "out/case-a/seg.dcm").SegmentSequence]
    assert sorted(kinds) == ["AUTOMATIC", "AUTOMATIC", "SEMIAUTOMATIC"]


def test_findings_that_a_stroke_joined_are_one_and_both_are_told(desk):
    before = desk.labels().oriented("RAS")
    one, other = read_findings(desk.index.case("case-a"))
    wanted = before.voxels.copy()
    for t in np.linspace(0, 1, 200):
        mm = np.array(one.centre_mm) * (1 - t) + np.array(other.centre_mm) * t
        wanted[tuple(np.rint(before.to_index(mm)).astype(int))] = 1
    desk.does("edit", A1).does("accept", A2).does("stroke", A1, mask=masks.pack(masks.diff(before.voxels, wanted)))
    (reading,) = fold(desk.store.events()).values()
    done = reviewed(desk.labels(), (one, other), reading, {1: "nodule"})
    assert [item.number for item in done.items] == [1, None]
    assert {item.finding.id for item in done.items} == {A1, A2}
    assert done.items[0].corrected


AXES = json.dumps({"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 1, 0]]})
SHORT_MM = 13**0.5


def groups(out) -> dict[str, list[tuple[str, str, str]]]:
    """What the report says of each finding, straight from its content tree: name, code and value of every item."""
    found = {}
    for group in dcmread(out / "case-a/sr.dcm").ContentSequence[-1].ContentSequence:
        told = []
        for item in group.ContentSequence:
            (name,) = item.ConceptNameCodeSequence
            told.append((name.CodeMeaning, f"{name.CodeValue} {name.CodingSchemeDesignator}", value_of(item)))
        found[next(value for name, _, value in told if name == "Tracking Identifier")] = told
    return found


def value_of(item) -> str:
    if item.ValueType == "NUM":
        (value,) = item.MeasuredValueSequence
        return f"{value.NumericValue:.2f} {value.MeasurementUnitsCodeSequence[0].CodeValue}"
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.get("TextValue", ""))


def reports(monkeypatch) -> list:
    """The PDF reports that are written from now on, before they are drawn."""
    seen = []
    monkeypatch.setattr(pdf, "write", lambda report, path: seen.append(report))
    return seen


def test_both_diameters_that_a_reader_measured_are_delivered_beside_that_of_the_mask(desk, tmp_path, monkeypatch):
    seen = reports(monkeypatch)
    desk.does("accept", A1).does("measure", A1, details=AXES).does("accept", A2).signs().delivers(tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [float(rows[A1][name]) for name in ("long_axis_mm", "short_axis_mm")] == [5, round(SHORT_MM, 2)]
    assert rows[A1]["axes_plane"] == "axial" and float(rows[A1]["diameter_mm"]) > 6
    assert rows[A2]["long_axis_mm"] == rows[A2]["short_axis_mm"] == rows[A2]["axes_plane"] == ""
    shown = {name: row[3] for name, row in zip(rows, seen[0].rows, strict=True)}
    assert shown == {A1: "5.0 x 3.6", A2: f"{float(rows[A2]['diameter_mm']):.1f}"}
    said = {name: {(code, value) for _, code, value in told} for name, told in groups(tmp_path / "out").items()}
    assert {("103339001 SCT", "5.00 mm"), ("103340004 SCT", f"{SHORT_MM:.2f} mm")} <= said[A1]
    assert not {code for code, _ in said[A2]} & {"103339001 SCT", "103340004 SCT"}
    assert any(code == "L0JK IBSI" for code, _ in said[A1])


def test_axes_of_a_finding_without_voxels_are_delivered_too(desk, tmp_path):
    desk.does("reject", A1).does("measure", A1, details=AXES).does("accept", A2).signs().delivers(tmp_path / "out")
    report = hd.sr.srread(tmp_path / "out/case-a/sr.dcm").content
    (group,) = (g for g in report.get_image_measurement_groups() if g.tracking_identifier == A1)
    sizes = {m.name.meaning: m.value for m in group.get_measurements()}
    assert sizes["Long axis"] == 5 and sizes["Short axis"] == pytest.approx(SHORT_MM)


NOTE = "Größe $x_ wie bei Frau Qwertzsmith,\nsiehe links"


def test_reason_and_note_of_a_verdict_stand_in_every_document(desk, tmp_path, monkeypatch):
    desk.does("reject", A1, reason="normal anatomy", note=NOTE).does("accept", A2).signs().delivers(tmp_path / "drawn")
    seen = reports(monkeypatch)
    desk.delivers(tmp_path / "out")
    rows, said = table(tmp_path / "out"), groups(tmp_path / "out")
    assert (rows[A1]["reason"], rows[A1]["note"]) == ("normal anatomy", NOTE)
    assert ("Reason of the verdict", "reason 99MEDSSL", "normal anatomy") in said[A1]
    assert ("Comment", "121106 DCM", NOTE) in said[A1]
    assert not {name for name, *_ in said[A2]} & {"Reason of the verdict", "Comment"}
    assert f"normal anatomy; {NOTE}" in [row[-1] for row in seen[0].rows]
    group = next(
        g
        for g in hd.sr.srread(tmp_path / "out/case-a/sr.dcm").content.get_image_measurement_groups()
        if g.tracking_identifier == A1
    )
    assert {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()} == {
        "Verdict of the reviewer": "Rejected", "Reason of the verdict": "normal anatomy",
    }  # fmt: skip


def test_notes_stay_here_on_request(desk, tmp_path, monkeypatch, capsys):
    seen = reports(monkeypatch)
    desk.does("reject", A1, reason="vessel", note=NOTE).does("accept", A2).signs()
    words = [str(desk.index.folder), "--dicom", str(desk.scans), "--out", str(tmp_path / "out"), "--no-notes"]
    assert cli.run("deliver", words) == 0
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))
    assert "Qwertzsmith" not in str(seen[0]) and b"Qwertzsmith" not in written and b"vessel" in written


def test_growth_since_the_prior_is_that_of_both_reviews(desk, tmp_path, monkeypatch):
    seen = reports(monkeypatch)
    write_phantom_case(desk.index.folder / "case-b", "case-b", [(10, 12, 8), (26, 6, 16)])
    studies = {"case-a": Study("p", day=90), "case-b": Study("p", day=0)}
    desk.index = replace(desk.index, studies=studies)
    before = desk.labels().oriented("RAS")
    ball = part(before, next(f for f in read_findings(desk.index.case("case-a")) if f.id == A1))
    grown = ndimage.binary_dilation(ball, iterations=2)
    drawn = np.where(grown, np.uint8(1), before.voxels)
    desk.does("edit", A1).does("stroke", A1, mask=masks.pack(masks.diff(before.voxels, drawn))).does("accept", A2)
    desk.signs().does("reject", "case-b-1-2", case="case-b")
    desk.delivers(tmp_path / "out")
    rows, ratio = table(tmp_path / "out"), grown.sum() / ball.sum()
    assert (rows[A1]["prior"], rows[A1]["prior_days"]) == ("case-b", "90")
    assert float(rows[A1]["volume_change_percent"]) == pytest.approx(100 * (ratio - 1), abs=0.1)
    assert float(rows[A1]["doubling_days"]) == pytest.approx(90 * np.log(2) / np.log(ratio), abs=0.1)
    assert rows[A2]["volume_change_percent"] == rows[A2]["doubling_days"] == ""
    facts = dict(seen[0].facts)
    assert facts["Prior"] == "case-b, 90 days before, read by ana" and facts["Only in the prior"] == "nothing"
    cells = {row[0]: row[-1] for row in seen[0].rows}
    assert "volume doubling time" in cells[rows[A1]["segment"]] and cells[rows[A2]["segment"]] == "not in the prior"
    with zipfile.ZipFile(io.BytesIO(archive(desk.index, desk.store, "case-a", Wanted()))) as file:
        assert b"case-b,90," in file.read("findings.csv") and len(file.namelist()) == 1


def test_what_is_rejected_now_is_not_gone_since_the_prior(desk, tmp_path, monkeypatch):
    seen = reports(monkeypatch)
    write_phantom_case(desk.index.folder / "case-b", "case-b", [(10, 12, 8)])
    desk.index = replace(desk.index, studies={"case-a": Study("p", day=9), "case-b": Study("p", day=0)})
    (before,) = read_findings(desk.index.case("case-b"))
    same = next(f.id for f in read_findings(desk.index.case("case-a")) if f.centre_mm == before.centre_mm)
    for finding in (A1, A2):
        desk.does("reject" if finding == same else "accept", finding)
    desk.signs().delivers(tmp_path / "out")
    assert dict(seen[0].facts)["Only in the prior"] == "nothing"
    assert {row["volume_change_percent"] for row in table(tmp_path / "out").values()} == {""}


def test_of_a_prior_that_nobody_read_the_model_is_believed_and_what_is_gone_is_told(desk, tmp_path, monkeypatch):
    seen = reports(monkeypatch)
    write_phantom_case(desk.index.folder / "case-b", "case-b", [(10, 12, 8), (26, 6, 16)])
    desk.index = replace(desk.index, studies={case: Study("p") for case in desk.index.cases})
    desk.does("accept", "case-b-1-1", case="case-b", model="f" * 64)
    desk.index = replace(desk.index, cases=("case-b", "case-a", "case-c"))
    desk.does("accept", A1).does("accept", A2).signs().delivers(tmp_path / "out")
    facts = dict(seen[0].facts)
    assert facts["Prior"] == "case-b, as predicted, read by nobody"
    assert facts["Only in the prior"].startswith("nodule of 0.1")
    grown = [row["volume_change_percent"] for row in table(tmp_path / "out").values()]
    assert sorted(grown) == ["", "0.0"]


def test_nothing_unsigned_leaves_unless_asked_and_then_unverified(desk, tmp_path):
    desk.does("accept", A1)
    with pytest.raises(BadInput, match="no case can be delivered"):
        desk.delivers(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(desk.delivers(tmp_path / "out", unsigned=True).values()) == {""}
    for case in desk.index.cases:
        assert dcmread(tmp_path / "out" / case / "sr.dcm").VerificationFlag == "UNVERIFIED"
    assert not (tmp_path / "out/case-c/seg.dcm").exists()
    assert table(tmp_path / "out")[A2]["verdict"] == ""


def test_a_sign_off_of_no_clinician_or_a_reopened_one_verifies_nothing(desk, tmp_path):
    desk.signs(role="admin").signs("case-b").does("reopen", case="case-b")
    told = desk.delivers(tmp_path / "out")
    assert told["case-b"] == "not signed"
    assert dcmread(tmp_path / "out/case-a/sr.dcm").VerificationFlag == "UNVERIFIED"


def test_what_was_delivered_before_is_verified_again(desk, tmp_path):
    desk.signs().does("deliver", role="senior").delivers(tmp_path / "out")
    assert dcmread(tmp_path / "out/case-a/sr.dcm").VerificationFlag == "VERIFIED"


def test_the_command_writes_down_who_took_which_case_away_as_the_app_does(desk, tmp_path, capsys):
    desk.signs().signs("case-b")
    words = [str(desk.index.folder), "--out", str(tmp_path / "out"), "--reviewer", "boss", "--role", "admin"]
    assert cli.run("deliver", words) == 0
    told = [(e.action, e.case, e.reviewer, e.role, e.model) for e in desk.store.events()[2:]]
    assert told == [("deliver", case, "boss", "admin", desk.index.weights) for case in ("case-a", "case-b")]
    assert cli.run("audit", ["verify", desk.store.name]) == 0
    assert "4 events, unbroken" in capsys.readouterr().out


def test_what_cannot_be_written_down_is_not_delivered(desk, tmp_path, capsys):
    desk.signs().signs("case-b")
    with closing(sqlite3.connect(desk.store.name)) as db, db:
        db.execute(FULL)
    assert cli.run("deliver", [str(desk.index.folder), "--out", str(tmp_path / "out")]) == 2
    assert "cannot keep verdicts (database or disk is full)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and len(desk.store.events()) == 2
    with pytest.raises(BadInput, match="As reader you may not deliver"):
        write(desk.index, desk.store, tmp_path / "out", Wanted(), Reviewer("ana", "reader"))
    assert not (tmp_path / "out").exists()


def test_a_series_with_other_voxels_or_another_place_is_refused(desk, tmp_path):
    desk.signs().signs("case-b").signs("case-c")
    path = sorted((desk.scans / "case-a").rglob("*.dcm"))[4]
    data = dcmread(path)
    pixels = bytearray(data.PixelData)
    pixels[100] ^= 1
    data.PixelData = bytes(pixels)
    data.save_as(path)
    for path in (desk.scans / "case-b").rglob("*.dcm"):
        data = dcmread(path)
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y + 0.1, z]
        data.save_as(path)
    told = desk.delivers(tmp_path / "out")
    assert "no series of the scans has its grid and its voxels" in told["case-a"]
    assert "no series" in told["case-b"]
    assert told["case-c"] == ""


def test_two_series_of_the_same_voxels_are_refused(desk, tmp_path):
    desk.signs().signs("case-b")
    desk.scan("case-a", name="someone-else")
    assert "2 series have its grid and its voxels" in desk.delivers(tmp_path / "out")["case-a"]


def test_a_case_is_of_the_series_it_is_named_after_or_of_none(desk):
    one, other = (read_image(desk, case) for case in ("case-a", "case-b"))
    desk.scan("case-a", name="someone-else")
    series = scanned(desk.scans)
    first, second = (s for s in series if np.array_equal(s.volume().voxels, one.oriented("LPS").voxels))
    for named in (first, second):
        assert origin(f"CT-{series_name(named)}", one.oriented("LPS"), series) is named
    with pytest.raises(BadInput, match="named after"):
        origin(f"CT-{series_name(first)}", other.oriented("LPS"), series)


def test_of_a_case_that_fails_half_way_nothing_is_left(desk, tmp_path):
    for path in (desk.scans / "case-a").rglob("*.dcm"):
        data = dcmread(path)
        del data.FrameOfReferenceUID
        data.save_as(path)
    desk.does("accept", A1).signs().signs("case-c")
    assert "Frame Of Reference" in desk.delivers(tmp_path / "out")["case-a"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["case-c", "findings.csv"]
    assert not table(tmp_path / "out")


def test_verdicts_on_another_models_prediction_are_refused(desk, tmp_path):
    desk.signs(model="f" * 64).signs("case-b", model="0" * 64)
    told = desk.delivers(tmp_path / "out")
    assert "another model" in told["case-a"] and told["case-b"] == ""


def test_without_scans_there_is_a_report_and_a_table(desk, tmp_path, capsys):
    desk.does("accept", A1).signs()
    predictions = desk.index.folder
    assert cli.run("deliver", [str(predictions), "--out", str(tmp_path / "out")]) == 0
    assert "left out case-b: not read" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out/case-a").iterdir()) == ["report.pdf"]
    assert cli.run("deliver", [str(predictions), "--out", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named_in_one_line():
    code = "import sys; sys.modules['highdicom'] = None\nfrom medssl import cli; sys.exit(cli.run('deliver', ['-h']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "medssl deliver: needs highdicom, which is not installed; pip install 'medssl[app]'\n"
