"""DICOM slices whose true value is known everywhere in the patient, so that a wrong volume cannot pass."""

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}
AXIAL = (1, 0, 0, 0, 1, 0)
ROOT = "1.2.826.0.1.3680043.10.1234."


def true_value(mm):
    """The value at points in mm, RAS+; no two slices, flips or shifts of it are equal."""
    x, y, z = np.moveaxis(np.asarray(mm, float), -1, 0)
    return 300 + 4 * x - 6 * y + 9 * z + 0.05 * x * y + 0.03 * y * z


def slice_points(dataset, i, j):
    row, column = np.split(np.array(dataset.ImageOrientationPatient, float), 2)
    down, across = (float(mm) for mm in dataset.PixelSpacing)
    lps = np.array(dataset.ImagePositionPatient, float) + i[..., None] * row * across + j[..., None] * column * down
    return lps * (-1, -1, 1)


def slice_values(dataset):
    """The values of a slice at the position in its header."""
    j, i = np.meshgrid(np.arange(dataset.Rows), np.arange(dataset.Columns), indexing="ij")
    return true_value(slice_points(dataset, i, j))


def make_slices(
    count=6, modality="CT", axes=AXIAL, step=2.5, rows=12, columns=16, origin=(-11.0, -9.0, -7.0), slide=0.0
):
    """The data sets of a series, without pixels; `slide` shifts each slice along its columns, as a tilt does."""
    row, column = np.split(np.array(axes, float), 2)
    normal = np.cross(row, column)
    datasets = []
    for k in range(count):
        d = Dataset()
        d.SOPClassUID, d.SOPInstanceUID = CLASSES[modality], f"{ROOT}3.{k}"
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = ROOT + "1", ROOT + "2", ROOT + "4"
        d.PatientID, d.PatientName, d.Modality = "patient-1", "Doe^Jane", modality
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        d.SeriesDescription, d.InstanceNumber = "phantom", (k * 5) % count + 1
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
        d.PixelSpacing, d.SliceThickness = [1.5, 2.0], "5"
        d.ImageOrientationPatient = [round(float(a), 6) for a in axes]
        position = np.array(origin) + k * (step * normal + slide * column)
        d.ImagePositionPatient = [round(float(p), 6) for p in position]
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        if modality == "PT":
            d.Units = "GML"
        if modality != "MR":
            d.RescaleSlope, d.RescaleIntercept = "1", "-24"
        datasets.append(d)
    return datasets


def paint(dataset, values=None):
    """Stores the values of the slice (or other values) with its rescale, its bits and its sign."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    numbers = np.rint(((slice_values(dataset) if values is None else values) - intercept) / slope).astype(np.int64)
    numbers &= (1 << dataset.BitsStored) - 1
    if dataset.PixelRepresentation:
        sign = 1 << (dataset.BitsStored - 1)
        numbers = (numbers ^ sign) - sign
    dtype = f"{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
    dataset.PixelData = numbers.astype(f"<{dtype}").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def save(datasets, folder, syntax=ExplicitVRLittleEndian, suffix=".dcm"):
    """Writes data sets as files, painted if they have no pixels; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [save_one(d, folder / f"{n:03}{suffix}", syntax) for n, d in enumerate(datasets)]


def save_one(dataset, path, syntax=ExplicitVRLittleEndian):
    if "PixelData" not in dataset and "Rows" in dataset:
        paint(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", ROOT + "0")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", ROOT + "0")
    if syntax == ExplicitVRBigEndian and "PixelData" in dataset:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    if UID(syntax).is_compressed and not UID(syntax).is_deflated and "PixelData" in dataset:
        dataset["PixelData"].is_undefined_length = True
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def make_multiframe(datasets, modality="CT"):
    """One enhanced data set that holds the slices of several data sets."""
    first = datasets[0]
    for d in datasets:
        paint(d)
    dataset = Dataset()
    dataset.update(first)
    dataset.SOPClassUID, dataset.NumberOfFrames = ENHANCED[modality], len(datasets)
    dataset.PixelData = b"".join(d.PixelData for d in datasets)
    dataset["PixelData"].VR = "OW"
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [_copy_attributes(first, "PixelSpacing")]
    shared.PlaneOrientationSequence = [_copy_attributes(first, "ImageOrientationPatient")]
    dataset.PerFrameFunctionalGroupsSequence = [_make_group(d) for d in datasets]
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
        if name in dataset:
            del dataset[name]
    return dataset


def write_structure_set(folder, image, rois, series=ROOT + "2"):
    """An RTSTRUCT whose contours are given as voxel indices of an image."""
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", ROOT + "50"
    reference, study, frame = Dataset(), Dataset(), Dataset()
    reference.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [reference], [study]
    d.ReferencedFrameOfReferenceSequence = [frame]
    d.StructureSetROISequence, d.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items()):
        roi, roi_contour = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi_contour.ReferencedROINumber = number, name, number
        roi_contour.ContourSequence = [_make_contour(image, c) for c in contours]
        d.StructureSetROISequence.append(roi)
        d.ROIContourSequence.append(roi_contour)
    return save_one(d, folder / "rtstruct")


def _make_contour(image, index):
    contour = Dataset()
    contour.ContourGeometricType = "CLOSED_PLANAR"
    lps = image.to_mm(np.array(index, float)) * (-1, -1, 1)
    contour.ContourData = [f"{v:.4f}" for v in lps.ravel()]
    return contour


def _make_group(dataset):
    group = Dataset()
    group.PlanePositionSequence = [_copy_attributes(dataset, "ImagePositionPatient")]
    if "RescaleSlope" in dataset:
        group.PixelValueTransformationSequence = [_copy_attributes(dataset, "RescaleSlope", "RescaleIntercept")]
    if "EffectiveEchoTime" in dataset:
        group.MREchoSequence = [_copy_attributes(dataset, "EffectiveEchoTime")]
    return group


def _copy_attributes(dataset, *names):
    item = Dataset()
    for name in names:
        setattr(item, name, dataset[name].value)
    return item


def with_compressed_frames(dataset, *frames):
    """The data set with compressed frames as its pixels."""
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR = "OB"
    return dataset


def error_against_truth(volume, margin=0):
    """The largest difference between a volume and the true values at the positions of its voxels."""
    index = np.moveaxis(np.indices(volume.shape), 0, -1).astype(float)
    difference = np.abs(volume.voxels - true_value(volume.to_mm(index.reshape(-1, 3)).reshape(index.shape)))
    return float(difference[margin : difference.shape[0] - margin, margin : difference.shape[1] - margin].max())
