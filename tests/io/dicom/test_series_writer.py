"""DICOM series that are written here are read back correctly by other libraries."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medssl.errors import BadInput
from medssl.io import dicom
from medssl.io.dicom.series_writer import SeriesInfo, derive_uid, write_series
from medssl.volume import AXES, Volume

SHAPE, SPACING = (5, 6, 4), (1.25, 0.7, 3.0)
CODES = ["".join(c) for order in permutations(AXES) for c in product(*order)]
INFO = SeriesInfo("P1", "S1", "3")


def make_volume(codes="RAS", tilt=(0.0, 0.0, 0.0), spacing=SPACING):
    voxels = np.random.default_rng(5).integers(-1024, 3000, SHAPE).astype(np.int16)
    affine = np.eye(4)
    columns = [np.eye(3)[next(w for w, p in enumerate(AXES) if c in p)] * (1 if c in "RAS" else -1) for c in codes]
    affine[:3, :3] = Rotation.from_rotvec(tilt).as_matrix() @ np.array(columns).T * spacing
    affine[:3, 3] = (-101.37, 20.111, 333.3)
    return Volume(voxels, affine, "HU")


def assert_pydicom_agrees(volume, paths):
    """Every stored pixel, by its own file's tags, has the value of the voxel at that place in mm."""
    for path in paths:
        d = pydicom.dcmread(path)
        hu = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        right, down = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
        y, x = np.mgrid[: d.Rows, : d.Columns][..., None].astype(float)
        lps = np.array(d.ImagePositionPatient) + x * d.PixelSpacing[1] * right + y * d.PixelSpacing[0] * down
        index = volume.to_index(lps * (-1, -1, 1))
        assert np.abs(index - np.rint(index)).max() < 1e-6
        i, j, k = np.rint(index).astype(int).transpose(2, 0, 1)
        np.testing.assert_array_equal(volume.voxels[i, j, k], hu)


def assert_itk_agrees(volume, folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    for index in np.ndindex(image.GetSize()):
        place = np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index])) * (-1, -1, 1)
        i, j, k = np.rint(volume.to_index(place)).astype(int)
        assert np.abs(volume.to_mm(np.array([i, j, k], float)) - place).max() < 1e-4
        assert image[tuple(int(n) for n in index)] == volume.voxels[i, j, k]


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_comes_back_at_the_same_mm(tmp_path, codes):
    volume = make_volume(codes)
    paths = write_series(volume, tmp_path, INFO, order=[2, 0, 3, 1])
    assert_pydicom_agrees(volume, paths)
    assert_itk_agrees(volume, tmp_path)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(CODES), st.tuples(*[st.floats(-0.7, 0.7)] * 3), st.tuples(*[st.floats(0.4, 6)] * 3))
def test_oblique_series_come_back_at_the_same_mm(tmp_path_factory, codes, tilt, spacing):
    folder = tmp_path_factory.mktemp("oblique")
    volume = make_volume(codes, tilt, spacing)
    assert_pydicom_agrees(volume, write_series(volume, folder, INFO))
    assert_itk_agrees(volume, folder)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (0.1, -0.3, 0.2)])
def test_our_own_reader_finds_one_series_and_refuses_nothing(tmp_path, tilt):
    volume = make_volume("PSR", tilt)
    write_series(volume, tmp_path, INFO, order=[3, 1, 0, 2])
    (series,) = dicom.read(tmp_path)
    read = series.volume().reorient("RAS")
    assert (series.patient, series.modality, read.unit) == ("P1", "CT", "HU")
    np.testing.assert_array_equal(read.require_same_grid(volume.reorient("RAS")).voxels, volume.reorient("RAS").voxels)


def test_mr_comes_back_without_a_rescale(tmp_path):
    volume = replace(make_volume(), unit="a.u.", voxels=abs(make_volume().voxels))
    write_series(volume, tmp_path, replace(INFO, modality="MR"))
    (series,) = dicom.read(tmp_path)
    assert series.modality == "MR"
    np.testing.assert_array_equal(series.volume().reorient("RAS").voxels, volume.voxels)


def test_uids_follow_from_the_names_and_differ_between_slices_series_and_studies(tmp_path):
    first = [pydicom.dcmread(p) for p in write_series(make_volume(), tmp_path / "a", INFO)]
    again = [pydicom.dcmread(p) for p in write_series(make_volume(), tmp_path / "b", INFO)]
    other = [pydicom.dcmread(p) for p in write_series(make_volume(), tmp_path / "c", replace(INFO, series="4"))]
    assert [d.SOPInstanceUID for d in first] == [d.SOPInstanceUID for d in again]
    assert len({d.SOPInstanceUID for d in first + other}) == 8
    assert first[0].StudyInstanceUID == other[0].StudyInstanceUID != first[0].SeriesInstanceUID
    assert first[0].FrameOfReferenceUID == other[0].FrameOfReferenceUID
    assert derive_uid("P", "1", "2").is_valid


@pytest.mark.parametrize(
    "modality, required",
    [
        ("CT", "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName StudyID "
         "AccessionNumber SeriesNumber Manufacturer PositionReferenceIndicator KVP AcquisitionNumber ImageType "
         "RescaleSlope RescaleIntercept SliceThickness InstanceNumber PatientPosition"),
        ("MR", "ScanningSequence SequenceVariant ScanOptions MRAcquisitionType RepetitionTime EchoTime "
         "EchoTrainLength ImageType SliceThickness FrameOfReferenceUID"),
    ],
)  # fmt: skip
def test_the_attributes_of_the_iod_are_there(tmp_path, modality, required):
    volume = replace(make_volume(), unit="HU" if modality == "CT" else "a.u.", voxels=abs(make_volume().voxels))
    path, *_ = write_series(volume, tmp_path, replace(INFO, modality=modality))
    data = pydicom.dcmread(path)
    assert [name for name in required.split() if name not in data] == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"voxels": np.zeros((2, *SHAPE), np.int16)}, "one channel"),
        ({"voxels": np.zeros(SHAPE, np.float32)}, "whole numbers"),
        ({"voxels": np.full(SHAPE, -1025, np.int16)}, "-1024 to 64511"),
        ({"unit": "a.u."}, "in HU"),
        ({"affine": np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])}, "right angles"),
    ],
)
def test_what_no_series_can_hold_is_refused_and_nothing_is_written(tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        write_series(replace(make_volume(), **change), tmp_path / "series", INFO)
    assert not (tmp_path / "series").exists()


def test_an_order_that_loses_a_slice_is_refused(tmp_path):
    with pytest.raises(BadInput, match="each of the 4 slices"):
        write_series(make_volume(), tmp_path, INFO, order=[0, 1, 1, 3])
