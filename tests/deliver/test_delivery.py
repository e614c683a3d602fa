"""What reaches a hospital is what a reviewer signed, on the series that it was found in, or nothing."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from medssl import cli
from medssl.data.studies import series_name
from medssl.deliver.delivery import Wanted, write
from medssl.deliver.origin import origin, scanned
from medssl.deliver.reviewed import reviewed
from medssl.errors import BadInput
from medssl.io import dicom, labels, nifti
from medssl.io.write import SeriesInfo, dicom_series
from medssl.review import masks
from medssl.review.event import Act
from medssl.review.predictions import read_findings, read_index
from medssl.review.state import fold
from medssl.review.store import Store, beside

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
    return volume.oriented(desk.labels(case).orientation()).like(desk.labels(case)).voxels


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
    data = dcmread(tmp_path / "out/case-a/seg.dcm")
    assert data.SegmentSequence[0].TrackingUID == rows[A1]["tracking_uid"]
    report = hd.sr.srread(tmp_path / "out/case-a/sr.dcm")
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


def test_the_diameter_that_a_reader_measured_is_delivered(desk, tmp_path):
    axes = {"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 0, 0]]}
    desk.does("accept", A1).does("measure", A1, details=json.dumps(axes)).does("accept", A2).signs()
    desk.delivers(tmp_path / "out")
    rows = table(tmp_path / "out")
    assert float(rows[A1]["diameter_mm"]) == 5 and float(rows[A2]["diameter_mm"]) != 5


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
