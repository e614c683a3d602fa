"""Writes small folders of scans and labels whose voxels are known, and compares a layout with them."""

import json
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

from medssl.data.ingest.read_source import read_image
from medssl.data.ingest.structures.read_label import read_label

SHAPE = (9, 8, 7)
SPACING = (1.5, 1.25, 2.5)
HU_AIR = 1000


def scan(number, modality="MR"):
    """The voxels of scan `number`: noise, with values of air in a CT."""
    voxels = np.random.default_rng(number).integers(20, 900, SHAPE).astype(np.int16)
    if modality == "CT":
        voxels[:3] -= HU_AIR + 100
    return voxels


def box(number, value=1):
    """A label that is a box, which is another one for every number."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[number % 5 : number % 5 + 3, 2:5, 1 + number % 2 : 5] = value
    return voxels


class ScanFolder:
    """A folder of files below a root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name, voxels, shift=0.0, meta=None):
        """Writes voxels in the format of the ending; 4D ones as NIfTI, with the volumes last."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if voxels.ndim == 4 and not name.endswith(".nrrd"):
            affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])  # LPS, as SimpleITK writes
            image = nibabel.Nifti1Image(voxels, affine)
            image.header.set_xyzt_units("mm")
            image.to_filename(path)
            return path
        order = (2, 1, 0) if voxels.ndim == 3 else (2, 1, 0, 3)
        image = sitk.GetImageFromArray(voxels.transpose(order), isVector=voxels.ndim == 4)
        image.SetSpacing(SPACING)
        image.SetOrigin((shift, 0.0, 0.0))
        for key, value in (meta or {}).items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(path.with_name(_lower_ending(path.name))), useCompression=True)
        return path.with_name(_lower_ending(path.name)).rename(path)

    def scan(self, name, number, modality="MR", **options):
        return self.put(name, scan(number, modality), **options)

    def label(self, name, number, value=1, **options):
        return self.put(name, box(number, value), **options)

    def text(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    def files(self):
        return sorted(p for p in self.root.rglob("*") if p.is_file())


def _lower_ending(name):
    """SimpleITK writes no file whose ending is in capitals."""
    stem, dot, ending = name.partition(".")
    return stem + dot + ending.lower()


def case(patient, *scans, label=None, modality="MR", split=""):
    """What is expected of a case: the numbers of its scans, and of its label by class name."""
    return {"patient": patient, "scans": scans, "label": label, "modality": modality, "split": split}


def require_layout(layout, folder, cases, refused):
    """Fails unless a layout has exactly these cases with these voxels, and refuses these files with these words."""
    assert sorted(s.id for s in layout.sources) == sorted(cases)
    for source in layout.sources:
        require_case(source, layout, **cases[source.id])
    rows = {str(Path(r.path).relative_to(folder.root)): r.reason for r in layout.rows if r.status == "refused"}
    assert sorted(rows) == sorted(refused)
    for name, words in refused.items():
        assert words in rows[name], f"{name}: {rows[name]}"
    accounted = [f for s in layout.sources for f in s.files] + [Path(row.path) for row in layout.rows]
    assert sorted(accounted) == folder.files()


def require_case(source, layout, patient, scans, label, modality, split):
    assert (source.patient, source.split) == (patient, split)
    image, read_modality = read_image(source)
    assert read_modality == modality
    voxels = image.voxels if image.voxels.ndim == 4 else image.voxels[None]
    kinds = modality.split("+") if "+" in modality else [modality] * len(scans)
    assert len(voxels) == len(scans)
    for channel, number, kind in zip(voxels, scans, kinds, strict=True):
        assert np.array_equal(channel, scan(number, kind))
    assert image.unit == ("HU" if modality == "CT" else "a.u.")
    if label is None:
        assert source.label is None
        return
    values = read_label(source, image).voxels
    numbers = {name: value for value, name in layout.labels.items()}
    expected = np.zeros(SHAPE, np.int16)
    for name, number in label.items():
        expected[box(number) > 0] = numbers[name] if isinstance(name, str) else name
    assert np.array_equal(values, expected)
