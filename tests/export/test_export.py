"""Only what a reviewer signed is exported, on the series that it was found in."""

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
from medssl.data.ingest.dicom_studies import name_series
from medssl.errors import BadInput
from medssl.export.export import ExportOptions, export_archive, export_review
from medssl.export.reviewed_findings import review_case
from medssl.export.source_series import find_source_series, read_all_series
from medssl.io import nifti
from medssl.io.dicom import annotations as labels
from medssl.io.dicom import reader as dicom
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.predictions_folder import IMPORTED, StudyRef, read_findings, read_index
from medssl.render import pdf
from medssl.review.access.reviewers import Reviewer
from medssl.review.corrected_labels import extract_finding_mask
from medssl.review.event import Act
from medssl.review.event_store import EventStore, get_default_database
from medssl.review.mask_runs import diff_masks, pack_runs
from medssl.review.reading import replay
from tests.conftest import write_phantom_case

FULL = "CREATE TRIGGER full BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
A1, A2 = "case-a-1-1", "case-a-1-2"


class ReviewedPredictions:
    """Predictions, their DICOM files and the event log of one reader."""

    def __init__(self, predictions):
        self.index = read_index(predictions)
        self.dicom = predictions.parent / "scans"
        self.store = EventStore(get_default_database(predictions))
        self.number = 0
        for case in self.index.cases:
            self.write_scan(case)

    def write_scan(self, case: str, series: str = "1", name: str = "") -> None:
        image = read_image(self, case).reorient("LPS")
        write_series(image, self.dicom / (name or case) / series, SeriesInfo(name or case, series=series))

    def act(
        self, action: str, finding: str = "", case: str = "case-a", role: str = "reader", **fields
    ) -> "ReviewedPredictions":
        self.number += 1
        act = Act(
            session="s", number=self.number, reviewer="ana", role=role, action=action, finding=finding, case=case,
            **fields,
        )  # fmt: skip
        self.store.record(act)
        return self

    def sign(self, case: str = "case-a", **fields):
        return self.act("sign", case=case, details="[]", **fields)

    def export(self, out, **options):
        return {
            o.case: o.reason for o in export_review(self.index, self.store, out, ExportOptions(self.dicom, **options))
        }

    def read_labels(self, case: str = "case-a"):
        return nifti.read(self.index.case_folder(case) / "labels.nii.gz", label=True)


@pytest.fixture
def review(predictions):
    return ReviewedPredictions(predictions)


def read_image(review, case: str):
    return replace(nifti.read(review.index.case_folder(case) / "image.nii.gz"), unit="HU")


def read_table(out) -> dict[str, dict[str, str]]:
    with (out / "findings.csv").open(newline="") as handle:
        return {row["finding"]: row for row in csv.DictReader(handle)}


def read_segments(review, out, case: str = "case-a"):
    """Returns the exported segments on the grid of the prediction."""
    (series,) = dicom.read(review.dicom / case)
    volume = labels.read(out / case / "seg.dcm").volume(series.volume())
    return volume.reorient(review.read_labels(case).orientation()).require_same_grid(review.read_labels(case)).voxels


def test_a_rejected_finding_is_in_the_report_but_not_in_the_segmentation(review, tmp_path):
    review.act("accept", A1).act("reject", A2, reason="vessel").sign()
    reasons = review.export(tmp_path / "out", organization="Hospital")
    assert reasons == {"case-a": "", "case-b": "not read", "case-c": "not read"}
    expected = np.zeros(review.read_labels().shape, bool)
    findings = {f.id: f for f in read_findings(review.index.case_folder("case-a"))}
    index = np.rint(review.read_labels().to_index(np.array([findings[A1].centre_mm]))).astype(int)[0]
    expected[tuple(index)] = True
    segments = read_segments(review, tmp_path / "out")
    assert segments[tuple(index)] == 1 and segments.max() == 1
    assert np.count_nonzero(segments) * review.read_labels().voxel_ml() == pytest.approx(findings[A1].volume_ml)
    rows = read_table(tmp_path / "out")
    assert (rows[A1]["verdict"], rows[A1]["segment"]) == ("accept", "1")
    assert (rows[A2]["verdict"], rows[A2]["segment"], rows[A2]["reason"]) == ("reject", "", "vessel")
    assert (rows[A1]["reviewer"], rows[A1]["role"]) == ("ana", "reader")
    data = dcmread(tmp_path / "out/case-a/seg.dcm")
    assert data.SegmentSequence[0].TrackingUID == rows[A1]["tracking_uid"]
    report = hd.sr.srread(tmp_path / "out/case-a/sr.dcm")
    person = next(c for c in report.content.get_observer_contexts() if c.observer_type.meaning == "Person")
    attributes = person.observer_identifying_attributes
    assert (attributes.name, attributes.organization_name, attributes.role_in_organization.meaning) == (
        "ana^",
        "Hospital",
        "reader",
    )
    assert report.VerificationFlag == "VERIFIED"
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    assert group.tracking_uid == rows[A1]["tracking_uid"]
    assert (tmp_path / "out/case-a/report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("is_assisted", [True, False])
def test_an_added_finding_names_the_tool_that_proposed_its_outline(review, tmp_path, is_assisted):
    tool = {"assist": {"engine": "medssl-assist", "version": "1", "num_clicks": 3}}
    point = [0.0, 0.0, 0.0]
    added = dict.fromkeys(("centre_mm", "low_mm", "high_mm"), point) | {"label": 1, "name": "nodule", "score": 1.0}
    review.act("accept", A1).act("accept", A2)
    review.act("missed", "reader-x-1", details=json.dumps(added | {"volume_ml": 0.0, "diameter_mm": 0.0}))
    details = json.dumps(tool) if is_assisted else ""
    review.act("stroke", "reader-x-1", mask=pack_runs([[3, 3, 1]]), details=details).sign().export(tmp_path / "out")
    row = read_table(tmp_path / "out")["reader-x-1"]
    expected = ("medssl-assist 1, edited by ana", "SEMIAUTOMATIC") if is_assisted else ("drawn by ana", "MANUAL")
    assert (row["outline_by"], row["outline_type"]) == expected
    types = {s.TrackingID: s.SegmentAlgorithmType for s in dcmread(tmp_path / "out/case-a/seg.dcm").SegmentSequence}
    assert types["reader-x-1"] == expected[1]


def read_uids(folder):
    files = [dcmread(folder / "case-a" / f"{name}.dcm") for name in ("seg", "rtstruct", "sr")]
    return [(data.SeriesInstanceUID, data.SOPInstanceUID) for data in files]


def test_the_same_content_has_the_same_uids_and_another_has_others(review, tmp_path):
    options = ExportOptions(review.dicom, cases=("case-a",), include_rtstruct=True)
    review.act("accept", A1).act("accept", A2).sign()
    for name in ("first", "again"):
        export_review(review.index, review.store, tmp_path / name, options)
    first = read_uids(tmp_path / "first")
    assert read_uids(tmp_path / "again") == first and len({uid for pair in first for uid in pair}) == 6
    review.act("reopen")
    paint(review, A1, (slice(0, 6), slice(26, 32), slice(0, 6)))
    review.sign()
    export_review(review.index, review.store, tmp_path / "changed", options)
    assert not {uid for pair in first for uid in pair} & {
        uid for pair in read_uids(tmp_path / "changed") for uid in pair
    }


def test_an_outline_names_the_tool_that_made_it_and_the_reader_who_changed_it(review, tmp_path):
    """In SEG, SR and table: nnU-Net for imported masks, both for an edited one."""
    model = {"run": "nnU-Net", "weights_sha256": IMPORTED, "tool": "nnU-Net", "tool_version": "2.6.2", "version": "9"}
    review.index = replace(review.index, model=model)
    before = review.read_labels().reorient("RAS")
    corrected = before.voxels.copy()
    findings = {f.id: f for f in read_findings(review.index.case_folder("case-a"))}
    corrected[tuple(np.rint(before.to_index(np.array(findings[A2].centre_mm))).astype(int))] = 0
    review.act("accept", A1).act("edit", A2)
    review.act("stroke", A2, mask=pack_runs(diff_masks(before.voxels, corrected))).sign().export(tmp_path / "out")
    rows = read_table(tmp_path / "out")
    outlines = {name: (row["outline_by"], row["outline_type"]) for name, row in rows.items()}
    assert outlines == {
        A1: ("nnU-Net 2.6.2", "AUTOMATIC"), A2: ("nnU-Net 2.6.2, edited by ana", "SEMIAUTOMATIC"),
    }  # fmt: skip
    data = dcmread(tmp_path / "out/case-a/seg.dcm")
    names = {s.TrackingID: (s.SegmentAlgorithmName, s.SegmentAlgorithmType) for s in data.SegmentSequence}
    assert names == outlines and data.DeviceSerialNumber == "unknown"
    report = str(dcmread(tmp_path / "out/case-a/sr.dcm"))
    assert "nnU-Net" in report and "2.6.2" in report and "none: predicted" not in report
    assert {rows[A1]["meaning"], rows[A2]["meaning"]} == {"reviewed"}


def test_outlines_are_delivered_as_contours_on_request(review, tmp_path):
    review.act("accept", A1).act("accept", A2).sign()
    words = [str(review.index.folder), "--dicom", str(review.dicom), "--out", str(tmp_path / "out"), "--rtstruct"]
    assert cli.run("deliver", words) == 0
    (series,) = dicom.read(review.dicom / "case-a")
    contours = labels.read(tmp_path / "out/case-a/rtstruct.dcm").volume(series.volume())
    assert np.array_equal(contours.voxels, labels.read(tmp_path / "out/case-a/seg.dcm").volume(series.volume()).voxels)


def test_a_drawn_finding_is_exported(review, tmp_path):
    before = review.read_labels().reorient("RAS")
    corrected = before.voxels.copy()
    corrected[2:4, 3:6, 5:8] = 2
    review.act("accept", A1).act("accept", A2).act(
        "missed", "reader-1", label=2,
        details=json.dumps(
            dict.fromkeys(("centre_mm", "low_mm", "high_mm"), (0, 0, 0))
            | {"volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0, "label": 2, "name": "cyst"}
        ),
    )  # fmt: skip
    review.act("stroke", "reader-1", mask=pack_runs(diff_masks(before.voxels, corrected))).sign()
    review.export(tmp_path / "out")
    expected = replace(before, voxels=corrected).reorient(review.read_labels().orientation()).voxels
    assert np.array_equal(read_segments(review, tmp_path / "out") > 0, expected > 0)
    rows = read_table(tmp_path / "out")
    assert (rows["reader-1"]["verdict"], rows["reader-1"]["name"]) == ("missed", "cyst")
    assert float(rows["reader-1"]["volume_ml"]) == pytest.approx(18 * before.voxel_ml(), abs=1e-3)
    kinds = [s.SegmentAlgorithmType for s in dcmread(tmp_path / "out/case-a/seg.dcm").SegmentSequence]
    assert sorted(kinds) == ["AUTOMATIC", "AUTOMATIC", "MANUAL"]


def paint(review, finding: str, box, label: int = 1) -> None:
    """Records a stroke that gives all voxels of a box, on the RAS grid, one label."""
    flat = np.arange(np.prod(review.read_labels().shape)).reshape(review.read_labels().shape, order="F")[box]
    review.act("stroke", finding, mask=pack_runs([[n, 1, label] for n in np.sort(flat, axis=None).tolist()]))


def read_reviewed(review):
    (reading,) = replay(review.store.read_events("case-a")).values()
    names = {1: "nodule", 2: "cyst"}
    findings = read_findings(review.index.case_folder("case-a"))
    return review_case(review.read_labels(), findings, reading, names)


def locate(review, finding: str) -> tuple[int, int, int]:
    """Returns the voxel at the centre of a predicted finding, on the RAS grid."""
    findings = {f.id: f for f in read_findings(review.index.case_folder("case-a"))}
    ras = review.read_labels().reorient("RAS")
    i, j, k = np.rint(ras.to_index(np.array(findings[finding].centre_mm))).astype(int)
    return int(i), int(j), int(k)


def test_a_stroke_that_bridges_two_findings_leaves_both(review):
    i, j, k = locate(review, A1)
    x, y, z = locate(review, A2)
    box = tuple(slice(min(a, b), max(a, b) + 1) for a, b in ((i, x), (j, y), (k, z)))
    inside = review.read_labels().reorient("RAS").voxels[box] == 0
    flat = np.arange(np.prod(review.read_labels().shape)).reshape(review.read_labels().shape, order="F")[box][inside]
    review.act("edit", A1).act("accept", A2)
    review.act("stroke", A1, mask=pack_runs([[n, 1, 1] for n in np.sort(flat).tolist()]))
    first, second = read_reviewed(review).items
    assert [(item.finding.id, item.number, item.is_corrected) for item in (first, second)] == [
        (A1, 1, True), (A2, 2, False),
    ]  # fmt: skip
    predicted = {f.id: f.volume_ml for f in read_findings(review.index.case_folder("case-a"))}
    voxel_ml = review.read_labels().voxel_ml()
    assert first.finding.volume_ml == pytest.approx(predicted[A1] + len(flat) * voxel_ml)
    assert second.finding.volume_ml == pytest.approx(predicted[A2])


def test_a_finding_keeps_its_identity_when_a_larger_region_is_drawn_for_it(review, tmp_path):
    box = (slice(0, 9), slice(20, 32), slice(0, 9))  # far from both nodules, and larger
    paint(review, A1, box)
    first_export = {item.finding.id: item for item in read_reviewed(review).items}
    predicted = {f.id: f for f in read_findings(review.index.case_folder("case-a"))}
    part = f"{A1}-part-1"
    assert list(first_export) == [A1, A2, part]
    assert first_export[A1].finding.centre_mm == pytest.approx(predicted[A1].centre_mm)
    assert first_export[A1].finding.volume_ml == pytest.approx(predicted[A1].volume_ml)
    assert first_export[part].finding.volume_ml == pytest.approx(9 * 12 * 9 * review.read_labels().voxel_ml())
    paint(review, A1, (slice(0, 9), slice(18, 20), slice(0, 9)))  # a further stroke renames nothing
    review.act("edit", A1).act("accept", A2).sign().export(tmp_path / "out")
    rows = read_table(tmp_path / "out")
    assert set(rows) == {A1, A2, part} and rows[part]["verdict"] == "edit"
    assert len({row["tracking_uid"] for row in rows.values()}) == 3
    centre = [float(rows[A1][name]) for name in ("x_mm", "y_mm", "z_mm")]
    assert centre == pytest.approx(predicted[A1].centre_mm, abs=0.01)


def test_a_finding_that_is_cut_in_two_keeps_its_identity_in_the_larger_part(review):
    i, j, k = locate(review, A1)
    paint(review, A1, (slice(i + 1, i + 2), slice(j - 4, j + 5), slice(k - 4, k + 5)), label=0)
    items = {item.finding.id: item for item in read_reviewed(review).items}
    assert list(items) == [A1, A2, f"{A1}-part-1"]
    assert items[A1].finding.volume_ml > items[f"{A1}-part-1"].finding.volume_ml > 0
    assert items[A1].is_corrected and not items[A2].is_corrected


def test_an_erased_finding_has_no_size_left(review):
    i, j, k = locate(review, A1)
    paint(review, A1, (slice(i - 4, i + 5), slice(j - 4, j + 5), slice(k - 4, k + 5)), label=0)
    items = {item.finding.id: item for item in read_reviewed(review).items}
    assert items[A1].number is None and items[A1].finding.volume_ml == items[A1].finding.diameter_mm == 0
    assert items[A2].number == 1


def test_a_rejected_finding_takes_what_was_drawn_for_it_along(review):
    i, j, k = locate(review, A1)
    before = review.read_labels().reorient("RAS").voxels
    paint(review, A1, (slice(i, i + 7), slice(j, j + 1), slice(k, k + 1)))
    review.act("reject", A1).act("relabel", A2, label=2)
    case = read_reviewed(review)
    assert set(np.unique(case.labels.voxels)) == {0, 2}
    assert np.count_nonzero(case.labels.voxels) == np.count_nonzero(before) / 2  # both nodules are equally large
    assert [(item.number, item.finding.name) for item in case.items] == [(None, "nodule"), (1, "cyst")]
    review.act("accept", A1)
    assert np.count_nonzero(read_reviewed(review).labels.voxels == 1) > np.count_nonzero(before) / 2


def test_what_is_drawn_for_no_finding_is_named_by_its_stroke(review):
    paint(review, "", (slice(0, 3), slice(0, 3), slice(0, 3)), label=2)
    items = {item.finding.id: item for item in read_reviewed(review).items}
    assert items["case-a-drawn-1"].finding.name == "cyst" and items["case-a-drawn-1"].finding.source == "reader"


AXES = json.dumps({"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 1, 0]]})
SHORT_MM = 13**0.5


def read_groups(out) -> dict[str, list[tuple[str, str, str]]]:
    """Returns for each finding the name, code and value of every item in the content tree of the report."""
    groups = {}
    for group in dcmread(out / "case-a/sr.dcm").ContentSequence[-1].ContentSequence:
        items = []
        for item in group.ContentSequence:
            (name,) = item.ConceptNameCodeSequence
            items.append((name.CodeMeaning, f"{name.CodeValue} {name.CodingSchemeDesignator}", format_value(item)))
        groups.setdefault(next(value for name, _, value in items if name == "Tracking Identifier"), []).extend(items)
    return groups


def format_value(item) -> str:
    if item.ValueType == "NUM":
        (value,) = item.MeasuredValueSequence
        return f"{value.NumericValue:.2f} {value.MeasurementUnitsCodeSequence[0].CodeValue}"
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.get("TextValue", ""))


def collect_reports(monkeypatch) -> list:
    """Collects the PDF reports that are written during a test, before they are rendered."""
    reports = []
    monkeypatch.setattr(pdf, "write", lambda report, path: reports.append(report))
    return reports


def test_measured_diameters_are_exported_with_that_of_the_mask(review, tmp_path, monkeypatch):
    reports = collect_reports(monkeypatch)
    review.act("accept", A1).act("measure", A1, details=AXES).act("accept", A2).sign().export(tmp_path / "out")
    rows = read_table(tmp_path / "out")
    assert [float(rows[A1][name]) for name in ("long_axis_mm", "short_axis_mm")] == [5, round(SHORT_MM, 2)]
    assert rows[A1]["axes_plane"] == "axial" and float(rows[A1]["diameter_mm"]) == pytest.approx(9, abs=0.7)
    mask_axes = [float(rows[A1][f"mask_{name}_axis_mm"]) for name in ("long", "short")]
    assert mask_axes == pytest.approx([6, 6], abs=0.7)
    assert rows[A2]["long_axis_mm"] == rows[A2]["short_axis_mm"] == rows[A2]["axes_plane"] == ""
    diameters = {name: row[3] for name, row in zip(rows, reports[0].rows, strict=True)}
    mask_axes = [float(rows[A2][f"mask_{name}_axis_mm"]) for name in ("long", "short")]
    assert diameters == {A1: "5.0 x 3.6*", A2: "{:.1f} x {:.1f}".format(*mask_axes)}
    assert {row[4] for row in reports[0].rows} == {f"{float(row['diameter_mm']):.1f}" for row in rows.values()}
    items = {name: {(code, value) for _, code, value in group} for name, group in read_groups(tmp_path / "out").items()}
    assert {("103339001 SCT", "5.00 mm"), ("103340004 SCT", f"{SHORT_MM:.2f} mm")} <= items[A1]
    assert {("103339001 SCT", f"{mask_axes[0]:.2f} mm"), ("103340004 SCT", f"{mask_axes[1]:.2f} mm")} <= items[A2]
    assert sum(code == "103339001 SCT" for code, _ in items[A1]) == 1, "the reader's axis stands alone"
    assert any(code == "L0JK IBSI" for code, _ in items[A1])


def test_axes_of_a_finding_without_voxels_are_exported(review, tmp_path):
    review.act("reject", A1).act("measure", A1, details=AXES).act("accept", A2).sign().export(tmp_path / "out")
    report = hd.sr.srread(tmp_path / "out/case-a/sr.dcm").content
    (group,) = (g for g in report.get_image_measurement_groups() if g.tracking_identifier == A1)
    sizes = {m.name.meaning: m.value for m in group.get_measurements()}
    assert sizes["Long axis"] == 5 and sizes["Short axis"] == pytest.approx(SHORT_MM)


NOTE = "Größe $x_ wie bei Frau Qwertzsmith,\nsiehe links"


def test_reason_and_note_of_a_verdict_are_in_every_document(review, tmp_path, monkeypatch):
    review.act("reject", A1, reason="normal anatomy", note=NOTE).act("accept", A2).sign().export(tmp_path / "drawn")
    reports = collect_reports(monkeypatch)
    review.export(tmp_path / "out")
    rows, groups = read_table(tmp_path / "out"), read_groups(tmp_path / "out")
    assert (rows[A1]["reason"], rows[A1]["note"]) == ("normal anatomy", NOTE)
    assert ("Reason of the verdict", "reason 99MEDSSL", "normal anatomy") in groups[A1]
    assert ("Comment", "121106 DCM", NOTE) in groups[A1]
    assert not {name for name, *_ in groups[A2]} & {"Reason of the verdict", "Comment"}
    assert f"normal anatomy; {NOTE}" in [row[-1] for row in reports[0].rows]
    group = next(
        g
        for g in hd.sr.srread(tmp_path / "out/case-a/sr.dcm").content.get_image_measurement_groups()
        if g.tracking_identifier == A1
    )
    evaluations = {e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()}
    expected = {"Verdict of the reviewer": "Rejected", "Reason of the verdict": "normal anatomy"}
    assert expected.items() <= evaluations.items()


def test_notes_are_left_out_on_request(review, tmp_path, monkeypatch, capsys):
    reports = collect_reports(monkeypatch)
    review.act("reject", A1, reason="vessel", note=NOTE).act("accept", A2).sign()
    words = [str(review.index.folder), "--dicom", str(review.dicom), "--out", str(tmp_path / "out"), "--no-notes"]
    assert cli.run("deliver", words) == 0
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))
    assert "Qwertzsmith" not in str(reports[0]) and b"Qwertzsmith" not in written and b"vessel" in written


def test_growth_since_the_prior_uses_both_reviews(review, tmp_path, monkeypatch):
    reports = collect_reports(monkeypatch)
    write_phantom_case(review.index.folder / "case-b", "case-b", [(10, 12, 8), (26, 6, 16)])
    studies = {"case-a": StudyRef("p", day=90), "case-b": StudyRef("p", day=0)}
    review.index = replace(review.index, studies=studies)
    before = review.read_labels().reorient("RAS")
    ball = extract_finding_mask(
        before, next(f for f in read_findings(review.index.case_folder("case-a")) if f.id == A1)
    )
    dilated = ndimage.binary_dilation(ball, iterations=2)
    corrected = np.where(dilated, np.uint8(1), before.voxels)
    review.act("edit", A1).act("stroke", A1, mask=pack_runs(diff_masks(before.voxels, corrected))).act("accept", A2)
    review.sign().act("reject", "case-b-1-2", case="case-b")
    review.export(tmp_path / "out")
    rows, ratio = read_table(tmp_path / "out"), dilated.sum() / ball.sum()
    assert (rows[A1]["prior"], rows[A1]["prior_days"]) == ("case-b", "90")
    assert float(rows[A1]["volume_change_percent"]) == pytest.approx(100 * (ratio - 1), abs=0.1)
    assert float(rows[A1]["doubling_days"]) == pytest.approx(90 * np.log(2) / np.log(ratio), abs=0.1)
    assert rows[A2]["volume_change_percent"] == rows[A2]["doubling_days"] == ""
    facts = dict(reports[0].facts)
    assert facts["Prior"] == "case-b, 90 days earlier, read by ana" and facts["Only in the prior"] == "none"
    cells = {row[0]: row[-1] for row in reports[0].rows}
    assert "volume doubling time" in cells[rows[A1]["segment"]] and cells[rows[A2]["segment"]] == "not in the prior"
    with zipfile.ZipFile(io.BytesIO(export_archive(review.index, review.store, "case-a", ExportOptions()))) as file:
        assert b"case-b,90," in file.read("findings.csv")
        assert sorted(file.namelist()) == ["case-a/findings.json", "case-a/montage.png", "findings.csv"]


def test_a_finding_rejected_now_is_not_resolved_since_the_prior(review, tmp_path, monkeypatch):
    reports = collect_reports(monkeypatch)
    write_phantom_case(review.index.folder / "case-b", "case-b", [(10, 12, 8)])
    review.index = replace(review.index, studies={"case-a": StudyRef("p", day=9), "case-b": StudyRef("p", day=0)})
    (before,) = read_findings(review.index.case_folder("case-b"))
    same = next(f.id for f in read_findings(review.index.case_folder("case-a")) if f.centre_mm == before.centre_mm)
    for finding in (A1, A2):
        review.act("reject" if finding == same else "accept", finding)
    review.sign().export(tmp_path / "out")
    assert dict(reports[0].facts)["Only in the prior"] == "none"
    assert {row["volume_change_percent"] for row in read_table(tmp_path / "out").values()} == {""}


def test_an_unread_prior_is_compared_as_predicted_and_resolved_findings_are_listed(review, tmp_path, monkeypatch):
    reports = collect_reports(monkeypatch)
    write_phantom_case(review.index.folder / "case-b", "case-b", [(10, 12, 8), (26, 6, 16)])
    review.index = replace(review.index, studies={case: StudyRef("p") for case in review.index.cases})
    review.act("accept", "case-b-1-1", case="case-b", model="f" * 64)
    review.index = replace(review.index, cases=("case-b", "case-a", "case-c"))
    review.act("accept", A1).act("accept", A2).sign().export(tmp_path / "out")
    facts = dict(reports[0].facts)
    assert facts["Prior"] == "case-b, as predicted, not read"
    assert facts["Only in the prior"].startswith("nodule of 0.1")
    changes = [row["volume_change_percent"] for row in read_table(tmp_path / "out").values()]
    assert sorted(changes) == ["", "0.0"]


def test_unsigned_cases_are_exported_on_request_only_and_unverified(review, tmp_path):
    review.act("accept", A1)
    with pytest.raises(BadInput, match="no case can be exported"):
        review.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(review.export(tmp_path / "out", include_unsigned=True).values()) == {""}
    for case in review.index.cases:
        assert dcmread(tmp_path / "out" / case / "sr.dcm").VerificationFlag == "UNVERIFIED"
    assert not (tmp_path / "out/case-c/seg.dcm").exists()
    assert read_table(tmp_path / "out")[A2]["verdict"] == ""


def test_a_sign_off_by_an_admin_or_a_reopened_one_verifies_nothing(review, tmp_path):
    review.sign(role="admin").sign("case-b").act("reopen", case="case-b")
    reasons = review.export(tmp_path / "out")
    assert reasons["case-b"] == "not signed"
    assert dcmread(tmp_path / "out/case-a/sr.dcm").VerificationFlag == "UNVERIFIED"


def test_a_second_export_is_verified_too(review, tmp_path):
    review.sign().act("deliver", role="senior").export(tmp_path / "out")
    assert dcmread(tmp_path / "out/case-a/sr.dcm").VerificationFlag == "VERIFIED"


def test_the_command_records_who_exported_which_case(review, tmp_path, capsys):
    review.sign().sign("case-b")
    words = [str(review.index.folder), "--out", str(tmp_path / "out"), "--reviewer", "boss", "--role", "admin"]
    assert cli.run("deliver", words) == 0
    events = [(e.action, e.case, e.reviewer, e.role, e.model) for e in review.store.read_events()[2:]]
    assert events == [("deliver", case, "boss", "admin", review.index.weights_sha256) for case in ("case-a", "case-b")]
    assert cli.run("audit", ["verify", review.store.name]) == 0
    assert "4 events, chain unbroken" in capsys.readouterr().out


def test_an_export_that_cannot_be_recorded_is_not_written(review, tmp_path, capsys):
    review.sign().sign("case-b")
    with closing(sqlite3.connect(review.store.name)) as db, db:
        db.execute(FULL)
    assert cli.run("deliver", [str(review.index.folder), "--out", str(tmp_path / "out")]) == 2
    assert "cannot store verdicts (database or disk is full)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and len(review.store.read_events()) == 2
    with pytest.raises(BadInput, match="As reader you may not deliver"):
        export_review(review.index, review.store, tmp_path / "out", ExportOptions(), Reviewer("ana", "reader"))
    assert not (tmp_path / "out").exists()


def test_a_series_with_other_voxels_or_another_position_is_rejected(review, tmp_path):
    review.sign().sign("case-b").sign("case-c")
    path = sorted((review.dicom / "case-a").rglob("*.dcm"))[4]
    data = dcmread(path)
    pixels = bytearray(data.PixelData)
    pixels[100] ^= 1
    data.PixelData = bytes(pixels)
    data.save_as(path)
    for path in (review.dicom / "case-b").rglob("*.dcm"):
        data = dcmread(path)
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y + 0.1, z]
        data.save_as(path)
    reasons = review.export(tmp_path / "out")
    assert "no DICOM series has the grid and the voxels" in reasons["case-a"]
    assert "no DICOM series" in reasons["case-b"]
    assert reasons["case-c"] == ""


def test_two_series_with_the_same_voxels_are_rejected(review, tmp_path):
    review.sign().sign("case-b")
    review.write_scan("case-a", name="someone-else")
    assert "2 DICOM series have the grid and the voxels" in review.export(tmp_path / "out")["case-a"]


def test_the_source_is_the_series_that_the_case_is_named_after(review):
    image, other_image = (read_image(review, case) for case in ("case-a", "case-b"))
    review.write_scan("case-a", name="someone-else")
    series = read_all_series(review.dicom)
    first, second = (s for s in series if np.array_equal(s.volume().voxels, image.reorient("LPS").voxels))
    for named in (first, second):
        assert find_source_series(f"CT-{name_series(named)}", image.reorient("LPS"), series) is named
    with pytest.raises(BadInput, match="named after"):
        find_source_series(f"CT-{name_series(first)}", other_image.reorient("LPS"), series)


def test_a_case_that_fails_leaves_no_files(review, tmp_path):
    for path in (review.dicom / "case-a").rglob("*.dcm"):
        data = dcmread(path)
        del data.FrameOfReferenceUID
        data.save_as(path)
    review.act("accept", A1).sign().sign("case-c")
    assert "Frame Of Reference" in review.export(tmp_path / "out")["case-a"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["case-c", "findings.csv"]
    assert not read_table(tmp_path / "out")


def test_verdicts_on_another_models_prediction_are_not_exported(review, tmp_path):
    review.sign(model="f" * 64).sign("case-b", model="0" * 64)
    reasons = review.export(tmp_path / "out")
    assert "another model" in reasons["case-a"] and reasons["case-b"] == ""


def test_without_scans_there_is_a_report_and_a_table(review, tmp_path, capsys):
    review.act("accept", A1).sign()
    predictions = review.index.folder
    assert cli.run("deliver", [str(predictions), "--out", str(tmp_path / "out")]) == 0
    assert "left out case-b: not read" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out/case-a").iterdir()) == ["findings.json", "montage.png", "report.pdf"]
    assert cli.run("deliver", [str(predictions), "--out", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


WITHOUT_PACKAGE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from medssl import cli
"""


@pytest.mark.parametrize("command, package, extra", [("deliver", "highdicom", "app"), ("predict", "torch", "train")])
def test_a_missing_package_and_its_extra_are_named_in_one_line(command, package, extra):
    words = ["predictions", *(["scans"] if command == "predict" else []), "--out", "out"]
    code = WITHOUT_PACKAGE.format(package=package) + f"sys.exit(cli.run({command!r}, {words}))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert process.returncode == 2
    assert (
        process.stderr == f"medssl {command}: needs {package}, which is not installed; pip install 'medssl[{extra}]'\n"
    )


def test_only_its_owner_can_read_an_export(review, tmp_path):
    review.act("accept", A1).act("accept", A2).sign()
    review.export(tmp_path / "out")
    paths = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert len(paths) > 5 and not [path for path in paths if path.stat().st_mode & 0o077]
