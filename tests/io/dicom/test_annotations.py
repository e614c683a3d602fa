"""Contours and masks are placed on the voxels that they were drawn on, or rejected."""

from contextlib import closing

import highdicom as hd
import numpy as np
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import dcmread
from pydicom.sr.codedict import codes

from medssl.errors import BadInput, InputWarning
from medssl.io import dicom, nifti
from medssl.io.dicom import annotations
from medssl.volume import Volume
from tests.helpers.dicom_phantom import make_slices, paint, save, write_structure_set

OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)


def write_and_read_series(folder, **options):
    save(make_slices(**options), folder)
    (series,) = dicom.read(folder)
    return series


def square(low, high, k):
    return [(low, low, k), (high, low, k), (high, high, k), (low, high, k)]


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_a_contour_fills_the_voxels_whose_centres_it_encloses(tmp_path, axes):
    image = write_and_read_series(tmp_path / "s", axes=axes).volume()
    path = write_structure_set(
        tmp_path, image, {"lesion": [square(2.5, 8.5, 3), square(4.5, 6.5, 3), square(1.5, 2.5, 4)]}
    )
    label = annotations.read(path).volume(image)
    expected = np.zeros(image.shape)
    expected[3:9, 3:9, 3], expected[5:7, 5:7, 3], expected[2, 2, 4] = 1, 0, 1
    np.testing.assert_array_equal(label.voxels, expected)
    assert label.require_same_grid(image).unit == "label"


def test_structures_are_numbered_in_their_order_and_know_their_series(tmp_path):
    series = write_and_read_series(tmp_path / "s")
    path = write_structure_set(
        tmp_path, series.volume(), {"b": [square(1.5, 3.5, 1)], "a": [square(5.5, 7.5, 2)]}, series.uid
    )
    annotation = annotations.read(path)
    label = annotation.volume(series.volume())
    assert (annotation.series, annotation.names) == (series.uid, ("b", "a"))
    assert (label.voxels[2, 2, 1], label.voxels[6, 6, 2]) == (1, 2)


def test_a_structure_that_hides_another_is_warned_about(tmp_path):
    image = write_and_read_series(tmp_path / "s").volume()
    path = write_structure_set(tmp_path, image, {"a": [square(1.5, 5.5, 1)], "b": [square(3.5, 6.5, 1)]})
    with pytest.warns(InputWarning, match=r"'b' \(class 2\) covers 4 voxels of 'a' \(class 1\)"):
        annotations.read(path).volume(image)


def test_a_structure_without_a_voxel_is_warned_about(tmp_path):
    image = write_and_read_series(tmp_path / "s").volume()
    path = write_structure_set(tmp_path, image, {"tiny": [square(1.2, 1.4, 1)]})
    with pytest.warns(InputWarning, match=r"'tiny' \(class 1\) has no voxel"):
        annotations.read(path).volume(image)


@pytest.mark.parametrize(
    ("contour", "words"),
    [
        (square(1.5, 5.5, 1.4), "0.40 slices off"),
        ([(1, 1, 1), (5, 1, 2), (5, 5, 3)], "slices off"),
        (square(1.5, 5.5, 9), "outside its image"),
    ],
)
def test_a_contour_drawn_on_another_grid_is_refused(tmp_path, contour, words):
    image = write_and_read_series(tmp_path / "s").volume()
    with pytest.raises(BadInput, match=words):
        annotations.read(write_structure_set(tmp_path, image, {"a": [contour]})).volume(image)


@pytest.mark.parametrize(
    ("rois", "words"),
    [
        ({}, "no closed contour"),
        ({"a": [[(1, 1, 1), (2, 2, 1)]]}, "encloses nothing"),
        ({"a": []}, "no closed contour"),
    ],
)
def test_a_structure_set_without_contours_is_refused(tmp_path, rois, words):
    image = write_and_read_series(tmp_path / "s").volume()
    with pytest.raises(BadInput, match=words):
        annotations.read(write_structure_set(tmp_path, image, rois))


def test_an_image_is_no_annotation(tmp_path):
    (path,) = save(make_slices(count=1), tmp_path)
    with pytest.raises(BadInput, match="neither an RTSTRUCT nor"):
        annotations.read(path)


def segmentation(folder, masks, axes=(1, 0, 0, 0, 1, 0), kind=SegmentationTypeValues.BINARY):
    """A DICOM SEG by another library, of masks (k, j, i, segment) on the phantom's slices."""
    sources = [paint(d) for d in make_slices(axes=axes)]
    save(sources, folder / "s")
    for d in sources:
        for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            setattr(d, name, "")
        d.ReferringPhysicianName, d.SeriesNumber, d.Manufacturer = "", 1, "phantom"
    descriptions = [
        SegmentDescription(
            n + 1, f"lesion {n + 1}", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion,
            SegmentAlgorithmTypeValues.MANUAL,
        )
        for n in range(masks.shape[-1])
    ]  # fmt: skip
    seg = Segmentation(
        sources, masks, kind, descriptions, hd.UID(), 2, hd.UID(), 1, "phantom", "phantom", "1", "1",
        omit_empty_frames=True,
    )  # fmt: skip
    with closing(seg._db_con):
        seg.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_a_dicom_seg_of_another_library_lands_on_its_voxels(tmp_path, axes):
    masks = np.zeros((6, 12, 16, 2), np.uint8)
    masks[1:3, 2:5, 4:9, 0], masks[4, 7:9, 11:13, 1] = 1, 1
    path = segmentation(tmp_path, masks, axes)
    (series,) = dicom.read(tmp_path / "s")
    annotation = annotations.read(path)
    assert (annotation.series, annotation.names) == (series.uid, ("lesion 1", "lesion 2"))
    label = annotation.volume(series.volume()).voxels.transpose(2, 1, 0)
    np.testing.assert_array_equal(label, masks[..., 0] + 2 * masks[..., 1])


def test_a_seg_on_another_grid_is_refused(tmp_path):
    masks = np.ones((6, 12, 16, 1), np.uint8)
    annotation = annotations.read(segmentation(tmp_path, masks))
    (series,) = dicom.read(tmp_path / "s")
    image = series.volume()
    shifted = image.affine.copy()
    shifted[0, 3] += 0.7
    with pytest.raises(BadInput, match="between the voxels"):
        annotation.volume(Volume(image.voxels, shifted, "HU"))
    with pytest.raises(BadInput, match="outside the image"):
        annotation.volume(Volume(image.voxels[:8], image.affine, "HU"))


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_a_labelmap_lands_on_its_voxels(tmp_path, axes):
    masks = np.zeros((6, 12, 16, 3), np.uint8)
    masks[1:3, 2:5, 4:9, 0], masks[4, 7:9, 11:13, 1], masks[4, 2, 3, 2] = 1, 1, 1
    path = segmentation(tmp_path, masks, axes, SegmentationTypeValues.LABELMAP)
    (series,) = dicom.read(tmp_path / "s")
    annotation = annotations.read(path)
    assert (annotation.series, len(annotation.names)) == (series.uid, 3)
    label = annotation.volume(series.volume()).voxels.transpose(2, 1, 0)
    np.testing.assert_array_equal(label, masks @ np.arange(1, 4))


def test_a_fractional_seg_is_thresholded_with_a_warning(tmp_path):
    masks = np.zeros((6, 12, 16, 1))
    masks[1:3, 2:5, 4:9], masks[3, 2:4, 4:6], masks[4, 2:4, 4:7] = 1, 0.6, 0.2
    annotation = annotations.read(segmentation(tmp_path, masks, kind=SegmentationTypeValues.FRACTIONAL))
    (series,) = dicom.read(tmp_path / "s")
    with pytest.warns(InputWarning, match="10 voxels are partly inside"):
        label = annotation.volume(series.volume())
    np.testing.assert_array_equal(label.voxels.transpose(2, 1, 0), masks[..., 0] >= 0.5)


def test_a_fractional_seg_of_nothing_but_whole_masks_is_not_warned_about(tmp_path):
    masks = np.zeros((6, 12, 16, 1))
    masks[2, 3:5, 4:9] = 1
    annotation = annotations.read(segmentation(tmp_path, masks, kind=SegmentationTypeValues.FRACTIONAL))
    (series,) = dicom.read(tmp_path / "s")
    np.testing.assert_array_equal(annotation.volume(series.volume()).voxels.transpose(2, 1, 0), masks[..., 0])


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("SegmentationType", "SKETCH", "a SKETCH segmentation in .*; only BINARY, FRACTIONAL and LABELMAP can be read"),
        ("BitsAllocated", 1, "LABELMAP segmentation of 1 bits"),
        ("Rows", 400, "do not hold"),
        ("SegmentSequence", [], "its header names"),
    ],
)
def test_a_labelmap_that_contradicts_itself_is_refused(tmp_path, attribute, value, words):
    masks = np.zeros((6, 12, 16, 1), np.uint8)
    masks[2] = 1
    path = segmentation(tmp_path, masks, kind=SegmentationTypeValues.LABELMAP)
    data = dcmread(path)
    setattr(data, attribute, value)
    data.save_as(path)
    with pytest.raises(BadInput, match=words):
        annotations.read(path)


@pytest.mark.parametrize("name", ["sarcoma_STS_002/CT", "sarcoma_STS_025/CT", "sarcoma_STS_002/MR_T1"])
def test_a_real_tumour_equals_the_published_mask(shared_data, name):
    (series,) = dicom.read(shared_data("dicom") / name / "image")
    annotation = annotations.read(shared_data("dicom") / name / "mask" / "RS.dcm")
    image = series.volume()
    label = annotation.volume(image)
    published = nifti.read(shared_data("sarcoma") / "labelsTr" / f"{name[8:15]}.nii.gz", label=True).resample_to(
        image, 0
    )
    assert annotation.series == series.uid
    np.testing.assert_array_equal(label.voxels, published.voxels)
