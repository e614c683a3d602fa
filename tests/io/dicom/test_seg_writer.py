"""SEG and SR hold what was written, for other programs too, in every orientation of the slices."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from medssl.errors import BadInput
from medssl.io import dicom, nifti
from medssl.io.dicom import annotations
from medssl.io.dicom import seg_writer as seg
from medssl.io.dicom import sr_writer as sr
from medssl.io.dicom.derived.provenance import AlgorithmInfo, MaskOrigin, describe_series
from medssl.io.dicom.seg_writer import SegSegment
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.io.dicom.sr_writer import SrFinding, SrReviewer
from medssl.volume import Volume

ORIENTATIONS = {
    "axial": "LPS", "feet first": "LPI", "coronal": "LIA", "coronal backwards": "LIP", "sagittal": "PIR",
    "sagittal backwards": "PIL", "upside down": "RAS",
}  # fmt: skip
NOTICE = "Research use only. Not for clinical use."
ALGORITHM = AlgorithmInfo("medssl", "1", "ab" * 32, NOTICE, run="chest")
SIGNED = SrReviewer("ana", "Hospital", "2026-01-02T03:04:05.000+00:00", "senior")


def oblique() -> np.ndarray:
    a, b = np.radians([17, -23])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return x @ z


def write_and_read_series(folder, turn="LPS", rotation=None, modality="CT"):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag([0.8, 0.9, 2.5])
    affine[:3, 3] = [-31.3, 12.7, 405.1]
    voxels = np.random.default_rng(0).integers(0, 900, (9, 11, 7)).astype(np.int16)
    image = Volume(voxels, affine, "HU" if modality == "CT" else "a.u.").reorient(turn)
    write_series(image, folder, SeriesInfo("p", modality=modality))
    (series,) = dicom.read(folder)
    return series


def make_labels(series):
    """Three structures, one of a single voxel in a corner."""
    image = series.volume()
    voxels = np.zeros(image.shape, np.int32)
    voxels[1:4, 2:5, 1:3], voxels[5, 3:5, 2:5], voxels[-1, -1, -1] = 1, 2, 3
    return Volume(voxels, image.affine, "label")


def make_segments():
    names = ("nodule", "liver", "odd thing")
    origins = (MaskOrigin(ALGORITHM), MaskOrigin(ALGORITHM, "ana"), MaskOrigin(None, "ana"))
    return [
        SegSegment(f"{name} {n}", name, f"f-{n}", f"2.25.{n + 7}", (255, 0, n), origin)
        for n, (name, origin) in enumerate(zip(names, origins, strict=True), 1)
    ]


@pytest.fixture
def series_and_segmentation(tmp_path):
    series = write_and_read_series(tmp_path / "s")
    segmentation = seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
    return series, segmentation


def assert_same(series, path, parts) -> None:
    """Read back by our own reader and by highdicom: every voxel, 0.0 mm apart."""
    annotation = annotations.read(path)
    assert annotation.series == series.uid
    assert np.array_equal(annotation.volume(series.volume()).voxels, parts.voxels)
    assert_highdicom_reads(path, parts)


def assert_highdicom_reads(path, parts) -> None:
    segmentation = hd.seg.segread(path)
    with closing(segmentation._db_con):
        read = segmentation.get_volume(combine_segments=True)
    ijk = np.argwhere(read.array)
    index = parts.to_index(read.map_indices_to_reference(ijk) * [-1.0, -1.0, 1.0])
    assert np.abs(index - np.rint(index)).max() < 1e-6
    voxels = np.zeros_like(parts.voxels)
    voxels[tuple(np.rint(index).astype(int).T)] = read.array[tuple(ijk.T)]
    assert np.array_equal(voxels, parts.voxels)


def test_a_written_segmentation_leaves_no_database_open(series_and_segmentation):
    """Python 3.13 warns of one when its garbage is collected, wherever that happens."""
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        series_and_segmentation[1]._db_con.execute("select 1")


@pytest.mark.parametrize("turn", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("rotation", [None, oblique()], ids=["straight", "oblique"])
def test_a_seg_reads_back_voxel_for_voxel(tmp_path, turn, rotation):
    series = write_and_read_series(tmp_path / "s", turn, rotation)
    parts = make_labels(series)
    seg.write(series, parts.reorient("RAS"), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
    assert_same(series, tmp_path / "seg.dcm", parts)


def test_a_labelmap_reads_back_voxel_for_voxel(tmp_path):
    series = write_and_read_series(tmp_path / "s", "PIR", modality="MR")
    seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "LABELMAP")
    assert dcmread(tmp_path / "seg.dcm").SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert_highdicom_reads(tmp_path / "seg.dcm", make_labels(series))


def test_a_seg_with_moved_voxels_is_not_written(tmp_path, monkeypatch):
    build = seg._to_highdicom_volume
    monkeypatch.setattr(seg, "_to_highdicom_volume", lambda p, s: build(p, s).with_array(build(p, s).array[::-1]))
    series = write_and_read_series(tmp_path / "s")
    with pytest.raises(BadInput, match="read back"):
        seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
    assert not (tmp_path / "seg.dcm").exists()


def test_parts_on_another_grid_are_refused(tmp_path):
    series = write_and_read_series(tmp_path / "s")
    affine = make_labels(series).affine + np.diag([0, 0, 0, 0.0])
    affine[0, 3] += 0.5
    with pytest.raises(ValueError, match="mm apart"):
        parts = Volume(make_labels(series).voxels, affine, "label")
        seg.write(series, parts, make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")


def test_an_irregular_series_is_refused(tmp_path):
    write_and_read_series(tmp_path / "s")
    sorted((tmp_path / "s").iterdir())[3].unlink()
    (series,) = dicom.read(tmp_path / "s", allow_gaps=True)
    with pytest.raises(BadInput, match="irregular"):
        seg.require_regular_grid(series)


def test_a_seg_names_its_content_and_its_patient(series_and_segmentation, tmp_path):
    data = dcmread(tmp_path / "seg.dcm")
    source = dcmread(next((tmp_path / "s").iterdir()))
    assert (data.PatientID, data.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert data.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert data.SeriesDescription == "SEG: nodule, liver, odd thing. Research use only."
    assert data.ContentDescription == ALGORITHM.notice
    assert data.DeviceSerialNumber == ALGORITHM.weights_sha256
    assert [s.TrackingUID for s in data.SegmentSequence] == ["2.25.8", "2.25.9", "2.25.10"]
    assert [s.SegmentAlgorithmType for s in data.SegmentSequence] == ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
    assert [s.get("SegmentAlgorithmName") for s in data.SegmentSequence] == [
        "medssl 1",
        "medssl 1, edited by ana",
        None,
    ]
    assert [s.SegmentDescription for s in data.SegmentSequence][-1] == "drawn by ana"
    identifications = [s.get("SegmentationAlgorithmIdentificationSequence") for s in data.SegmentSequence]
    assert [i and (i[0].AlgorithmName, i[0].AlgorithmVersion) for i in identifications] == [("medssl", "1")] * 2 + [
        None
    ]
    assert "chest" in identifications[0][0].AlgorithmParameters
    assert data.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"


@pytest.mark.parametrize("gone", ["PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyDate"])
def test_what_archives_leave_out_is_filled_in_a_copy(tmp_path, gone):
    write_and_read_series(tmp_path / "s")
    for path in (tmp_path / "s").iterdir():
        data = dcmread(path)
        delattr(data, gone)
        data.PatientName, data.SpecificCharacterSet = "Müller^Jörg", "ISO_IR 100"
        data.save_as(path)
    before = {path: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    (series,) = dicom.read(tmp_path / "s")
    segmentation = seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
    sr.write(series, segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    for name in ("seg.dcm", "sr.dcm"):
        assert not dcmread(tmp_path / name)[gone].value
        assert str(dcmread(tmp_path / name).PatientName) == "Müller^Jörg"
    assert {path: path.read_bytes() for path in before} == before


def make_findings():
    structures = {1: ("nodule", "accept"), 2: ("liver", "edit"), 3: ("odd thing", "")}
    axes = {n: (((0, 0, 0), (n * 3.0, 0, 0)), ((1, 2, 3), (1, 2 + n, 3))) for n in structures}
    origins = {segment.tracking_id: segment.origin for segment in make_segments()}
    sizes = {n: (n, n * 1.5, n * 4.0, origins[f"f-{n}"], axes[n]) for n in structures}
    findings = [SrFinding(f"f-{n}", f"2.25.{n + 7}", w, d, *sizes[n]) for n, (w, d) in structures.items()]
    rejected = SrFinding("f-4", "2.25.99", "nodule", "reject", None, 0.25, 8.0, None, None, "vessel", "Gefäß, 2 mm")
    return [*findings, rejected]


def read_groups(path) -> dict[str, dict[str, object]]:
    """What all measurement groups of a tracking UID hold, straight from the content tree."""
    groups: dict[str, dict[str, object]] = {}
    root = dcmread(path).ContentSequence
    (container,) = (c for c in root if c.ConceptNameCodeSequence[0].CodeValue == "126010")
    for group in container.ContentSequence:
        group_values: dict[str, object] = {}
        for item in group.ContentSequence:
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            if item.ValueType == "NUM":
                group_values[name] = float(item.MeasuredValueSequence[0].NumericValue)
            elif item.ValueType == "CODE":
                group_values[name] = item.ConceptCodeSequence[0].CodeValue
            elif item.ValueType == "UIDREF":
                group_values[name] = item.UID
            elif item.ValueType == "TEXT":
                group_values[name] = item.TextValue
            elif item.ValueType == "IMAGE":
                group_values[name] = int(item.ReferencedSOPSequence[0].ReferencedSegmentNumber)
        groups.setdefault(str(group_values["Tracking Unique Identifier"]), {}).update(group_values)
    return groups


def test_a_report_holds_every_verdict_volume_and_segment(series_and_segmentation, tmp_path):
    series, segmentation = series_and_segmentation
    sr.write(series, segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    groups = read_groups(tmp_path / "sr.dcm")
    assert [g["Verdict of the reviewer"] for g in groups.values()] == ["accept", "edit", "none", "reject"]
    assert [g["Volume"] for g in groups.values()] == [1.5, 3.0, 4.5, 0.25]
    assert [g["Maximum 3D Diameter of a Mesh"] for g in groups.values()] == [4.0, 8.0, 12.0, 8.0]
    assert [(g.get("Long axis"), g.get("Short axis")) for g in groups.values()] == [
        (3, 1),
        (6, 2),
        (9, 3),
        (None, None),
    ]
    assert [g.get("Comment") for g in groups.values()] == [None, None, None, "Gefäß, 2 mm"]
    assert [g.get("Referenced Segment") for g in groups.values()] == [1, 2, 3, None]
    assert list(groups)[:3] == [s.TrackingUID for s in segmentation.SegmentSequence]
    roi_groups = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_uid for g in roi_groups] == list(groups)[:3]


def test_the_measured_axes_are_lines_in_the_patient(series_and_segmentation, tmp_path):
    """Read by highdicom: both ends of each axis, in LPS, in the frame of reference of the scan."""
    series, segmentation = series_and_segmentation
    sr.write(series, segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    content = hd.sr.srread(tmp_path / "sr.dcm").content
    lines = {}
    for group in content.get_image_measurement_groups():
        for measurement in group.get_measurements():
            for line in measurement.referenced_coordinates:
                assert line.frame_of_reference_uid == series.frame_of_reference
                lines[group.tracking_identifier, measurement.name.meaning] = line.value.tolist()
                assert np.linalg.norm(np.diff(line.value, axis=0)) == pytest.approx(measurement.value)
    assert len(lines) == 6 and lines["f-2", "Long axis"] == [[0, 0, 0], [-6, 0, 0]]
    assert lines["f-2", "Short axis"] == [[-1, -2, 3], [-1, -4, 3]]
    assert content.get_volumetric_roi_measurement_groups()[1].tracking_identifier == "f-2"


def test_a_report_names_the_tool_and_the_person_of_each_outline(series_and_segmentation, tmp_path):
    series, segmentation = series_and_segmentation
    sr.write(series, segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    data = dcmread(tmp_path / "sr.dcm")
    assert data.SeriesDescription == "SR: 4 findings, signed. Research use only. Not for clinical use."
    assert [g.get("Origin of the outline") for g in read_groups(tmp_path / "sr.dcm").values()] == [
        "AUTOMATIC", "SEMIAUTOMATIC", "MANUAL", None,
    ]  # fmt: skip
    assert [g.get("Algorithm Name") for g in read_groups(tmp_path / "sr.dcm").values()] == ["medssl"] * 2 + [None] * 2
    assert "medssl 1, edited by ana" in str(data) and "drawn by ana" in str(data)


@pytest.mark.parametrize(
    ("algorithm", "reader", "type_", "text"),
    [
        (AlgorithmInfo("nnU-Net", "2.6.2", "", NOTICE), "", "AUTOMATIC", "nnU-Net 2.6.2"),
        (AlgorithmInfo("nnU-Net", "unknown", "", NOTICE), "ana", "SEMIAUTOMATIC", "nnU-Net, edited by ana"),
        (AlgorithmInfo("RTSTRUCT", "unknown", "", NOTICE, "MANUAL"), "", "MANUAL", "RTSTRUCT"),
        (AlgorithmInfo("RTSTRUCT", "unknown", "", NOTICE, "MANUAL"), "ana", "MANUAL", "RTSTRUCT, edited by ana"),
        (None, "ana", "MANUAL", "drawn by ana"),
    ],
)
def test_an_origin_names_tool_and_person(algorithm, reader, type_, text):
    origin = MaskOrigin(algorithm, reader)
    assert (origin.type, origin.summary) == (type_, text)


@pytest.mark.parametrize("content", ["SEG: liver", "SR: 3 findings, signed", "SEG: " + ", ".join(["structure"] * 20)])
def test_a_series_description_fits_and_keeps_a_notice(content):
    text = describe_series(content, NOTICE)
    assert len(text) <= 64 and "Research use only" in text and text.startswith(content[:20])


def test_only_a_signature_verifies(series_and_segmentation, tmp_path):
    series, segmentation = series_and_segmentation
    for reviewer in (SrReviewer(), SrReviewer("ana"), SIGNED):
        sr.write(series, segmentation, make_findings(), ALGORITHM, reviewer, tmp_path / "sr.dcm")
        data = dcmread(tmp_path / "sr.dcm")
        signed = reviewer is SIGNED
        assert (data.VerificationFlag, data.CompletionFlag) == (
            ("VERIFIED", "COMPLETE") if signed else ("UNVERIFIED", "PARTIAL")
        )
        assert ("VerifyingObserverSequence" in data) == signed
        assert ("ana^" in str(data)) == bool(reviewer.name)
    assert data.VerifyingObserverSequence[0].VerifyingObserverName == "ana^"
    assert str(data.VerifyingObserverSequence[0].VerificationDateTime).startswith("20260102030405")


def test_a_case_without_a_finding_has_a_report_and_no_segment(tmp_path):
    series = write_and_read_series(tmp_path / "s", modality="MR")
    sr.write(series, None, [], ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    assert dcmread(tmp_path / "sr.dcm").VerificationFlag == "VERIFIED"


@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_another_validator_finds_no_error(series_and_segmentation, tmp_path, kind):
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (Debian: dicom3tools)")
    sr.write(*series_and_segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    process = subprocess.run([program, tmp_path / f"{kind}.dcm"], capture_output=True, text=True, timeout=60)
    errors = [line for line in (process.stdout + process.stderr).splitlines() if line.startswith("Error")]
    assert not errors, json.dumps(errors, indent=1)


def test_dcmqi_reads_the_same_segments(series_and_segmentation, tmp_path):
    program = shutil.which("segimage2itkimage")
    if program is None:
        pytest.skip("needs segimage2itkimage (PyPI: dcmqi)")
    command = [program, "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path, "--outputType", "nifti"]
    subprocess.run([*command, "--prefix", "q"], check=True, capture_output=True, timeout=60)
    sizes = [np.count_nonzero(nifti.read(tmp_path / f"q-{n}.nii.gz", label=True).voxels) for n in (1, 2, 3)]
    assert sizes == [18, 6, 1]


def test_dcmqi_reads_the_same_report(series_and_segmentation, tmp_path):
    program = shutil.which("tid1500reader")
    if program is None:
        pytest.skip("needs tid1500reader (PyPI: dcmqi)")
    sr.write(*series_and_segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    command = [program, "--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", tmp_path / "sr.json"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    sizes: dict[str, dict[str, float]] = {}
    for group in groups:
        values = {item["quantity"]["CodeValue"]: float(item["value"]) for item in group["measurementItems"]}
        sizes.setdefault(group["TrackingIdentifier"], {}).update(values)
    assert [(s.get("103339001"), s.get("103340004")) for s in sizes.values()] == [(3, 1), (6, 2), (9, 3), (None, None)]
    group_values = {e["conceptCode"]["CodeMeaning"]: e["conceptValue"] for e in groups[-1]["qualitativeEvaluations"]}
    assert group_values["Comment"] == "Gefäß, 2 mm" and group_values["Reason of the verdict"]["CodeMeaning"] == "vessel"


def test_a_seg_of_a_real_series_reads_back_voxel_for_voxel(shared_data, tmp_path):
    (series,) = dicom.read(shared_data("dicom") / "sarcoma_STS_002" / "MR_T1" / "image")
    segmentation = seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
    assert_same(series, tmp_path / "seg.dcm", make_labels(series))
    sr.write(series, segmentation, make_findings(), ALGORITHM, SIGNED, tmp_path / "sr.dcm")
    assert len(read_groups(tmp_path / "sr.dcm")) == 4


def test_a_series_without_a_frame_of_reference_is_refused(shared_data, tmp_path):
    (series,) = (s for s in dicom.read(shared_data("dicom") / "mr_encodings" / "j2k") if isinstance(s, dicom.Series))
    with pytest.raises(BadInput, match="Frame Of Reference"):
        seg.write(series, make_labels(series), make_segments(), ALGORITHM, tmp_path / "seg.dcm", "BINARY")
