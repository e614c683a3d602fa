"""Valid but unusual DICOM: every voxel has the true value of its position in the patient."""

import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from pydicom.pixels import get_encoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medssl.errors import InputWarning
from medssl.io import dicom
from tests.helpers.dicom_phantom import (
    ROOT,
    error_against_truth,
    make_multiframe,
    make_slices,
    paint,
    save,
    save_one,
    slice_values,
    with_compressed_frames,
)

OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)


def read_one(folder, **options):
    results = list(dicom.read(folder, **options))
    assert len(results) == 1, results
    assert isinstance(results[0], dicom.Series), results
    return results[0]


def assert_read(folder, tolerance=0.51, **options):
    series = read_one(folder, **options)
    volume = series.volume()
    assert error_against_truth(volume) <= tolerance
    assert sorted(series.files) == sorted(folder.iterdir())
    return volume


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize(
    "axes",
    [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0), OBLIQUE],
    ids=["axial", "sagittal", "coronal", "turned", "transposed", "oblique"],
)
def test_any_orientation_of_any_modality_is_assert_read(tmp_path, modality, axes):
    save(make_slices(modality=modality, axes=axes), tmp_path)
    volume = assert_read(tmp_path)
    assert volume.unit == {"CT": "HU", "MR": "a.u.", "PT": "SUVbw"}[modality]
    np.testing.assert_allclose(volume.spacing_mm(), (2.0, 1.5, 2.5), atol=1e-4)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda s: s.name,
)
def test_any_native_encoding_is_assert_read(tmp_path, syntax):
    save(make_slices(), tmp_path, syntax)
    assert_read(tmp_path)


@pytest.mark.parametrize(
    ("bits", "stored", "signed"), [(16, 12, 0), (16, 12, 1), (16, 16, 0), (32, 32, 1), (32, 20, 1)]
)
def test_any_width_and_sign_is_assert_read(tmp_path, bits, stored, signed):
    datasets = make_slices()
    for d in datasets:
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = bits, stored, stored - 1, signed
        d.RescaleIntercept = "-1024"
    save(datasets, tmp_path)
    assert_read(tmp_path)


def test_eight_bits_are_assert_read(tmp_path):
    datasets = make_slices(modality="MR")
    for d in datasets:
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
        d.RescaleSlope, d.RescaleIntercept = "4", "0"
    save(datasets, tmp_path)
    assert_read(tmp_path, tolerance=2.01)


def test_each_slice_is_rescaled_by_its_own_tags(tmp_path):
    datasets = make_slices(modality="PT")
    for k, d in enumerate(datasets):
        d.RescaleSlope, d.RescaleIntercept = f"{0.05 + 0.01 * k:.2f}", "0"
    save(datasets, tmp_path)
    assert assert_read(tmp_path, tolerance=0.06).voxels.dtype == np.float32


def test_padding_becomes_air_and_not_a_value(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.add_new("PixelPaddingValue", "SS", -2000)
        painted = slice_values(d)
        painted[0, 0] = -2000 - 24
        paint(d, painted)
    save(datasets, tmp_path)
    voxels = read_one(tmp_path).volume().voxels
    assert (voxels[0, 0] == -1024).all()
    assert voxels[1:].min() > -1000


def test_a_padding_value_in_the_middle_of_the_image_is_left_alone(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.add_new("PixelPaddingValue", "SS", 324)
    save(datasets, tmp_path)
    assert_read(tmp_path)


def test_monochrome1_keeps_its_values_with_a_warning(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.PhotometricInterpretation = "MONOCHROME1"
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="MONOCHROME1"):
        assert_read(tmp_path)


def test_burned_in_annotation_is_warned_about(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.BurnedInAnnotation = "YES"
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="BurnedIn"):
        assert_read(tmp_path)


def test_files_without_ending_preamble_or_meta_are_assert_read(tmp_path):
    paths = save(make_slices(), tmp_path, ImplicitVRLittleEndian, suffix="")
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\x00\x08\x00") :])
    assert_read(tmp_path)


def test_an_enhanced_file_is_assert_read(tmp_path):
    save([make_multiframe(make_slices(axes=OBLIQUE))], tmp_path)
    assert_read(tmp_path)


def test_an_enhanced_file_of_two_echoes_is_two_volumes(tmp_path):
    datasets = make_slices(modality="MR") + make_slices(modality="MR")
    for n, d in enumerate(datasets):
        d.EffectiveEchoTime = 5.0 if n < 6 else 15.0
    save([make_multiframe(datasets, "MR")], tmp_path)
    echoes = list(dicom.read(tmp_path))
    assert [e.sub_volume for e in echoes] == ["EffectiveEchoTime 5.0", "EffectiveEchoTime 15.0"]
    assert all(error_against_truth(e.volume()) <= 0.51 for e in echoes)


@pytest.mark.parametrize(
    ("tag", "values"),
    [("EchoTime", ["4.6", "9.2"]), ("DiffusionBValue", [0.0, 800.0]), ("TemporalPositionIdentifier", [1, 2])],
)
def test_a_series_of_several_volumes_is_taken_apart_by_its_tag(tmp_path, tag, values):
    for n, value in enumerate(values):
        datasets = make_slices(modality="MR")
        for d in datasets:
            setattr(d, tag, value)
            d.SOPInstanceUID += f".{n}"
            paint(d, slice_values(d) + 1000 * n)
        save(datasets, tmp_path, suffix=f"-{n}.dcm")
    volumes = list(dicom.read(tmp_path))
    assert [v.sub_volume.split()[0] for v in volumes] == [tag, tag]
    first, second = (v.volume() for v in volumes)
    assert error_against_truth(first) <= 0.51
    assert (second.voxels.astype(int) - first.voxels == 1000).all()
    assert sorted(p for v in volumes for p in v.files) == sorted(tmp_path.iterdir())


def test_two_series_of_two_patients_in_one_folder_stay_apart(tmp_path):
    save(make_slices(), tmp_path / "a")
    other = make_slices(modality="MR", axes=OBLIQUE)
    for d in other:
        d.SeriesInstanceUID, d.StudyInstanceUID, d.PatientID = ROOT + "9", ROOT + "8", "patient-2"
    save(other, tmp_path / "b")
    volumes = list(dicom.read(tmp_path))
    assert {(v.patient, v.modality) for v in volumes} == {("patient-1", "CT"), ("patient-2", "MR")}
    assert all(error_against_truth(v.volume()) <= 0.51 for v in volumes)


def test_a_copy_of_a_slice_is_named_and_left_out(tmp_path):
    paths = save(make_slices(), tmp_path)
    (tmp_path / "copy").write_bytes(paths[2].read_bytes())
    copy, series = dicom.read(tmp_path)
    assert (copy.code, copy.files) == ("copy", (tmp_path / "copy",))
    assert error_against_truth(series.volume()) <= 0.51


@pytest.mark.parametrize("slide", [0.6, -0.6])
def test_a_tilted_gantry_is_straightened_with_a_warning(tmp_path, slide):
    save(make_slices(slide=slide, rows=24), tmp_path)
    with pytest.warns(InputWarning, match="tilt of 13.5"):
        volume = read_one(tmp_path).volume()
    axes = volume.affine[:3, :3] / volume.spacing_mm()
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert error_against_truth(volume, margin=4) <= 1.01
    outside = volume.voxels[:, [0, -1]]
    assert (outside == -1024).any()


def test_a_tilt_in_the_tag_alone_is_a_warning(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.GantryDetectorTilt = 12
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="12 degrees, but the slice positions show no tilt"):
        assert_read(tmp_path)


def test_gaps_are_interpolated_only_when_allowed(tmp_path):
    datasets = make_slices(count=9)
    save(datasets[:3] + datasets[4:], tmp_path)
    with pytest.warns(InputWarning, match="from -2.00 to 3.00 mm"):
        volume = read_one(tmp_path, allow_gaps=True).volume()
    assert volume.shape[2] == 9
    assert error_against_truth(volume) <= 1.51


def test_uneven_slices_are_interpolated_only_when_allowed(tmp_path):
    datasets = make_slices(count=7)
    datasets[3].ImagePositionPatient[2] += 0.4
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="uneven"):
        assert error_against_truth(read_one(tmp_path, allow_gaps=True).volume()) <= 1.51


def test_a_zip_archive_is_a_folder(tmp_path):
    paths = save(make_slices(), tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"study/{path.name}")
        archive.writestr("study/readme.txt", "hello")
    readme, series = dicom.read([tmp_path / "scan.zip"])
    assert (readme.code, readme.files) == ("not-dicom", (tmp_path / "scan.zip/study/readme.txt",))
    assert error_against_truth(series.volume()) <= 0.51
    assert series.files[0] == tmp_path / "scan.zip/study/000.dcm"


def test_rle_is_assert_read(tmp_path):
    datasets = [paint(d) for d in make_slices()]
    for d in datasets:
        options = {
            "rows": d.Rows, "columns": d.Columns, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 16,
            "pixel_representation": 1, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
        }  # fmt: skip
        with_compressed_frames(d, get_encoder(RLELossless).encode(d.PixelData, encoding_plugin="pydicom", **options))
    save(datasets, tmp_path, RLELossless)
    assert_read(tmp_path)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=["JPEG-LS", "JPEG 2000"])
@pytest.mark.parametrize("signed", [0, 1])
def test_lossless_jpegs_are_right_with_and_without_sign(tmp_path, syntax, signed):
    datasets = make_slices(count=3, rows=64, columns=64)
    plugin = "pyjpegls" if syntax == JPEGLSLossless else "pylibjpeg"
    for d in datasets:
        d.BitsStored, d.HighBit, d.PixelRepresentation, d.RescaleIntercept = 13, 12, signed, "-1024"
        paint(d)
        options = {
            "rows": d.Rows, "columns": d.Columns, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 13,
            "pixel_representation": signed, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
        }  # fmt: skip
        with_compressed_frames(d, get_encoder(syntax).encode(d.PixelData, encoding_plugin=plugin, **options))
    save(datasets, tmp_path, syntax)
    assert_read(tmp_path)


def test_a_dose_map_of_a_ct_is_not_in_hu(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.RescaleType = "MGML"
    save(datasets, tmp_path)
    assert assert_read(tmp_path).unit == "a.u."


def test_a_patient_does_not_show_in_the_printed_series(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.SeriesDescription = "Doe Jane knee"
    save(datasets, tmp_path)
    assert "patient-1" not in repr(read_one(tmp_path)) and "Doe" not in repr(read_one(tmp_path))


def test_a_scout_next_to_a_series_is_refused_alone(tmp_path):
    save(make_slices(), tmp_path)
    scout = make_slices(count=1, axes=(1, 0, 0, 0, 0, -1))[0]
    scout.ImageType, scout.SOPInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], ROOT + "77"
    save_one(paint(scout), tmp_path / "scout")
    refused, series = dicom.read(tmp_path)
    assert refused.code == "localizer"
    assert error_against_truth(series.volume()) <= 0.51


def test_slices_of_a_constant_image_are_warned_about(tmp_path):
    save([paint(d, np.zeros((12, 16))) for d in make_slices()], tmp_path)
    with pytest.warns(InputWarning, match="every voxel"):
        read_one(tmp_path).volume()


def test_reading_a_good_series_warns_of_nothing(tmp_path):
    save(make_slices(), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_one(tmp_path).volume()


def test_a_single_file_can_be_requested(tmp_path):
    save([make_multiframe(make_slices())], tmp_path)
    (series,) = dicom.read(tmp_path / "000.dcm")
    assert error_against_truth(series.volume()) <= 0.51


@pytest.mark.parametrize(("tag", "value"), [("LossyImageCompression", "01"), ("ImageType", ["DERIVED", "SCREEN SAVE"])])
def test_what_deserves_a_second_look_is_warned_about(tmp_path, tag, value):
    datasets = make_slices()
    for d in datasets:
        setattr(d, tag, value)
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="lossy|saved screen"):
        assert_read(tmp_path)


def test_a_sign_that_does_not_reach_into_the_unused_bits_is_read_with_a_warning(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.BitsStored, d.HighBit = 12, 11
        paint(d, slice_values(d) - 400)
        d.PixelData = (np.frombuffer(d.PixelData, "<u2") & 0xFFF).tobytes()
        d.RescaleIntercept = "376"
    save(datasets, tmp_path)
    with pytest.warns(InputWarning, match="sign flag may be wrong"):
        assert_read(tmp_path)


HALF_A_VOXEL = np.eye(4) + 0.5 * np.outer([1, 0, 0, 0], [0, 0, 0, 1])
FAULTS = {
    "flipped": lambda v: replace(v, voxels=v.voxels[:, :, ::-1]),
    "mirrored": lambda v: replace(v, voxels=v.voxels[::-1]),
    "transposed": lambda v: replace(v, voxels=v.voxels.swapaxes(0, 1)),
    "one slice off": lambda v: replace(v, voxels=np.roll(v.voxels, 1, 2)),
    "two slices exchanged": lambda v: replace(v, voxels=v.voxels[:, :, [0, 2, 1, 3, 4, 5]]),
    "in LPS": lambda v: replace(v, affine=np.diag([-1.0, -1, 1, 1]) @ v.affine),
    "scaled": lambda v: replace(v, affine=v.affine @ np.diag([1, 1, 1.01, 1])),
    "half a voxel off": lambda v: replace(v, affine=v.affine @ HALF_A_VOXEL),
    "not rescaled": lambda v: replace(v, voxels=v.voxels + 24),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_does_not_pass_for_the_truth(tmp_path, fault):
    save(make_slices(), tmp_path)
    volume = read_one(tmp_path).volume()
    assert error_against_truth(volume) <= 0.51 < error_against_truth(FAULTS[fault](volume))
