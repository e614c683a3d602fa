"""DICOM as scanners and archives write it: read with the right values, or refused with the reason and the remedy."""

import re
import struct
import warnings
from copy import deepcopy

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, get_encoder
from pydicom.uid import RLELossless

from medssl.errors import BadInput, InputWarning
from medssl.io import dicom
from medssl.io.rejected import RejectedFiles
from tests.helpers.dicom_phantom import (
    ROOT,
    error_against_truth,
    make_slices,
    paint,
    save,
    save_one,
    slice_values,
    with_compressed_frames,
)


def read_volumes(folder):
    """The volumes of a folder, and the messages of their warnings."""
    results = list(dicom.read(folder))
    assert all(isinstance(r, dicom.Series) for r in results), results
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        volumes = [r.volume() for r in results]
    return volumes, " | ".join(str(w.message) for w in caught)


def read_reasons(folder):
    results = list(dicom.read(folder))
    assert all(isinstance(r, RejectedFiles) for r in results), results
    return " | ".join(r.reason for r in results)


def set_all(datasets, **attributes):
    for d in datasets:
        for name, value in attributes.items():
            setattr(d, name, value)
    return datasets


# --- values ---------------------------------------------------------------------------------------------------------
def insert_before_pixels(path, element):
    content = path.read_bytes()
    start = content.rindex(b"\xe0\x7f\x10\x00O")
    path.write_bytes(content[:start] + element(len(content) - start) + content[start:])


def group_length(size):
    return b"\xe0\x7f\x00\x00UL\x04\x00" + struct.pack("<I", size)


def offset_tables(size):
    table = struct.pack("<Q", 0)
    return b"".join(
        b"\xe0\x7f" + tag + b"OV\x00\x00" + struct.pack("<I", 8) + table for tag in (b"\x01\x00", b"\x02\x00")
    )


@pytest.mark.parametrize("element", [group_length, offset_tables, lambda size: group_length(size) + offset_tables(0)])
def test_elements_of_the_pixel_group_before_the_pixels_are_passed_over(tmp_path, element):
    for path in save(make_slices(), tmp_path):
        insert_before_pixels(path, element)
    (volume,), words = read_volumes(tmp_path)
    assert error_against_truth(volume) <= 0.51 and not words


def test_a_group_length_is_read_as_by_another_library(tmp_path):
    paths = save(make_slices(), tmp_path)
    for path in paths:
        insert_before_pixels(path, group_length)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    expected = sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)
    np.testing.assert_array_equal(read_volumes(tmp_path)[0][0].voxels, expected)


def test_an_extended_offset_table_of_compressed_pixels_is_read(tmp_path):
    datasets = [paint(d) for d in make_slices(count=3)]
    for d in datasets:
        options = {
            "rows": d.Rows, "columns": d.Columns, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 16,
            "pixel_representation": 1, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
        }  # fmt: skip
        frame = get_encoder(RLELossless).encode(d.PixelData, encoding_plugin="pydicom", **options)
        with_compressed_frames(d, frame)
        d.ExtendedOffsetTable, d.ExtendedOffsetTableLengths = struct.pack("<Q", 0), struct.pack("<Q", len(frame))
    save(datasets, tmp_path, RLELossless)
    assert error_against_truth(read_volumes(tmp_path)[0][0]) <= 0.51


@pytest.mark.parametrize(("signed", "bit"), [(0, 12), (0, 15), (1, 13), (1, 15)])
def test_overlay_bits_above_the_values_are_left_out_with_a_warning(tmp_path, signed, bit):
    datasets = set_all(make_slices(), BitsStored=12, HighBit=11, PixelRepresentation=signed, RescaleIntercept="-900")
    for d in datasets:
        values = np.frombuffer(paint(d).PixelData, "<u2") & 0xFFF
        d.PixelData = (values | (1 << bit) * (np.arange(values.size) % 7 == 0)).astype("<u2").tobytes()
    save(datasets, tmp_path)
    (volume,), words = read_volumes(tmp_path)
    assert error_against_truth(volume) <= 0.51
    assert "an overlay lies in the bits above the 12" in words


@pytest.mark.parametrize("stored", [8, 9])
def test_values_with_more_bits_than_declared_are_no_overlay(tmp_path, stored):
    datasets = make_slices()
    for d in datasets:
        paint(d)
        d.BitsStored, d.HighBit = stored if stored == 8 else 8, 7
    save(datasets, tmp_path)
    (series,) = dicom.read(tmp_path)
    with pytest.raises(BadInput, match=r"000.dcm: .*more than the 8 bits it declares; export it again"):
        series.volume()


def make_lut(first, entries, bits=16, kind="HU"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US" if bits == 16 else "OW", entries)
    item.ModalityLUTType = kind
    return item


@pytest.mark.parametrize("signed", [0, 1])
def test_a_modality_lookup_table_is_applied_as_pydicom_does(tmp_path, signed):
    datasets = make_slices()
    for d in datasets:
        paint(d, np.arange(192).reshape(12, 16) - 24 - 8 * signed)
        d.PixelRepresentation = signed
        d.ModalityLUTSequence = [make_lut(-5 if signed else 5, [(7 * n) % 3000 for n in range(100)])]
        del d.RescaleSlope, d.RescaleIntercept
    paths = save(datasets, tmp_path)
    (volume,), _ = read_volumes(tmp_path)
    assert volume.unit == "HU"
    for k, path in enumerate(paths):
        data = dcmread(path)
        np.testing.assert_array_equal(volume.voxels[:, :, k].T, apply_modality_lut(data.pixel_array, data))


def test_a_lookup_table_of_another_length_than_declared_is_refused(tmp_path):
    datasets = make_slices()
    for d in datasets:
        d.ModalityLUTSequence = [make_lut(0, [1, 2, 3])]
        d.ModalityLUTSequence[0].LUTDescriptor = [9, 0, 16]
    save(datasets, tmp_path)
    assert re.search(r"000.dcm: .*table holds 3 entries of 16 bits, its descriptor declares 9; export",
                     read_reasons(tmp_path))  # fmt: skip


def test_the_file_with_a_broken_frame_is_named(tmp_path):
    datasets = [paint(d) for d in make_slices(count=3)]
    for n, d in enumerate(datasets):
        options = {
            "rows": d.Rows, "columns": d.Columns, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 16,
            "pixel_representation": 1, "photometric_interpretation": "MONOCHROME2", "number_of_frames": 1,
        }  # fmt: skip
        frame = get_encoder(RLELossless).encode(d.PixelData, encoding_plugin="pydicom", **options)
        with_compressed_frames(d, frame if n != 1 else bytes(range(200)))
    save(datasets, tmp_path, RLELossless)
    (series,) = dicom.read(tmp_path)
    with pytest.raises(BadInput, match=r"^001.dcm: its pixels cannot be decoded"):
        series.volume()


# --- several volumes in one series ----------------------------------------------------------------------------------
def add_private(dataset, group, creator, element, vr, value):
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)


def set_siemens(d, b):
    add_private(d, 0x19, "SIEMENS MR HEADER", 0x0C, "IS", b)


def set_siemens_bytes(d, b):
    add_private(d, 0x19, "SIEMENS MR HEADER", 0x0C, "UN", f"{b} ".encode())


def set_ge(d, b):
    add_private(d, 0x43, "GEMS_PARM_01", 0x39, "IS", [b + (1_000_000_000 if b else 0), 8, 0, 0])


def set_philips(d, b):
    add_private(d, 0x2001, "Philips Imaging DD 001", 0x03, "FL", float(b))


def set_philips_bytes(d, b):
    add_private(d, 0x2001, "Philips Imaging DD 001", 0x03, "UN", struct.pack("<f", b))


def set_uih(d, b):
    add_private(d, 0x65, "Image Private Header", 0x09, "FD", float(b))


def set_canon(d, b):
    d.ImageComments = f"b={b}(0.5,0.5,0.7)"


def set_sequence_name(d, b):
    d.SequenceName = f"*ep_b{b}t"


def set_description(d, b):
    d.SeriesDescription = f"Resp {b // 10}%"


def set_volume_number(d, b):
    d.InstanceNumber = int(d.SOPInstanceUID.split(".")[-2]) + 1 + (6 if b else 0)


def set_position_number(d, b):
    d.InstanceNumber = 2 * int(d.SOPInstanceUID.split(".")[-2]) + 1 + (1 if b else 0)


SPLITTERS = {
    "DiffusionBValue": [set_siemens, set_siemens_bytes, set_ge, set_philips, set_philips_bytes, set_uih],
    "ImageComments": [set_canon],
    "SequenceName": [set_sequence_name],
    "SeriesDescription": [set_description],
    "InstanceNumber": [set_volume_number, set_position_number],
}


def write_two_volumes(folder, split, modality="MR", jitter=0.0, count=6):
    for n, b in enumerate((0, 1000)):
        datasets = make_slices(count=count, modality=modality)
        for d in datasets:
            d.SOPInstanceUID += f".{n}"
            d.ImagePositionPatient[2] += jitter * n
            split(d, b)
            paint(d, slice_values(d) + b)
        save(datasets, folder, suffix=f"-{n}.dcm")


@pytest.mark.parametrize(("tag", "split"), [(tag, split) for tag, splits in SPLITTERS.items() for split in splits],
                         ids=lambda value: getattr(value, "__name__", value))  # fmt: skip
def test_volumes_are_told_apart_by_the_tags_of_their_vendor(tmp_path, tag, split):
    write_two_volumes(tmp_path, split)
    assert [s.sub_volume.split()[0] for s in dicom.read(tmp_path)] == [tag, tag]
    (low, high), words = read_volumes(tmp_path)
    assert error_against_truth(low) <= 0.51
    np.testing.assert_array_equal(high.voxels.astype(int) - low.voxels, 1000)
    assert not words


def test_positions_of_two_volumes_may_differ_by_a_rounding_error(tmp_path):
    write_two_volumes(tmp_path, set_siemens, jitter=0.004)
    assert len(read_volumes(tmp_path)[0]) == 2


def test_diffusion_directions_of_one_b_value_are_volumes(tmp_path):
    for n, (b, direction) in enumerate([(0, None), (1000, [1.0, 0.0, 0.0]), (1000, [0.0, 1.0, 0.0])]):
        datasets = make_slices(modality="MR")
        for d in datasets:
            d.SOPInstanceUID += f".{n}"
            set_siemens(d, b)
            if direction:
                add_private(d, 0x19, "SIEMENS MR HEADER", 0x0E, "FD", direction)
        save(datasets, tmp_path, suffix=f"-{n}.dcm")
    assert len(read_volumes(tmp_path)[0]) == 3


def test_a_volume_without_all_positions_is_refused_as_4d(tmp_path):
    write_two_volumes(tmp_path, set_siemens)
    (tmp_path / "005-1.dcm").unlink()
    reason = read_reasons(tmp_path)
    assert "11 slices at 6 positions, if it is a 4D series, export each of its volumes" in reason


def test_instance_numbers_without_a_consistent_order_split_nothing(tmp_path):
    write_two_volumes(tmp_path, lambda d, b: setattr(d, "InstanceNumber", hash((d.SOPInstanceUID, b)) % 10**6))
    assert "no tag distinguishes them" in read_reasons(tmp_path)


def test_b_values_that_change_within_a_volume_are_refused(tmp_path):
    datasets = make_slices(modality="MR")
    for n, d in enumerate(datasets):
        set_ge(d, 1000 * (n % 2))
    save(datasets, tmp_path)
    assert "DiffusionBValue changes from slice to slice" in read_reasons(tmp_path)


@pytest.mark.parametrize("texts", [("98", "98.0"), ("2.50", "2.5"), ("1e2", "100")])
def test_tags_are_compared_as_numbers(tmp_path, texts):
    datasets = make_slices(modality="MR")
    for n, d in enumerate(datasets):
        d.EchoTime = texts[n % 2]
    save(datasets, tmp_path)
    assert error_against_truth(read_volumes(tmp_path)[0][0]) <= 0.51


# --- grids of slices ------------------------------------------------------------------------------------------------
def make_csa(tags):
    """A CSA2 header of Siemens: each tag with its values as texts."""
    body = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        body += struct.pack("<64si4sIII", name.encode(), len(values), b"FD\0\0", 0, len(values), 77)
        for value in values:
            content = str(value).encode() + b"\0"
            body += struct.pack("<4I", len(content), len(content), 77, len(content))
            body += content + bytes(-len(content) % 4)
    return body


def make_grid(slices, num_rows, per_row):
    """One data set with the pixels of several slices side by side, row by row."""
    tiles = [np.frombuffer(paint(d).PixelData, "<i2").reshape(d.Rows, d.Columns) for d in slices]
    tiles += [np.zeros_like(tiles[0])] * (per_row * num_rows - len(tiles))
    grid = np.block([[tiles[r * per_row + c] for c in range(per_row)] for r in range(num_rows)])
    d = deepcopy(slices[0])
    d.Rows, d.Columns = grid.shape
    d.PixelData = grid.tobytes()
    d["PixelData"].VR = "OW"
    return d


def make_mosaic(axes=(1, 0, 0, 0, 1, 0), count=6, reverse=False, private=True):
    slices = make_slices(count=count, modality="MR", axes=axes)
    slices = slices[::-1] if reverse else slices
    size = int(np.ceil(np.sqrt(count)))
    d = make_grid(slices, size, size)
    row, column = np.split(np.array(axes, float), 2)
    down, across = (float(mm) for mm in d.PixelSpacing)
    shift = row * across * (d.Columns - slices[0].Columns) / 2 + column * down * (d.Rows - slices[0].Rows) / 2
    d.ImagePositionPatient = [round(float(v), 6) for v in np.array(slices[0].ImagePositionPatient, float) - shift]
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    d.SpacingBetweenSlices = "2.5"
    if private:
        normal = np.cross(row, column) * (-1 if reverse else 1)
        csa = make_csa({"NumberOfImagesInMosaic": [count], "SliceNormalVector": [f"{v:.8f}" for v in normal]})
        add_private(d, 0x29, "SIEMENS CSA HEADER", 0x10, "OB", csa)
    return d


OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)


@pytest.mark.parametrize("axes", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
@pytest.mark.parametrize(("count", "reverse"), [(6, False), (6, True), (4, False), (9, True)])
def test_a_siemens_mosaic_is_a_volume(tmp_path, axes, count, reverse):
    save([make_mosaic(axes, count, reverse)], tmp_path)
    (volume,), words = read_volumes(tmp_path)
    assert volume.shape == (16, 12, count)
    assert error_against_truth(volume) <= 0.51 and not words


def test_each_mosaic_of_a_time_series_is_a_volume(tmp_path):
    datasets = [make_mosaic() for _ in range(3)]
    for n, d in enumerate(datasets):
        d.SOPInstanceUID, d.AcquisitionNumber, d.InstanceNumber = f"{ROOT}7.{n}", n + 1, n + 1
    save(datasets, tmp_path)
    volumes, _ = read_volumes(tmp_path)
    assert [error_against_truth(v) <= 0.51 for v in volumes] == [True] * 3


def test_a_mosaic_without_its_private_header_is_refused_by_name(tmp_path):
    save([make_mosaic(private=False)], tmp_path)
    assert re.search(r"000.dcm: a Siemens mosaic of several slices without their number and direction .*export it",
                     read_reasons(tmp_path))  # fmt: skip


@pytest.mark.parametrize(("attribute", "value", "words"), [
    ("SpacingBetweenSlices", None, "without SpacingBetweenSlices"),
    ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1], "normal is not perpendicular"),
    ("Rows", 35, "no grid of 3x3 slices"),
])  # fmt: skip
def test_a_mosaic_that_contradicts_itself_is_refused(tmp_path, attribute, value, words):
    d = make_mosaic()
    if attribute == "Rows":
        d.PixelData = d.PixelData[: 35 * d.Columns * 2]
        d["PixelData"].VR = "OW"
    if value is None:
        del d[attribute]
    else:
        setattr(d, attribute, value)
    save([d], tmp_path)
    assert words in read_reasons(tmp_path)


@pytest.mark.parametrize(("count", "per_row"), [(6, 3), (5, 3), (4, 2)])
def test_a_uih_grid_is_a_volume(tmp_path, count, per_row):
    slices = make_slices(count=count, modality="MR", axes=OBLIQUE)
    d = make_grid(slices, -(-count // per_row), per_row)
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    del d.ImagePositionPatient
    items = []
    for s in slices:
        items.append(Dataset())
        items[-1].ImagePositionPatient = s.ImagePositionPatient
    add_private(d, 0x65, "Image Private Header", 0x50, "DS", str(count))
    add_private(d, 0x65, "Image Private Header", 0x51, "SQ", items)
    save([d], tmp_path)
    assert error_against_truth(read_volumes(tmp_path)[0][0]) <= 0.51


def test_a_uih_grid_without_positions_is_refused_by_name(tmp_path):
    d = make_grid(make_slices(modality="MR"), 2, 3)
    d.ImageType = ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    add_private(d, 0x65, "Image Private Header", 0x50, "DS", "6")
    save([d], tmp_path)
    assert "a UIH grid of 6 slices with 0 positions; export it again" in read_reasons(tmp_path)


# --- geometry -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("jitter", [2e-4, 5e-4, 9e-4])
def test_jitter_of_the_orientation_is_averaged_with_a_warning(tmp_path, jitter):
    datasets = make_slices()
    for n, d in enumerate(datasets):
        d.ImageOrientationPatient = [1, jitter * (n % 2), 0, -jitter * (n % 2), 1, 0]
    save(datasets, tmp_path)
    (volume,), words = read_volumes(tmp_path)
    assert "the orientation of its slices differs by up to" in words
    np.testing.assert_allclose(volume.affine[:3, 0] / 2, [-1, -jitter / 2, 0], atol=1e-6)
    assert error_against_truth(volume) <= 0.6


@pytest.mark.parametrize("jitter", [3e-3, 1e-2])
def test_more_jitter_is_refused(tmp_path, jitter):
    datasets = make_slices()
    datasets[2].ImageOrientationPatient = [1, jitter, 0, -jitter, 1, 0]
    save(datasets, tmp_path)
    assert "different orientation" in read_reasons(tmp_path)


@pytest.mark.parametrize(("step", "digits"), [(0.75, 1), (1.25, 1), (0.625, 1), (4.5, 0)])
def test_rounded_positions_are_read_as_evenly_spaced(tmp_path, step, digits):
    datasets = make_slices(count=12, step=step)
    for d in datasets:
        d.ImagePositionPatient = [round(float(v), digits) for v in d.ImagePositionPatient]
    save(datasets, tmp_path)
    (volume,), words = read_volumes(tmp_path)
    assert "slice positions are rounded to" in words
    np.testing.assert_allclose(volume.spacing_mm()[2], step, rtol=0.01)


def test_a_slice_missing_among_rounded_positions_is_still_a_gap(tmp_path):
    datasets = make_slices(count=12, step=0.75)
    for d in datasets:
        d.ImagePositionPatient = [round(float(v), 1) for v in d.ImagePositionPatient]
    del datasets[5]
    save(datasets, tmp_path)
    assert "--allow-gaps" in read_reasons(tmp_path)


KINDS = {
    "1.2.840.10008.5.1.4.1.1.20": "Nuclear Medicine Image Storage.*export the reconstructed SPECT volume",
    "1.2.840.10008.5.1.4.1.1.13.1.1": "X-Ray 3D Angiographic.*export the volume as CT or NIfTI",
    "1.2.840.10008.5.1.4.1.1.13.1.2": "X-Ray 3D Craniofacial.*export the volume as CT or NIfTI",
    "1.2.840.10008.5.1.4.1.1.12.1": "X-Ray Angiographic.*projections, no volume",
    "1.2.840.10008.5.1.4.1.1.13.1.3": "Breast Tomosynthesis.*no even resolution in depth",
    "1.2.840.10008.5.1.4.1.1.6.2": "Enhanced US Volume.*export the ultrasound volume",
}


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_of_other_kinds_are_named_with_the_remedy(tmp_path, kind):
    save_one(set_all(make_slices(count=1), SOPClassUID=kind)[0], tmp_path / "a.dcm")
    (rejected,) = dicom.read(tmp_path)
    assert re.search("a.dcm: " + KINDS[kind], rejected.reason)
    assert re.search(KINDS[kind], rejected.reason.public)


# --- an end that is lost --------------------------------------------------------------------------------------------
def number_from(first):
    return lambda datasets: [setattr(d, "InstanceNumber", n) for n, d in enumerate(datasets, first)]


@pytest.mark.parametrize(("change", "words"), [
    (number_from(2), "InstanceNumber starts at 2: slices at an end may be missing"),
    (lambda ds: set_all(ds, ImagesInAcquisition=7), "6 slices of 7 that the header declares"),
    (lambda ds: set_all(ds, NumberOfSlices=8), "6 slices of 8 that the header declares"),
    (number_from(1), ""),
    (lambda ds: set_all(ds, ImagesInAcquisition=6), ""),
    (lambda ds: set_all(ds, ImagesInAcquisition=3), ""),
])  # fmt: skip
def test_a_lost_end_is_warned_about(tmp_path, change, words):
    datasets = make_slices()
    change(datasets)
    save(datasets, tmp_path)
    _, found = read_volumes(tmp_path)
    assert words in found if words else not found


@pytest.mark.parametrize("content", [b"", b"see attached", bytes(128) + b"DICM"])
def test_a_damaged_file_beside_a_series_is_warned_about(tmp_path, content):
    save(make_slices(), tmp_path)
    (tmp_path / "006.dcm").write_bytes(content)
    rejected, series = dicom.read(tmp_path)
    assert "006.dcm" in rejected.reason
    with pytest.warns(InputWarning, match=r"006.dcm: not readable, .*slices at an end may be missing"):
        series.volume()


def test_a_readme_beside_a_series_is_no_lost_slice(tmp_path):
    save(make_slices(), tmp_path)
    (tmp_path / "readme.txt").write_text("see attached")
    _, series = dicom.read(tmp_path)
    assert series.missing == ()
