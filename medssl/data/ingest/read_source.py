"""Reads the original voxels of a case on the scanner's grid."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from medssl.config import check
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.deidentification import is_hidden, read_real_sources, redact_warnings
from medssl.data.ingest.dicom_studies import discover_series, make_series_name, name_series
from medssl.data.ingest.layouts.modality import check_modality
from medssl.data.ingest.source import ALL_FILES, LabelPart, Source, parse_location
from medssl.data.manifest import Case, Manifest
from medssl.disk_arrays import allocate_like, store_on_disk, transform_slabs
from medssl.errors import BadInput, InputWarning, Message, join_messages
from medssl.io import archives, dates, images, slicer_segmentation
from medssl.io.dicom import annotations, reader
from medssl.io.dicom.series_files import HeaderMemory
from medssl.io.dicom.structures import draw_structures
from medssl.io.rejected import RejectedFiles
from medssl.io.slabs.read_on_disk import read_on_disk
from medssl.io.voxels import list_label_values
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
    """

    case: str
    patient: str
    day: int | None
    read: Callable[[], Volume]
    date: str = ""
    list_files: Callable[[], tuple[Path, ...]] = tuple
    is_deidentified: bool = False


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


def list_stored_scans(manifest: Manifest) -> list[ScanRef]:
    """Lists the original scans of the cases of a store."""
    return [
        ScanRef(
            case.id, case.patient, case.study_day, partial(read_source, case, manifest),
            list_files=partial(_list_stored_files, case, manifest), is_deidentified=is_hidden(case),
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


def read_image(
    source: Source, headers: HeaderMemory | None = None, read_file: Callable[[Path], Volume] = images.read
) -> tuple[Volume, str]:
    """Returns the image of a case on its own grid, and its modality.

    Args:
        source: The files of the case.
        headers: What is known of the files of a DICOM series, which are not parsed again.
        read_file: Reads an image file that is no DICOM.
    """
    if source.series is not None:
        return read_series(source.images, source.series, source.sub_volume, headers), source.modalities[0]
    return _read_channels(source.images, source.modalities, read_file)


def read_series(
    place: Path | Sequence[Path], series: str, sub_volume: str = "", headers: HeaderMemory | None = None
) -> Volume:
    """Reads one DICOM series, or one volume of a series that holds several.

    Args:
        place: The folder that holds the whole series, or the files of the volume.
        series: The name of the series, see `name_series`.
        sub_volume: The tags that distinguish the volume, where `place` lists its own files only.
        headers: What is known of the files, which are not parsed again.
    """
    reasons = []
    for item in reader.read(
        place, allow_gaps=True, memory=headers
    ):  # the ingestion has refused the gaps that are not allowed
        if isinstance(item, RejectedFiles):
            reasons.append(item.reason)
        elif series in (name_series(item), make_series_name(item.uid, item.sub_volume or sub_volume)):
            return replace(item, missing=()).volume()  # the ingestion, which sees all files, has warned of them
    reason = join_messages(reasons or [Message("its files are missing")])
    raise BadInput(Message("the series cannot be read any more: {reason}", reason=reason))


def read_label(source: Source, image: Volume) -> Volume:
    """Reads the label of a case; the objects of an instance mask become their class.

    Raises:
        BadInput: The label is not on the grid of the image, or holds classes that the data set does not declare.
    """
    if source.label is None:
        raise BadInput(f"{source.id}: has no label")
    if source.series is not None:
        return _read_structures(source, image)
    if source.label_parts:
        return _merge_parts(source, image)
    label = images.read(source.label, label=True)
    _require_same_grid(label, image, f"label {source.label.name}")
    values = list_label_values(label.voxels)
    if source.instances is not None:
        return _instances_to_classes(label, values, source.instances)
    unknown = sorted(set(values) - {0, *source.classes})
    if source.classes and unknown:
        raise BadInput(
            Message(
                "label {name} holds classes {unknown}, dataset.json declares {declared}",
                name=source.label.name,
                unknown=unknown,
                declared=list(source.classes),
            )
        )
    return label


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
        return read_series(paths[0], series)
    modalities = case.modality.split("+")
    modalities = modalities if len(modalities) == case.channels else modalities * case.channels
    return _read_channels(paths, modalities, read_on_disk)[0]


def _refer_to_source(source: Source, patient: str) -> ScanRef:
    return ScanRef(
        source.id, patient, dates.to_ordinal(source.date), partial(_read_volume, source), source.date,
        partial(_list_images, source),
    )  # fmt: skip


def _read_volume(source: Source) -> Volume:
    return _store_on_disk(read_image(source, read_file=read_on_disk)[0])


def _store_on_disk(volume: Volume) -> Volume:
    return replace(volume, voxels=store_on_disk(volume.voxels))


def _list_images(source: Source) -> tuple[Path, ...]:
    return source.images


def _list_stored_files(case: Case, manifest: Manifest) -> tuple[Path, ...]:
    names, _ = parse_location(read_real_sources([case], manifest.folder)[case.id])
    return tuple(Path(manifest.folder, name.parent if name.name == ALL_FILES else name) for name in names)


def _read_channels(
    paths: Sequence[Path], modalities: Sequence[str], read_file: Callable[[Path], Volume]
) -> tuple[Volume, str]:
    """Reads image files with a common grid, or the volumes of one file, as channels.

    Args:
        paths: The files.
        modalities: The modality of each channel; empty if it is to be guessed.
        read_file: Reads an image file with one volume.

    Returns:
        The image and its modality, guessed where it is empty.
    """
    is_one_file = len(paths) == 1 < len(modalities)
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
        _require_same_grid(volume, image, f"channel {path.name}")
    if len(volumes) == 1:
        return image, modality
    first = volumes[0].voxels
    voxels = allocate_like(first[None], (len(volumes), *first.shape), np.float32)
    for channel, volume in zip(voxels, volumes, strict=True):
        transform_slabs(np.asarray, volume.voxels, channel)
    return replace(image, voxels=voxels), modality


def _read_structures(source: Source, image: Volume) -> Volume:
    """Draws the structures of a DICOM annotation with the classes that their names have in the whole data set."""
    files = [path for path in (source.label, *source.annotations) if path]
    structures = [structure for path in files for structure in annotations.read(path).structures]
    return draw_structures(list(zip(source.classes, structures, strict=True)), image, source.priority)


def _merge_parts(source: Source, image: Volume) -> Volume:
    """Merges the named structures of a label; where two overlap, the smaller one is kept."""
    masks = [
        (part, number, _read_part(part, image)) for part, number in zip(source.label_parts, source.classes, strict=True)
    ]
    merged = np.zeros(image.shape, np.int16)
    num_overlaps = 0
    for _, number, mask in sorted(masks, key=lambda item: -int(np.count_nonzero(item[2]))):
        num_overlaps += int(np.count_nonzero(merged[mask]))
        merged[mask] = number
    if num_overlaps:
        warnings.warn(
            Message("structures overlap in {count} voxels; the smaller one is kept there", count=num_overlaps),
            InputWarning,
            stacklevel=2,
        )
    return Volume(merged, image.affine, "label")


def _read_part(part: LabelPart, image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Reads the voxels of one structure."""
    if slicer_segmentation.is_segmentation(part.path) and part.value is not None:
        segment = slicer_segmentation.Segment(part.name, part.value, part.layer)
        label = slicer_segmentation.read_segment(part.path, segment)
        value = None
    else:
        label, value = images.read(part.path, label=True), part.value
    _require_same_grid(label, image, f"label {part.path.name}")
    values = set(list_label_values(label.voxels)) - {0}
    if value is None and len(values) > 1:
        raise BadInput(
            Message(
                "label {name} holds the values {values}, a file of one structure holds one; choose labels with --label",
                name=part.path.name,
                values=sorted(values),
            )
        )
    return label.voxels != 0 if value is None else label.voxels == value


def _instances_to_classes(label: Volume, values: list[int], instances: tuple[int, ...]) -> Volume:
    if set(values) - {0} != set(range(1, len(instances) + 1)):
        raise BadInput(
            Message(
                "the mask holds instances {values}, dataset.json lists {count}", values=values, count=len(instances)
            )
        )
    return replace(label, voxels=np.array([0, *instances], np.int16)[label.voxels])


def _require_same_grid(volume: Volume, image: Volume, name: str) -> None:
    try:
        volume.require_same_grid(image)
    except ValueError as error:
        raise BadInput(Message("{name} does not lie on its image's grid: {error}", name=name, error=error)) from None
