"""Contours fill to the mask that they were drawn from, for other programs too."""

import shutil
import subprocess

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from pydicom import dcmread

from medssl.errors import BadInput
from medssl.io import dicom
from medssl.io.dicom import annotations
from medssl.io.dicom.derived import rtstruct_writer
from medssl.io.dicom.derived.provenance import AlgorithmInfo, MaskOrigin
from medssl.io.dicom.seg_writer import SegSegment
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import Volume

TOOL = AlgorithmInfo("nnU-Net", "2.6", "", "Research use only. Not for clinical use.")
AFFINE = np.array([[-0.8, 0, 0, 31.3], [0, -0.9, 0, 12.7], [0, 0, 2.5, 405.1], [0, 0, 0, 1]])


def make_series(folder, turn: str):
    voxels = np.random.default_rng(0).integers(0, 900, (13, 11, 6)).astype(np.int16)
    write_series(Volume(voxels, AFFINE, "HU").reorient(turn), folder, SeriesInfo("p"))
    (series,) = dicom.read(folder)
    return series


def make_labels(series) -> Volume:
    """A ring with an island in its hole, voxels that touch at a corner, a single voxel, and one at the image's edge."""
    image = series.volume()
    voxels = np.zeros(image.shape, np.uint8)
    i, j, k = (n // 2 for n in image.shape)
    voxels[1:-1, 1:-1, k - 1 : k + 1] = 1
    voxels[2:-2, 2:-2, k - 1 : k + 1] = 0
    voxels[i, j, k] = 1
    voxels[2, 2, 1] = voxels[3, 3, 1] = voxels[4, 2, 1] = 2
    voxels[0, 0, 0] = voxels[-1, -1, -1] = 3
    return Volume(voxels, image.affine, "label")


def fill_with_matplotlib(data, number: int, image: Volume) -> np.ndarray:
    """The mask of a structure by another program: pydicom for the contours, matplotlib for what lies inside."""
    mask = np.zeros(image.shape, bool)
    i, j = np.indices(image.shape[:2])
    (drawing,) = (item for item in data.ROIContourSequence if item.ReferencedROINumber == number)
    for contour in drawing.ContourSequence:
        lps = np.array(contour.ContourData, float).reshape(-1, 3)
        index = image.to_index(lps * (-1, -1, 1))
        (k,) = {int(n) for n in np.rint(index[:, 2])}
        inside = Polygon(index[:, :2]).contains_points(np.column_stack([i.ravel(), j.ravel()]))
        mask[:, :, k] |= inside.reshape(image.shape[:2])
    return mask


@pytest.fixture(params=["LPS", "LIA", "PIR"])
def series_labels_and_path(request, tmp_path):
    series = make_series(tmp_path / "s", request.param)
    labels = make_labels(series)
    origins = (MaskOrigin(TOOL), MaskOrigin(TOOL, "ana"), MaskOrigin(None, "ana"))
    segments = [
        SegSegment(f"lesion {n}", "lesion", f"f-{n}", f"2.25.{n}", (255, 0, n), origin)
        for n, origin in enumerate(origins, 1)
    ]
    rtstruct_writer.write(series, labels.reorient("RAS"), segments, TOOL, tmp_path / "rtstruct.dcm")
    return series, labels, tmp_path / "rtstruct.dcm"


def test_contours_fill_to_the_mask_for_two_programs(series_labels_and_path):
    series, labels, path = series_labels_and_path
    annotation = annotations.read(path)
    assert annotation.series == series.uid and annotation.names == ("lesion 1", "lesion 2", "lesion 3")
    assert np.array_equal(annotation.volume(series.volume()).voxels, labels.voxels)
    for number in (1, 2, 3):
        assert np.array_equal(fill_with_matplotlib(dcmread(path), number, labels), labels.voxels == number)


def test_contours_name_their_slice_and_their_maker(series_labels_and_path):
    series, _, path = series_labels_and_path
    data, files = dcmread(path), {dcmread(file).SOPInstanceUID: dcmread(file) for file in series.files}
    for drawing in data.ROIContourSequence:
        for contour in drawing.ContourSequence:
            source = files[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            normal = np.cross(*np.split(np.array(source.ImageOrientationPatient, float), 2))
            offset = np.array(contour.ContourData[:3], float) - np.array(source.ImagePositionPatient, float)
            assert abs(offset @ normal) < 1e-3
    kinds = [roi.ROIGenerationAlgorithm for roi in data.StructureSetROISequence]
    assert kinds == ["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
    assert data.StructureSetROISequence[1].ROIGenerationDescription == "nnU-Net 2.6, edited by ana"
    assert data.SeriesDescription.startswith("RTSTRUCT: lesion.") and data.FrameOfReferenceUID
    assert (data.PatientID, data.StudyInstanceUID) == ("p", series.study)


def test_contours_that_would_fill_differently_are_not_written(tmp_path, monkeypatch):
    trace = rtstruct_writer._trace_slice
    monkeypatch.setattr(rtstruct_writer, "_trace_slice", lambda mask: [line + 1 for line in trace(mask)])
    series = make_series(tmp_path / "s", "LPS")
    labels = make_labels(series)
    labels.voxels[labels.voxels != 2] = 0
    segments = [SegSegment(f"s {n}", "lesion", "f", "2.25.1", (0, 0, 0), MaskOrigin(TOOL)) for n in (1, 2)]
    with pytest.raises(BadInput, match="read back"):
        rtstruct_writer.write(series, labels, segments, TOOL, tmp_path / "rtstruct.dcm")
    assert not (tmp_path / "rtstruct.dcm").exists()


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy (Debian: dicom3tools)")
def test_a_validator_finds_no_error(series_labels_and_path):
    process = subprocess.run(["dciodvfy", series_labels_and_path[2]], capture_output=True, text=True, timeout=60)
    assert not [line for line in (process.stdout + process.stderr).splitlines() if line.startswith("Error")]
