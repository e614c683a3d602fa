"""Slices whose right value is known everywhere in the patient, so that a wrong volume cannot hide."""

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


def truth(mm):
    """The value at points in mm, RAS+: no two slices, flips or shifts of it look alike."""
    x, y, z = np.moveaxis(np.asarray(mm, float), -1, 0)
    return 300 + 4 * x - 6 * y + 9 * z + 0.05 * x * y + 0.03 * y * z


def position_of(dataset, i, j):
    row, column = np.split(np.array(dataset.ImageOrientationPatient, float), 2)
    down, across = (float(mm) for mm in dataset.PixelSpacing)
    lps = np.array(dataset.ImagePositionPatient, float) + i[..., None] * row * across + j[..., None] * column * down
    return lps * (-1, -1, 1)


def values(dataset):
    """What one slice shows, from where it says it lies."""
    j, i = np.meshgrid(np.arange(dataset.Rows), np.arange(dataset.Columns), indexing="ij")
    return truth(position_of(dataset, i, j))


def slices(count=6, modality="CT", axes=AXIAL, step=2.5, rows=12, columns=16, origin=(-11.0, -9.0, -7.0), slide=0.0):
    """The data sets of a series, without pixels; `slide` shifts each slice along its columns, as a tilt does."""
    row, column = np.split(np.array(axes, float), 2)
    normal = np.cross(row, column)
    found = []
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
        place = np.array(origin) + k * (step * normal + slide * column)
        d.ImagePositionPatient = [round(float(p), 6) for p in place]
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
        if modality != "MR":
            d.RescaleSlope, d.RescaleIntercept = "1", "-24"
        found.append(d)
    return found


def paint(dataset, shown=None):
    """Stores what the slice shows (or `shown`) by its rescale, its bits and its sign."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    numbers = np.rint(((values(dataset) if shown is None else shown) - intercept) / slope).astype(np.int64)
    numbers &= (1 << dataset.BitsStored) - 1
    if dataset.PixelRepresentation:
        sign = 1 << (dataset.BitsStored - 1)
        numbers = (numbers ^ sign) - sign
    kind = f"{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
    dataset.PixelData = numbers.astype(f"<{kind}").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def save(datasets, folder, syntax=ExplicitVRLittleEndian, suffix=".dcm"):
    """Writes data sets (painted where they are not) as files; returns their paths."""
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


def multiframe(datasets, modality="CT"):
    """One enhanced data set that holds the slices of many."""
    first = datasets[0]
    for d in datasets:
        paint(d)
    whole = Dataset()
    whole.update(first)
    whole.SOPClassUID, whole.NumberOfFrames = ENHANCED[modality], len(datasets)
    whole.PixelData = b"".join(d.PixelData for d in datasets)
    whole["PixelData"].VR = "OW"
    whole.SharedFunctionalGroupsSequence = [Dataset()]
    shared = whole.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [_with(first, "PixelSpacing")]
    shared.PlaneOrientationSequence = [_with(first, "ImageOrientationPatient")]
    whole.PerFrameFunctionalGroupsSequence = [_group(d) for d in datasets]
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
        if name in whole:
            del whole[name]
    return whole


def structure_set(folder, image, rois, series=ROOT + "2"):
    """An RTSTRUCT whose contours are given as voxel indices of an image."""
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", ROOT + "50"
    reference, study, frame = Dataset(), Dataset(), Dataset()
    reference.SeriesInstanceUID = series
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [reference], [study]
    d.ReferencedFrameOfReferenceSequence = [frame]
    d.StructureSetROISequence, d.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items()):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = [_contour(image, c) for c in contours]
        d.StructureSetROISequence.append(roi)
        d.ROIContourSequence.append(drawn)
    return save_one(d, folder / "rtstruct")


def _contour(image, index):
    found = Dataset()
    found.ContourGeometricType = "CLOSED_PLANAR"
    lps = image.to_mm(np.array(index, float)) * (-1, -1, 1)
    found.ContourData = [f"{v:.4f}" for v in lps.ravel()]
    return found


def _group(dataset):
    group = Dataset()
    group.PlanePositionSequence = [_with(dataset, "ImagePositionPatient")]
    if "RescaleSlope" in dataset:
        group.PixelValueTransformationSequence = [_with(dataset, "RescaleSlope", "RescaleIntercept")]
    if "EffectiveEchoTime" in dataset:
        group.MREchoSequence = [_with(dataset, "EffectiveEchoTime")]
    return group


def _with(dataset, *names):
    item = Dataset()
    for name in names:
        setattr(item, name, dataset[name].value)
    return item


def packed(dataset, *frames):
    """The data set with compressed frames as its pixels."""
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR = "OB"
    return dataset


def off_truth(volume, margin=0):
    """The largest difference between a volume and the truth where it says it lies."""
    index = np.moveaxis(np.indices(volume.shape), 0, -1).astype(float)
    apart = np.abs(volume.voxels - truth(volume.to_mm(index.reshape(-1, 3)).reshape(index.shape)))
    return float(apart[margin : apart.shape[0] - margin, margin : apart.shape[1] - margin].max())
