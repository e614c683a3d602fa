"""Reads the original voxels of a case on the scanner's grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from medssl.arrays.disk_arrays import allocate_like, store_on_disk, transform_slabs
from medssl.config import check
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.deidentification import is_hidden, read_real_sources, redact_warnings
from medssl.data.ingest.dicom_studies import discover_series, make_series_name, name_series
from medssl.data.ingest.layouts.modality import check_modality
from medssl.data.ingest.source import ALL_FILES, Source, parse_location
from medssl.data.ingest.structures.read_label import require_same_grid
from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput, Message, join_messages
from medssl.io import archives, dates, images
from medssl.io.dicom import reader
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.io.rejected import RejectedFiles
from medssl.io.slabs.read_on_disk import read_on_disk
from medssl.volume import Volume


@dataclass(frozen=True)
class ScanRef:
    """A scan that can be read.

    Attributes:
        case: The name of the case.
        patient: The patient.
        day: Day of the study; days of one patient can be compared. None if it is unknown.
        read: Reads the voxels; those of a large scan lie on disk.
        date: Date of the study; empty for the cases of a store.
        list_files: Lists the image files, or the files or the folder of its DICOM series.
        is_deidentified: Whether text of the original files must not be copied.
        modalities: One per channel; empty where it is unknown.
        channel_names: Names of the channels, if there are several.
        series: The name of the DICOM series, see `name_series`; None for image files.
        sub_volume: The tags that distinguish the volume from others of its series.
    """

    case: str
    patient: str
    day: int | None
    read: Callable[[], Volume]
    date: str = ""
    list_files: Callable[[], tuple[Path, ...]] = tuple
    is_deidentified: bool = False
    modalities: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()
    series: str | None = None
    sub_volume: str = ""


def list_scans(place: Path, split: str, modality: str) -> list[ScanRef]:
    """Lists the cases of a split of a manifest, or of a folder of scans.

    Args:
        place: A manifest.csv or a folder of scans; a patient in a folder is named after the first of their cases.
        split: The split of the manifest; ignored for a folder.
        modality: The modality of the image files of a folder; empty if it is to be guessed.
    """
    if place.is_file():
        if not (scans := list_stored_scans(Manifest.read(place).in_split(split))):
            raise BadInput(f"{place}: no case in split {split!r}; choose another --split")
        return scans
    sources = discover_dataset(place, check({"modality": modality, "select": "all"}, IngestConfig, "medssl")).sources
    if not sources:
        raise BadInput(f"{place}: holds no scan; give a folder with DICOM, NIfTI, NRRD or MHA files")
    patients = {s.patient: s.id for s in reversed(sources)}
    return [_refer_to_source(source, patients[source.patient]) for source in sources]


def list_series_scans(files: Sequence[Path]) -> list[ScanRef]:
    """Lists the volumes in DICOM files; raises BadInput if there is none."""
    studies = discover_series(files, allow_gaps=False, select="all")
    if not studies.sources:
        reasons = [row.public_reason or row.reason for row in studies.rows] or ["no image in them"]
        raise BadInput(f"no series can be used: {reasons[0]}")
    return [_refer_to_source(source, source.patient) for source in studies.sources]


def list_scans_or_all(place: Path, split: str, modality: str) -> list[ScanRef]:
    """Lists scans as `list_scans` does, or without a split all cases of a manifest."""
    is_store = place.is_file() and not split
    return list_stored_scans(Manifest.read(place)) if is_store else list_scans(place, split, modality)


def list_stored_scans(manifest: Manifest) -> list[ScanRef]:
    """Lists the original scans of the cases of a store."""
    return [
        ScanRef(
            case.id, case.patient, case.study_day, partial(read_source, case, manifest),
            list_files=partial(_list_stored_files, case, manifest), is_deidentified=is_hidden(case),
            modalities=tuple(case.modality.split("+")),
        )
        for case in manifest.cases
    ]  # fmt: skip


def read_source(case: Case, manifest: Manifest) -> Volume:
    """Reads the volume that a case was prepared from: on the scanner's grid, CT in HU, others in arbitrary units.

    The voxels of a large volume lie on disk.
    """
    location = read_real_sources([case], manifest.folder)[case.id]
    with redact_warnings(case.id, location != case.source, manifest.folder):
        return _store_on_disk(_read_location(case, manifest, location))


def read_image(source: Source, headers: HeaderMemory | None = None, on_disk: bool = False) -> tuple[Volume, str]:
    """Returns the image of a case on its own grid, and its modality.

    Args:
        source: The files of the case.
        headers: What is known of the files of a DICOM series, which are not parsed again.
        on_disk: Whether the voxels of a large volume lie on disk.
    """
    if source.series is not None:
        return read_series(source.images, source.series, source.sub_volume, headers, on_disk), source.modalities[0]
    return _read_channels(source.images, source.modalities, on_disk)


def read_series(
    place: Path | Sequence[Path],
    series: str,
    sub_volume: str = "",
    headers: HeaderMemory | None = None,
    on_disk: bool = False,
) -> Volume:
    """Reads one DICOM series, or one volume of a series that holds several.

    Args:
        place: The folder that holds the whole series, or the files of the volume.
        series: The name of the series, see `name_series`.
        sub_volume: The tags that distinguish the volume, where `place` lists its own files only.
        headers: What is known of the files, which are not parsed again.
        on_disk: Whether the voxels of a large volume lie on disk.
    """
    reasons = []
    for item in reader.read(
        place, allow_gaps=True, memory=headers
    ):  # the ingestion has refused the gaps that are not allowed
        if isinstance(item, RejectedFiles):
            reasons.append(item.reason)
        elif series in (name_series(item), make_series_name(item.uid, item.sub_volume or sub_volume)):
            return replace(item, missing=()).volume(on_disk)  # the ingestion, which sees all files, has warned of them
    reason = join_messages(reasons or [Message("its files are missing")])
    raise BadInput(Message("the series cannot be read any more: {reason}", reason=reason))


def is_inside(location: str, folder: Path) -> bool:
    """Whether a case with this real location was read from a file under the folder."""
    return parse_location(location)[0][0].is_relative_to(folder)


def _read_location(case: Case, manifest: Manifest, location: str) -> Volume:
    names, series = parse_location(location)
    paths = [Path(manifest.folder, name) for name in names]
    missing = [str(p) for p in paths if not archives.exists(p)]
    if missing:
        raise BadInput(
            Message(
                "{case}: the scan is no longer at {paths}; put it back or ingest it from its new location",
                case=case.id,
                paths=", ".join(missing),
            )
        )
    if series:
        return read_series(paths[0], series, on_disk=True)
    modalities = case.modality.split("+")
    modalities = modalities if len(modalities) == case.channels else modalities * case.channels
    return _read_channels(paths, modalities, on_disk=True)[0]


def _refer_to_source(source: Source, patient: str) -> ScanRef:
    return ScanRef(
        source.id, patient, dates.to_ordinal(source.date), partial(_read_volume, source), source.date,
        partial(_list_images, source), modalities=source.modalities, channel_names=source.channel_names,
        series=source.series, sub_volume=source.sub_volume,
    )  # fmt: skip


def _read_volume(source: Source) -> Volume:
    return _store_on_disk(read_image(source, on_disk=True)[0])


def _store_on_disk(volume: Volume) -> Volume:
    return replace(volume, voxels=store_on_disk(volume.voxels))


def _list_images(source: Source) -> tuple[Path, ...]:
    return source.images


def _list_stored_files(case: Case, manifest: Manifest) -> tuple[Path, ...]:
    names, _ = parse_location(read_real_sources([case], manifest.folder)[case.id])
    return tuple(Path(manifest.folder, name.parent if name.name == ALL_FILES else name) for name in names)


def _read_channels(paths: Sequence[Path], modalities: Sequence[str], on_disk: bool) -> tuple[Volume, str]:
    """Reads image files with a common grid, or the volumes of one file, as channels.

    Args:
        paths: The files.
        modalities: The modality of each channel; empty if it is to be guessed.
        on_disk: Whether the voxels of a large volume lie on disk.

    Returns:
        The image and its modality, guessed where it is empty.
    """
    is_one_file = len(paths) == 1 < len(modalities)
    read_file = read_on_disk if on_disk else images.read
    volumes = images.read_channels(paths[0]) if is_one_file else [read_file(path) for path in paths]
    if len(volumes) != len(modalities):
        raise BadInput(
            Message(
                "{path}: holds {count} volumes, expected are {expected} channels; ingest the folder again",
                path=paths[0],
                count=len(volumes),
                expected=len(modalities),
            )
        )
    names = [check_modality(name, volume) for name, volume in zip(modalities, volumes, strict=True)]
    modality = names[0] if len(set(names)) == 1 else "+".join(names)
    image = replace(volumes[0], unit="HU" if modality == "CT" else "a.u.")
    for path, volume in zip(paths[1:], volumes[1:], strict=False):  # the volumes of one file share its grid
        require_same_grid(volume, image, Message("channel {name}", name=path.name))
    if len(volumes) == 1:
        return image, modality
    first = volumes[0].voxels
    voxels = allocate_like(first[None], (len(volumes), *first.shape), np.float32)
    for channel, volume in zip(voxels, volumes, strict=True):
        transform_slabs(np.asarray, volume.voxels, channel)
    return replace(image, voxels=voxels), modality
