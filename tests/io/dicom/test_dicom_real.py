"""Real series agree with an independent reader, the recorded facts and the published volumes."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from medssl.io import dicom, nifti

SERIES = [
    "chest_ct_4DLung-P113/CT", "mr_anatomical/001", "mr_anatomical/002_non_isotropic", "mr_encodings/j2k",
    "mr_encodings/jpeg", "mr_encodings/jpegls", "mr_encodings/rle", "sarcoma_STS_002/CT/image",
    "sarcoma_STS_002/MR_T1/image", "sarcoma_STS_002/PET/image", "sarcoma_STS_025/CT/image",
    "sarcoma_STS_025/MR_T1/image", "sarcoma_STS_025/PET/image",
]  # fmt: skip


def only_series(folder):
    (series,) = dicom.read(folder)
    assert isinstance(series, dicom.Series), series
    return series


@pytest.mark.parametrize("name", SERIES)
def test_a_real_series_equals_gdcm_voxel_by_voxel_and_in_mm(shared_data, name):
    volume = only_series(shared_data("dicom") / name).volume()
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(shared_data("dicom") / name)))
    image = reader.Execute()
    expected = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)
    if volume.voxels.dtype == np.float32:
        np.testing.assert_allclose(volume.voxels, expected, rtol=1e-6, atol=1e-6)
    else:
        assert np.array_equal(volume.voxels, expected)
    for index in [(0, 0, 0), tuple(n - 1 for n in volume.shape)]:
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.to_mm(np.array([index], float))[0], (-x, -y, z), atol=1e-3)


@pytest.mark.parametrize("name", SERIES)
def test_a_real_series_has_the_recorded_facts(shared_data, name):
    facts = json.loads((shared_data("dicom") / "expected.json").read_text())[name]
    series = only_series(shared_data("dicom") / name)
    volume = series.volume()
    assert (len(series.files), series.modality, series.uid) == (facts["files"], facts["modality"], facts["series_uid"])
    assert list(volume.shape) == facts["size_xyz"]
    np.testing.assert_allclose(volume.spacing_mm(), facts["spacing_xyz"], atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 3] * (-1, -1, 1), facts["origin_lps"], atol=1e-3)
    if "value_min_max" in facts:
        np.testing.assert_allclose((volume.voxels.min(), volume.voxels.max()), facts["value_min_max"], rtol=1e-6)
        assert float(volume.voxels.mean()) == pytest.approx(facts["value_mean"], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("mr_anatomical/001", "mr_anatomical/001_ground_truth.nii.gz"),
        ("mr_anatomical/002_non_isotropic", "mr_anatomical/002_non_isotropic_ground_truth.nii.gz"),
        *((f"mr_encodings/{code}", "mr_encodings/ground_truth.nii.gz") for code in ("j2k", "jpeg", "jpegls", "rle")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*unit of length:medssl.errors.InputWarning")
def test_a_real_series_equals_the_published_volume(shared_data, name, truth):
    volume = only_series(shared_data("dicom") / name).volume().reorient("RAS")
    published = nifti.read(shared_data("dicom") / truth).reorient("RAS")
    np.testing.assert_allclose(volume.affine, published.affine, atol=1e-3)
    np.testing.assert_allclose(volume.voxels, published.voxels, rtol=1e-5)


def test_every_real_file_is_used_or_refused_exactly_once(shared_data):
    folder = shared_data("dicom")
    listed = [path for result in dicom.read(folder) for path in result.files]
    assert sorted(listed) == sorted(path for path in folder.rglob("*") if path.is_file())
