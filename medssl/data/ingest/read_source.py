"""Reads a case's original voxels, in their own grid."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest.deidentification import hushed, real_sources
from medssl.data.ingest.dicom_studies import series_name
from medssl.data.ingest.source import Source, place_parts, place_text
from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput, Doubt
from medssl.io import dates, images
from medssl.io.dicom import annotations as labels
from medssl.io.dicom import reader as dicom
from medssl.io.rejected import Refused
from medssl.io.voxels import present
from medssl.volume import Volume


def read_source(case: Case, manifest: Manifest) -> Volume:
    """The volume a case was prepared from: the scanner's grid, CT in HU, all else in arbitrary units."""
    place = real_sources([case], manifest.folder)[case.id]
    with hushed(case.id, place != case.source, manifest.folder):
        return _read_place(case, manifest, place)


def _read_place(case: Case, manifest: Manifest, place: str) -> Volume:
    told, series = place_parts(place)
    paths = [Path(manifest.folder, path) for path in told]
    gone = [str(p) for p in paths if not p.exists()]
    if gone:
        raise BadInput(
            f"{case.id}: the scan is no longer at {', '.join(gone)}; put it back or ingest it from its new place"
        )
    if series:
        return read_series(paths[0], series)
    kinds = case.modality.split("+")
    return _channels(paths, kinds if len(kinds) == len(paths) else kinds * len(paths))[0]


def read_image(source: Source) -> tuple[Volume, str]:
    """The image of a case in its own grid, and its modality."""
    if source.series is not None:
        return read_series(source.images, source.series), source.modalities[0]
    return _channels(source.images, source.modalities)


@dataclass(frozen=True)
class Scan:
    """A case that can be read: whose it is, and its day on a scale of the patient's own; a folder's has a date, too."""

    case: str
    patient: str
    day: int | None
    read: Callable[[], Volume]
    date: str = ""


def scans(place: Path, split: str, modality: str) -> list[Scan]:
    """Every case of a manifest's split, or of a folder of scans, whose patients are called after their first case."""
    if place.is_file():
        if not (cases := stored(Manifest.read(place).by(split))):
            raise BadInput(f"{place}: no case in split {split!r}; choose another --split")
        return cases
    sources = layouts.find(place, modality).sources
    if not sources:
        raise BadInput(f"{place}: holds no scan; give a folder with DICOM, NIfTI, NRRD or MHA files")
    name = {s.patient: s.id for s in reversed(sources)}
    return [Scan(s.id, name[s.patient], dates.number(s.date), partial(_first, s), s.date) for s in sources]


def stored(manifest: Manifest) -> list[Scan]:
    """Every case of a manifest, as it was before it was prepared."""
    return [Scan(case.id, case.patient, case.day, partial(read_source, case, manifest)) for case in manifest.cases]


def _first(source: Source) -> Volume:
    return read_image(source)[0]


def source_text(source: Source) -> str:
    """Where a case was read from, as the manifest keeps it: its files, or a folder and its series."""
    return place_text(source.images, source.series)


def within(source: str, folder: Path) -> bool:
    """Whether a case with this source was read from somewhere under `folder`."""
    return place_parts(source)[0][0].is_relative_to(folder)


def read_series(place: Path | Sequence[Path], series: str) -> Volume:
    """One DICOM series of a folder or of some files, known by the pseudonym of its UID."""
    reasons = []
    for item in dicom.read(place, allow_gaps=True):  # a series with gaps is here because they were allowed
        if isinstance(item, Refused):
            reasons.append(item.reason)
        elif series_name(item) == series:
            return item.volume()
    raise BadInput(f"the series is not readable any more: {'; '.join(reasons) or 'its files are gone'}")


def _channels(paths: Sequence[Path], modalities: Sequence[str]) -> tuple[Volume, str]:
    """The channels of one image, which must share a grid, and its modality: guessed where it is not told."""
    volumes = [images.read(path) for path in paths]
    kinds = [kind or _guess(volume) for kind, volume in zip(modalities, volumes, strict=True)]
    modality = kinds[0] if len(set(kinds)) == 1 else "+".join(kinds)
    first = replace(volumes[0], unit="HU" if modality == "CT" else "a.u.")
    for path, volume in zip(paths[1:], volumes[1:], strict=True):
        _same_grid(volume, first, f"channel {path.name}")
    if len(volumes) == 1:
        return first, modality
    return replace(first, voxels=np.stack([v.voxels.astype(np.float32, copy=False) for v in volumes])), modality


def read_label(source: Source, image: Volume) -> Volume:
    """A case's label, checked against its image's grid and the declared classes; instances become their class."""
    if source.label is None:
        raise BadInput(f"{source.id}: has no label")
    if source.series is not None:
        return _structures(source, image)
    label = images.read(source.label, label=True)
    _same_grid(label, image, f"label {source.label.name}")
    numbers = present(label.voxels)
    if source.instances is not None:
        return _classes(label, numbers, source.instances)
    unknown = sorted(set(numbers) - {0, *source.classes})
    if source.classes and unknown:
        raise BadInput(
            f"label {source.label.name} holds classes {unknown}, dataset.json declares {list(source.classes)}"
        )
    return label


def _structures(source: Source, image: Volume) -> Volume:
    """Contours or masks drawn on a DICOM series, with the classes their names have in the whole store."""
    drawn = labels.read(source.label or Path()).volume(image)
    return replace(drawn, voxels=np.array([0, *source.classes], np.int16)[drawn.voxels])


def _classes(label: Volume, numbers: list[int], instances: tuple[int, ...]) -> Volume:
    if set(numbers) - {0} != set(range(1, len(instances) + 1)):
        raise BadInput(f"the mask holds instances {numbers}, dataset.json lists {len(instances)}")
    return replace(label, voxels=np.array([0, *instances], np.int16)[label.voxels])


def _same_grid(one: Volume, other: Volume, name: str) -> None:
    try:
        one.require_same_grid(other)
    except ValueError as error:
        raise BadInput(f"{name} does not lie on its image's grid: {error}") from None


def _guess(volume: Volume) -> str:
    """CT where values go far below zero, as only HU do; else MR."""
    low = float(volume.voxels.min())
    modality = "CT" if low <= -200 else "MR"
    warnings.warn(
        f"modality not told; taken as {modality} since the lowest value is {low:g} (--modality says it)",
        Doubt,
        stacklevel=2,
    )
    return modality
