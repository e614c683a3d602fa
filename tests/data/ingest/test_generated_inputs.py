"""Generated inputs of every kind that ingestion meets: none is read wrongly, and hardly any valid one is refused."""

import gzip
import itertools
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.read_source import read_image
from medssl.data.ingest.structures.read_label import read_label
from medssl.errors import BadInput
from medssl.io import dicom
from tests.helpers.dicom_phantom import (
    error_against_truth,
    make_multiframe,
    make_slices,
    paint,
    save,
    slice_values,
    write_structure_set,
)
from tests.helpers.scan_folders import ScanFolder, box, scan

MIN_READ_FRACTION, MIN_INPUTS = 0.98, 150
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True)
class GeneratedInput:
    """A folder and what is right for it.

    Attributes:
        kind: The kind, as the table counts them.
        write: Writes the folder.
        judge: Returns "right", "refused" or what is wrong.
        words: What the refusal says; None for a valid input.
    """

    kind: str
    write: Callable[[Path], Any]
    judge: Callable[[Path], str]
    words: str | None = None


# --- judges


def judge_volumes(offsets, folder):
    """Compares the volumes of DICOM files with the true values plus the offset of each."""
    items = list(dicom.read(folder))
    series = [item for item in items if isinstance(item, dicom.Series)]
    if not series:
        return "refused: " + " | ".join(item.reason for item in items)
    remaining = list(offsets)
    for item in series:
        try:
            volume = item.volume()
        except BadInput as error:
            return f"refused: {error}"
        lowest = min(remaining, key=lambda offset: error_against_truth(move_values(volume, offset)), default=0)
        error = error_against_truth(move_values(volume, lowest))
        if error > 0.6 or lowest not in remaining:
            return f"{item.sub_volume or 'the volume'} is off by {error:.3g}"
        remaining.remove(lowest)
    return f"without the volumes {remaining}" if remaining else "right"


def move_values(volume, offset):
    return type(volume)(volume.voxels.astype(float) - offset, volume.affine, volume.unit)


def judge_cases(expected, folder):
    """Compares the cases of a folder: the number of each channel's scan, the number of each label, the modality."""
    layout = discover_dataset(folder, IngestConfig(follow_links=True))
    if not layout.sources:
        return "refused: " + " | ".join(row.reason for row in layout.rows)
    actual = []
    for source in layout.sources:
        try:
            image, modality = read_image(source)
        except BadInput as error:
            return f"refused: {error}"
        channels = image.voxels.reshape(-1, *image.shape)
        numbers = [n for c in channels for n in range(40) for m in ("CT", "MR") if np.array_equal(c, scan(n, m))]
        label = None
        if source.label is not None:
            try:
                drawn = read_label(source, image).voxels > 0
            except BadInput as error:
                return f"refused: {error}"
            label = next((n for n in range(40) if np.array_equal(drawn, box(n) > 0)), "wrong")
        actual.append((tuple(dict.fromkeys(numbers)), label, modality))
    return "right" if sorted(actual, key=str) == sorted(expected, key=str) else f"{actual}, right is {expected}"


def judge_structures(expected, folder):
    """Compares the number of voxels of each structure of the only case."""
    layout = discover_dataset(folder)
    (source,) = layout.sources
    if source.label is None:
        return "refused: " + " | ".join(row.reason for row in layout.rows)
    voxels = read_label(source, read_image(source)[0]).voxels
    actual = {name: int((voxels == value).sum()) for value, name in layout.labels.items()}
    return "right" if actual == expected else f"{actual}, right is {expected}"


# --- split series

SPLITS = (
    ("MR", "EchoTime", ("4.6", "9.2", "13.8")),
    ("CT", "AcquisitionNumber", ("1", "2", "3")),
    ("MR", "TemporalPositionIdentifier", ("1", "2", "10")),
    ("MR", "DiffusionBValue", (0.0, 50.0, 1000.0)),
    ("CT", "SeriesDescription", ("Resp 0%", "Resp 10%", "Resp 20%")),
    ("MR", "InversionTime", ("100", "200", "1500")),
    ("CT", "InstanceNumber", (0, 6, 12)),
)


def write_split(modality, keyword, values, subfolders, folder):
    for n, value in enumerate(values):
        datasets = make_slices(modality=modality)
        for k, d in enumerate(datasets):
            setattr(d, keyword, value if keyword != "InstanceNumber" else value + k + 1)
            d.SOPInstanceUID += f".{n}"
            paint(d, slice_values(d) + 100 * n)
        save(datasets, folder / f"v{n}" if subfolders else folder, suffix=f"-{n}.dcm")


def list_split_series():
    for (modality, keyword, values), count, subfolders in itertools.product(SPLITS, (2, 3), (False, True)):
        write = partial(write_split, modality, keyword, values[:count], subfolders)
        yield GeneratedInput("split series", write, partial(judge_volumes, [100 * n for n in range(count)]))


# --- which file is what

LAYOUTS = {
    "images and labels": ({"images/a": 1, "images/b": 2}, {"labels/a": 1, "labels/b": 2}, [((1,), 1), ((2,), 2)]),
    "a_seg beside a": ({"a": 1, "b": 2}, {"a_seg": 3, "b_seg": 4}, [((1,), 3), ((2,), 4)]),
    "dseg beside a": ({"p1/a": 1, "p2/b": 2}, {"p1/a_dseg": 3, "p2/b_dseg": 4}, [((1,), 3), ((2,), 4)]),
    "labels in final": ({"a": 1, "b": 2}, {"labels/final/a": 3, "labels/final/b": 4}, [((1,), 3), ((2,), 4)]),
    "image beside label": ({"p1/image": 1, "p2/image": 2}, {"p1/label": 3, "p2/label": 4}, [((1,), 3), ((2,), 4)]),
    "BraTS": ({f"p{p}/p{p}_{s}": 10 * p + n for p in (1, 2) for n, s in enumerate(("flair", "t1", "t1ce", "t2"))},
              {f"p{p}/p{p}_seg": p for p in (1, 2)}, [((10, 11, 12, 13), 1), ((20, 21, 22, 23), 2)]),
    "TotalSegmentator": ({"s0001/ct": 1, "s0002/ct": 2},
                         {"s0001/segmentations/liver": 3, "s0002/segmentations/liver": 4}, [((1,), 3), ((2,), 4)]),
    "no labels": ({"p1/t1w": 1, "p2/t1w": 2}, {}, [((1,), None), ((2,), None)]),
}  # fmt: skip


def write_layout(images, labels, modality, ending, root):
    folder = ScanFolder(root)
    for name, number in images.items():
        folder.scan(name + ending, number, modality)
    for name, number in labels.items():
        folder.label(name + ending, number)


def list_layouts():
    for (name, (images, labels, cases)), ending in itertools.product(LAYOUTS.items(), ENDINGS):
        modality = "CT" if name == "TotalSegmentator" else "MR"
        expected = [(channels, label, modality) for channels, label in cases]
        write = partial(write_layout, images, labels, modality, ending)
        yield GeneratedInput("layouts", write, partial(judge_cases, expected))


# --- modality

NAMES = {
    "CT": ("CT", "ct", "CTA", "CBCT", "CT scan", "Computed Tomography", "noncontrast CT", "CT_arterial"),
    "MR": ("MRI", "T1", "FLAIR", "T2w", "ADC"),
    "PT": ("PT", "PET"),
}


def write_channel(name, modality, root):
    folder = ScanFolder(root)
    folder.scan("imagesTr/a_0000.nii.gz", 1, modality)
    folder.label("labelsTr/a.nii.gz", 3)
    description = {"channel_names": {"0": name}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
    folder.text("dataset.json", description)


def list_modalities():
    for modality, names in NAMES.items():
        for name in names:
            write = partial(write_channel, name, "CT" if modality == "CT" else "MR")
            yield GeneratedInput("modality", write, partial(judge_cases, [((1,), 3, modality)]))


# --- structures


def draw_square(low, high, k):
    return [(low, low, k), (high, low, k), (high, high, k), (low, high, k)]


def draw_cube(low, high, slices):
    return [draw_square(low - 0.5, high - 0.5, k) for k in slices]


HEART, PTV, BODY = draw_cube(4, 8, [1, 2, 3]), draw_cube(2, 9, [1, 2, 3, 4]), draw_cube(0, 12, range(6))
DRAWN = (
    ({"Cord": [draw_square(3.5, 5.5, k) for k in (-1, 0, 1, 2, 6)]}, {"Cord": 12}),
    ({"Heart": [*HEART, [(1, 1, 2)]]}, {"Heart": 48}),
    ({"Heart": [*HEART, [(1, 1, 2), (2, 2, 2)]]}, {"Heart": 48}),
    ({"Heart": draw_cube(4, 8, [0.5, 1.5, 2.5, 3.5])}, {"Heart": 48}),
    ({"Heart": [draw_square(-3.5, 2.5, 1)]}, {"Heart": 9}),
)


def write_drawn(rois, folder):
    save(make_slices(), folder)
    (series,) = dicom.read(folder)
    write_structure_set(folder, series.volume(), rois)


def list_structures():
    for outline, order in itertools.product(("External", "BODY"), itertools.permutations(range(3))):
        rois = [("Heart", HEART), ("PTV", PTV), (outline, BODY)]
        sizes = {"Heart": 48, "PTV": 148, outline: 668}
        yield GeneratedInput(
            "structures", partial(write_drawn, dict(rois[n] for n in order)), partial(judge_structures, sizes)
        )
    for rois, sizes in DRAWN:
        yield GeneratedInput("structures", partial(write_drawn, rois), partial(judge_structures, sizes))


# --- DICOM as scanners write it


def write_slices(folder, change=lambda d, k: None, syntax=None, suffix=".dcm", **options):
    datasets = make_slices(**options)
    for k, d in enumerate(datasets):
        change(d, k)
    return save(datasets, folder, **({"syntax": syntax} if syntax else {}), suffix=suffix)


def list_orientations():
    axes = [np.eye(3)[a] * s for a in range(3) for s in (1, -1)]
    for row, column in itertools.product(axes, axes):
        if not np.dot(row, column):
            for step in (2.5, -2.5):
                write = partial(write_slices, axes=(*row, *column), step=step)
                yield GeneratedInput("orientations", write, partial(judge_volumes, [0]))


def set_tags(d, _, **values):
    for name, value in values.items():
        setattr(d, name, value)


def turn(d, k, angle):
    d.ImageOrientationPatient = [1, angle * (k % 2), 0, -angle * (k % 2), 1, 0]


def round_position(d, k, digits):
    d.ImagePositionPatient = [*d.ImagePositionPatient[:2], round(-7 + 0.75 * k, digits)]
    paint(d, slice_values(d))


def write_echo_texts(d, k):
    d.EchoTime = "98" if k % 2 else "98.0"


def declare_bits(d, _):
    d.BitsStored, d.HighBit, d.PixelRepresentation, d.RescaleIntercept = 12, 11, 0, "-900"


SCANNERS: tuple[dict[str, Any], ...] = (
    *({"syntax": syntax} for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)),
    *({"change": partial(turn, angle=angle)} for angle in (5e-5, 3e-4, 9e-4)),
    *({"change": partial(set_tags, RescaleSlope=slope, RescaleIntercept=offset)}
      for slope in ("0.5", "1", "0.25") for offset in ("-1024", "0", "-24")),
    {"change": write_echo_texts, "modality": "MR"},
    {"change": declare_bits},
    {"change": partial(set_tags, GantryDetectorTilt="12")},
    {"change": partial(set_tags, PixelPaddingValue=-2000)},
    {"suffix": ""},
    {"modality": "MR"},
    {"count": 2},
    {"count": 40},
)  # fmt: skip


def write_multiframe(folder):
    save([make_multiframe(make_slices())], folder)


def list_scanners():
    for options in SCANNERS:
        yield GeneratedInput("scanners", partial(write_slices, **options), partial(judge_volumes, [0]))
    yield GeneratedInput("scanners", write_multiframe, partial(judge_volumes, [0]))


# --- files


def pack(folder, name, write):
    """Writes a file and moves it into an archive."""
    write(folder.parent / "unpacked")
    files = sorted(p for p in (folder.parent / "unpacked").rglob("*") if p.is_file())
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in files:
                archive.write(path, path.name)
    else:
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for path in files:
                tar.add(path, path.name)


def write_one_scan(folder):
    ScanFolder(folder).scan("a.nii.gz", 1)


def write_zipped_slices(folder):
    for path in write_slices(folder):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def write_links(folder):
    write_one_scan(folder.parent / "elsewhere")
    folder.mkdir(parents=True)
    (folder / "a.nii.gz").symlink_to(folder.parent / "elsewhere" / "a.nii.gz")


def write_pair(folder):
    folder.mkdir(parents=True)
    image = nibabel.Nifti1Pair(scan(1), np.diag([1.5, 1.5, 2, 1]))
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, 1)
    nibabel.save(image, folder / "a.hdr")


def write_mgz(folder):
    folder.mkdir(parents=True)
    nibabel.save(nibabel.MGHImage(scan(1), np.diag([1.5, 1.5, 2, 1])), folder / "a.mgz")


def write_apple_double(folder):
    write_one_scan(folder)
    (folder / "._a.nii.gz").write_bytes(b"\x00\x05\x16\x07" + bytes(90))


def list_files():
    one_scan = partial(judge_cases, [((1,), None, "MR")])
    for name in ("a.zip", "a.tar", "a.tar.gz", "a.tgz"):
        yield GeneratedInput("files", partial(pack, name=name, write=write_one_scan), one_scan)
        yield GeneratedInput("files", partial(pack, name=name, write=write_slices), partial(judge_volumes, [0]))
    yield GeneratedInput("files", write_zipped_slices, partial(judge_volumes, [0]))
    for write in (write_links, write_pair, write_mgz, write_apple_double):
        yield GeneratedInput("files", write, one_scan)


# --- what must be refused


def remove_file(folder, number):
    write_slices(folder)[number].unlink()


def cut_file(folder):
    path = write_slices(folder)[2]
    path.write_bytes(path.read_bytes()[:-40])


def repeat_position(d, k):
    d.ImagePositionPatient = [-11.0, -9.0, -7.0 + 2.5 * max(1, k)]


def remove_tag(d, _, name):
    paint(d)
    del d[name]


def write_shifted_label(folder):
    files = ScanFolder(folder)
    files.scan("images/a.nii.gz", 1)
    files.label("labels/a.nii.gz", 1, shift=3.0)


def write_label_alone(folder):
    ScanFolder(folder).label("a_seg.nii.gz", 1)


INVALID: tuple[tuple[Callable[[Path], Any], str], ...] = (
    (partial(remove_file, number=2), "gap"),
    (cut_file, "truncated"),
    *((partial(write_slices, change=partial(turn, angle=angle)), "orientation") for angle in (3e-3, 1e-1)),
    (partial(write_slices, change=repeat_position), "position"),
    (partial(write_slices, change=partial(remove_tag, name="RescaleSlope")), "RescaleSlope"),
    (partial(write_slices, change=partial(remove_tag, name="ImagePositionPatient")), "ImagePositionPatient"),
    (partial(write_slices, change=partial(remove_tag, name="PixelSpacing")), "PixelSpacing"),
    (partial(write_slices, change=partial(set_tags, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), "localizer"),
    (partial(write_slices, change=partial(set_tags, RescaleSlope="0")), "RescaleSlope is 0"),
    (partial(write_slices, count=1), "single slice"),
    (partial(write_slices, change=lambda d, k: set_tags(d, k, PatientID=f"p{k % 2}")), "more than one patient"),
)
INVALID_LABELS = ((write_shifted_label, "grid"), (write_label_alone, "no image here"))


def list_invalid():
    for write, words in INVALID:
        yield GeneratedInput("to be refused", write, partial(judge_volumes, [0]), words)
    for write, words in INVALID_LABELS:
        yield GeneratedInput("to be refused", write, partial(judge_cases, []), words)


LISTS = (
    list_split_series, list_layouts, list_modalities, list_structures, list_orientations, list_scanners, list_files,
    list_invalid,
)  # fmt: skip


def judge_all(folder):
    """Returns the verdict on each input: its kind, whether it is right, and what was said."""
    verdicts = []
    for number, item in enumerate(item for items in LISTS for item in items()):
        root = folder / str(number) / "scans"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            item.write(root)
            text = item.judge(root)
        is_refused = text.startswith("refused")
        if item.words is None:
            verdict = "right" if text == "right" else "refused" if is_refused else "wrong"
        else:
            verdict = "wrong" if not is_refused else "right" if item.words in text else "other words"
        verdicts.append((item.kind, verdict, f"{number} {item.kind} {item.words}: {text}"))
    return verdicts


def test_no_generated_input_is_read_wrongly_and_hardly_any_is_refused(tmp_path):
    verdicts = judge_all(tmp_path)
    counts = Counter(verdict for _, verdict, _ in verdicts)
    faults = [text for _, verdict, text in verdicts if verdict != "right"]
    assert len(verdicts) >= MIN_INPUTS
    assert counts["wrong"] == 0, faults
    assert counts["right"] >= MIN_READ_FRACTION * len(verdicts), faults
