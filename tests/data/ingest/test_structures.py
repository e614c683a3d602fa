"""Structures of RTSTRUCT and SEG files become the labels of their series, or are refused with the true reason."""

import json

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import JPEGLSLossless, RLELossless

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.reference_labels import References
from medssl.data.ingest.structures.structure_map import StructureMap
from medssl.data.store import Store
from medssl.errors import BadInput
from medssl.io import dicom
from medssl.io.dicom import annotations
from tests.helpers.dicom_phantom import ROOT, make_slices, save, write_structure_set
from tests.io.dicom.test_annotations import segmentation


def square(low, high, k):
    return [(low, low, k), (high, low, k), (high, high, k), (low, high, k)]


def cube(low, high, slices):
    return [square(low - 0.5, high - 0.5, k) for k in slices]


def write_scan(folder, rois=None, name="rs.dcm", uid=ROOT + "2", patient="patient-1"):
    """A CT of 6 slices of 16 x 12 voxels and, on request, an RTSTRUCT with contours in voxel indices."""
    if not (folder / "000.dcm").exists():
        datasets = make_slices()
        for d in datasets:
            d.SeriesInstanceUID, d.PatientID, d.SOPInstanceUID = uid, patient, f"{d.SOPInstanceUID}.{uid[-1]}"
        save(datasets, folder)
    image = next(s for s in dicom.read(folder) if isinstance(s, dicom.Series)).volume()
    if rois is not None:
        write_structure_set(folder, image, rois, uid).rename(folder / name)
    return image


def run(tmp_path, **options):
    config = IngestConfig(**{"num_workers": 0, "spacing_mm": "native", "deidentify": False} | options)
    return ingest(tmp_path / "scans", tmp_path / "store", config, lambda *_: None)


def read_labels(tmp_path, summary, image):
    """The labels of the only case in the order of the image's axes, and its class names and warnings."""
    (case,) = summary.manifest.cases
    names = {int(n): v for n, v in json.loads((tmp_path / "store" / "store.json").read_text())["labels"].items()}
    stored = Store(summary.manifest).label(case).volume()
    return stored.resample_to(image, 0).voxels, names, case.warnings


def count_voxels(tmp_path, summary, image):
    voxels, names, warnings = read_labels(tmp_path, summary, image)
    return {name: int((voxels == n).sum()) for n, name in names.items()}, warnings


def reasons(summary):
    return " | ".join(row.reason for row in summary.rows if row.status == "refused")


HEART, PTV, BODY = cube(4, 8, [1, 2, 3]), cube(2, 9, [1, 2, 3, 4]), cube(0, 12, range(6))


@pytest.mark.parametrize("outline", ["External", "BODY", "skin", "Outer"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_smaller_structure_lies_on_a_larger_one_whatever_is_drawn_last(tmp_path, outline, order):
    rois = [("Heart", HEART), ("PTV", PTV), (outline, BODY)]
    image = write_scan(tmp_path / "scans", dict(rois[n] for n in order))
    sizes, warnings = count_voxels(tmp_path, run(tmp_path), image)
    assert (sizes["Heart"], sizes["PTV"]) == (48, 7 * 7 * 4 - 48)
    assert "'Heart' (class" in warnings and "covers 48 voxels of 'PTV'" in warnings


def test_an_outline_lies_at_the_bottom_even_if_it_is_smaller(tmp_path):
    image = write_scan(tmp_path / "scans", {"External": HEART, "PTV": PTV})
    sizes, warnings = count_voxels(tmp_path, run(tmp_path), image)
    assert sizes == {"External": 0, "PTV": 196} and "External" not in warnings


MAPS = {
    "names and patterns": ("classes: {Cor: ['heart.*'], Target: 'ptv'}\nothers: drop", {"Cor": 48, "Target": 148}),
    "merge": ("classes: {Both: [heart, ptv]}\nothers: drop", {"Both": 196}),
    "drop": ("drop: ['PTV', ext.*]", {"Heart": 48}),
    "order": ("order: [PTV]\ndrop: [external]", {"Heart": 0, "PTV": 196}),
    "order of all": ("order: [External, PTV]", {"External": 864, "Heart": 0, "PTV": 0}),
    "own name": ("classes: {HEART: []}\nothers: drop", {"HEART": 48}),
}


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_chooses_renames_merges_drops_and_orders_structures(tmp_path, kind):
    text, expected = MAPS[kind]
    (tmp_path / "map.yaml").write_text(text)
    image = write_scan(tmp_path / "scans", {"Heart": HEART, "PTV": PTV, "External": BODY})
    assert count_voxels(tmp_path, run(tmp_path, structures=tmp_path / "map.yaml"), image)[0] == expected


@pytest.mark.parametrize(("text", "words"), [
    ("classes: {A: ['he.*'], B: ['.*art']}", "'Heart' matches the classes A, B"),
    ("drop: ['(']", "no regular expression"),
    ("clases: {}", "clases"),
    ("others: maybe", "others"),
])  # fmt: skip
def test_a_faulty_map_is_refused(tmp_path, text, words):
    (tmp_path / "map.yaml").write_text(text)
    write_scan(tmp_path / "scans", {"Heart": HEART})
    with pytest.raises(BadInput, match=words):
        run(tmp_path, structures=tmp_path / "map.yaml")


def test_a_map_that_chooses_nothing_of_a_file_says_so_and_keeps_the_image(tmp_path):
    (tmp_path / "map.yaml").write_text("classes: {Liver: []}\nothers: drop")
    write_scan(tmp_path / "scans", {"Heart": HEART})
    summary = run(tmp_path, structures=tmp_path / "map.yaml")
    assert "rs.dcm: none of its structures is chosen by --structures" in reasons(summary)


CORD = [square(3.5, 5.5, k) for k in (-1, 0, 1, 2, 6)]
STRAY = [*HEART, [(1, 1, 2)], [(1, 1, 2), (2, 2, 2)]]
DRAWN = {
    "beyond the ends": ({"Cord": CORD}, {"Cord": 12}, "'Cord': 2 contours lie outside the image; they are left out"),
    "stray points": ({"Heart": STRAY}, {"Heart": 48}, "'Heart': 2 contours of one or two points are left out"),
    "half slices": ({"Heart": cube(4, 8, [0.5, 1.5, 2.5, 3.5])}, {"Heart": 48}, "'Heart': its contours lie between"),
    "beyond the edge": ({"Heart": [square(-3.5, 2.5, 1)]}, {"Heart": 9}, ""),
    "one bad of two": ({"Heart": HEART, "Tilted": [[(1, 1, 1), (5, 1, 2), (5, 5, 3)]]}, {"Heart": 48, "Tilted": 0},
                       "'Tilted': a contour spans 2.00 slices off its plane"),
    "all strays of two": ({"Heart": HEART, "Dot": [[(1, 1, 2)]]}, {"Heart": 48, "Dot": 0}, "'Dot': its 1 contours"),
    "elsewhere": ({"Heart": HEART, "Knee": [square(1, 5, 40)]}, {"Heart": 48, "Knee": 0},
                  "'Knee': its contours lie outside its image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DRAWN)
def test_what_can_be_drawn_is_drawn_and_the_rest_is_named(tmp_path, kind):
    rois, expected, words = DRAWN[kind]
    image = write_scan(tmp_path / "scans", rois)
    summary = run(tmp_path)
    sizes, warnings = count_voxels(tmp_path, summary, image)
    assert sizes == expected
    assert words in warnings if words else not warnings
    (present,) = json.loads((tmp_path / "store" / "store.json").read_text())["present_labels"].values()
    assert len(present) == sum(count > 0 for count in expected.values())


def test_slices_between_contours_are_interpolated_in_shape(tmp_path):
    image = write_scan(tmp_path / "scans", {"Cone": [square(1.5, 9.5, 0.5), square(3.5, 7.5, 1.5)]})
    voxels, _, _ = read_labels(tmp_path, run(tmp_path), image)
    assert not voxels[:, :, [0, 2, 3, 4, 5]].any()
    assert 16 < voxels[:, :, 1].sum() < 64 and voxels[4:8, 4:8, 1].all()


def rewrite(path, change):
    data = dcmread(path)
    change(data)
    data.save_as(path)


def two_series(data):
    series = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    series.append(type(series[0])())
    series[1].SeriesInstanceUID = ROOT + "99"


REFUSED = {
    "two of one name": (lambda d: setattr(d.StructureSetROISequence[1], "ROIName", "Heart"),
                        "two structures are called 'Heart'; rename one"),
    "no reference": (lambda d: delattr(d, "ReferencedFrameOfReferenceSequence"), "refers to 0 series; exactly one"),
    "two references": (two_series, "refers to 2 series; exactly one"),
    "points of text": (lambda d: setattr(d.ROIContourSequence[0].ContourSequence[0], "ContourData", ["1", "2"]),
                       "not triples of numbers; export the structures again"),
    "no contours": (lambda d: delattr(d, "ROIContourSequence"), "holds no closed contour"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_the_true_reason_of_refused_structures_is_in_the_ledger_and_the_image_is_kept(tmp_path, kind):
    change, words = REFUSED[kind]
    write_scan(tmp_path / "scans", {"Heart": HEART, "PTV": PTV})
    rewrite(tmp_path / "scans" / "rs.dcm", change)
    summary = run(tmp_path)
    assert words in reasons(summary) and "rs.dcm" in reasons(summary)
    assert [case.label for case in summary.manifest.cases] == [None]


def test_structures_of_a_series_that_is_not_here_say_so(tmp_path):
    write_scan(tmp_path / "scans", {"Heart": HEART})
    write_scan(tmp_path / "other", {"Heart": HEART}, uid=ROOT + "9")
    (tmp_path / "other" / "rs.dcm").rename(tmp_path / "scans" / "rs9.dcm")
    assert "rs9.dcm: structures: the series that they were drawn on is not here" in reasons(run(tmp_path))


def test_several_annotations_of_a_series_are_united(tmp_path):
    image = write_scan(tmp_path / "scans", {"Heart": HEART}, "rs1.dcm")
    write_scan(tmp_path / "scans", {"Lung": cube(8, 11, [1, 2])}, "rs2.dcm")
    write_scan(tmp_path / "scans", {"Heart": cube(4, 8, [4])}, "rs3.dcm")
    summary = run(tmp_path)
    assert count_voxels(tmp_path, summary, image)[0] == {"Heart": 64, "Lung": 18}
    assert not reasons(summary)


def test_a_store_grows_by_a_new_structure_and_keeps_its_numbers(tmp_path):
    write_scan(tmp_path / "scans" / "a", {"Heart": HEART, "Lung": PTV})
    first = run(tmp_path)
    images = {"b": write_scan(tmp_path / "scans" / "b", {"Aorta": HEART, "Heart": cube(8, 11, [0])}, uid=ROOT + "9",
                              patient="p2")}  # fmt: skip
    summary = run(tmp_path)
    metadata = json.loads((tmp_path / "store" / "store.json").read_text())
    assert metadata["labels"] == {"1": "Heart", "2": "Lung", "3": "Aorta"}
    assert summary.prepared == 1
    new = next(c for c in summary.manifest.cases if c.id not in {c.id for c in first.manifest.cases})
    assert metadata["present_labels"][new.id] == [1, 3]
    voxels = Store(summary.manifest).label(new).volume().resample_to(images["b"], 0).voxels
    assert ((voxels == 3).sum(), (voxels == 1).sum()) == (48, 9)
    references = References.read(tmp_path / "store" / "manifest.csv")
    label = references.read_label(new.id, images["b"])
    np.testing.assert_array_equal(label.voxels, voxels)


# --- DICOM SEG ------------------------------------------------------------------------------------------------------
def write_segments(folder, change=None, kind="BINARY"):
    masks = np.zeros((6, 12, 16, 2), np.uint8)
    masks[1:3, 2:5, 4:9, 0], masks[4, 7:9, 11:13, 1] = 1, 1
    path = segmentation(folder, masks, kind=kind)
    if change:
        rewrite(path, change)
    image = next(s for s in dicom.read(folder) if isinstance(s, dicom.Series)).volume()
    return image


def compress(syntax):
    def change(data):
        options = {
            "rows": data.Rows, "columns": data.Columns, "samples_per_pixel": 1, "bits_allocated": data.BitsAllocated,
            "bits_stored": data.BitsStored, "pixel_representation": 0, "number_of_frames": 1,
            "photometric_interpretation": "MONOCHROME2",
        }  # fmt: skip
        frames = np.frombuffer(data.PixelData, np.uint8)[: data.NumberOfFrames * data.Rows * data.Columns]
        plugin = "pydicom" if syntax == RLELossless else "pyjpegls"
        frames = frames.reshape(data.NumberOfFrames, -1)
        encoded = [get_encoder(syntax).encode(f.tobytes(), encoding_plugin=plugin, **options) for f in frames]
        data.PixelData = encapsulate(encoded)
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax

    return change


def pack_bits_in_rle(data):
    """Frames of single bits, packed and compressed, as some viewers write them."""
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    size = data.Rows * data.Columns
    packed = np.packbits(bits[: data.NumberOfFrames * size].reshape(-1, size), axis=1, bitorder="little")
    options = {
        "rows": 1, "columns": size // 8, "samples_per_pixel": 1, "bits_allocated": 8, "bits_stored": 8,
        "pixel_representation": 0, "number_of_frames": 1, "photometric_interpretation": "MONOCHROME2",
    }  # fmt: skip
    encoded = [get_encoder(RLELossless).encode(f.tobytes(), encoding_plugin="pydicom", **options) for f in packed]
    data.PixelData = encapsulate(encoded)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = RLELossless


def one_label(data):
    data.SegmentSequence[1].SegmentLabel = data.SegmentSequence[0].SegmentLabel


def no_series(data):
    del data.ReferencedSeriesSequence


COMPRESSED = {
    "RLE": ("FRACTIONAL", compress(RLELossless)),
    "JPEG-LS": ("LABELMAP", compress(JPEGLSLossless)),
    "bits in RLE": ("BINARY", pack_bits_in_rle),
}
UNCOMPRESSED = {
    "segments of one label": ("BINARY", one_label, {"lesion 1": 34}),
    "no name of the series": ("BINARY", no_series, {"lesion 1": 30, "lesion 2": 4}),
    "no name of the series in a label map": ("LABELMAP", no_series, {"lesion 1": 30, "lesion 2": 4}),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_segmentations_of_viewers_are_read(tmp_path, kind):
    segmentation_type, change = COMPRESSED[kind]
    image = write_segments(tmp_path, kind=segmentation_type)
    expected = annotations.read(tmp_path / "seg.dcm").volume(image).voxels
    rewrite(tmp_path / "seg.dcm", change)
    np.testing.assert_array_equal(annotations.read(tmp_path / "seg.dcm").volume(image).voxels, expected)
    assert np.bincount(expected.ravel()).tolist() == [1152 - 34, 30, 4]


@pytest.mark.parametrize("kind", UNCOMPRESSED)
def test_segmentations_of_viewers_become_labels(tmp_path, kind):
    segmentation_type, change, expected = UNCOMPRESSED[kind]
    image = write_segments(tmp_path / "scans", change, segmentation_type)
    summary = run(tmp_path)
    assert count_voxels(tmp_path, summary, image)[0] == expected, reasons(summary)


def test_a_segmentation_without_its_series_is_refused_where_two_fit(tmp_path):
    write_segments(tmp_path / "scans", no_series)
    write_scan(tmp_path / "scans" / "again", uid=ROOT + "9")
    summary = run(tmp_path)
    assert "2 series have their frame of reference and their grid" in reasons(summary)
    assert len(summary.manifest.cases) == 2


def test_a_pattern_is_matched_against_the_whole_name_in_any_case():
    chosen = StructureMap(classes={"Lung": ["lung[ _]?[lr]"]}, drop=["lung_l_ptv"])
    names = ["LUNG_L", "lung r", "Lung", "lung_l_ptv", "Lungs"]
    assert [chosen.name_class(name) for name in names] == ["Lung", "Lung", "Lung", None, "Lungs"]
