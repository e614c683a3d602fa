"""Groups the files of a folder into cases: Decathlon, MONAI, nnU-Net and DICOM layouts, and plain image files."""

import json
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dicom_studies import discover_series
from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows, used_rows
from medssl.data.ingest.metadata_tables import CaseMetadata, read_case_metadata
from medssl.data.ingest.source import Source, make_pseudonym
from medssl.errors import BadInput, Message
from medssl.io import images

log = logging.getLogger(__name__)
DEFAULTS = IngestConfig()
CHANNEL = re.compile(r"(.+)_(\d{4})$")
LABEL_FOLDERS = re.compile(r"(labels?(Tr|Ts)?|masks?|segmentations?)")
VOXEL_ENDINGS = (".raw", ".zraw", ".raw.gz")  # of the voxel files of an .mhd header
SPLITS = {"training": "train", "validation": "val", "test": "test", "unlabeled": "", "unlabelled": ""}


@dataclass(frozen=True)
class DatasetLayout:
    """What a folder holds.

    Attributes:
        sources: The cases to read.
        rows: A ledger row for each file that is not part of a case.
        labels: Class number to name.
        present_labels: Case to the classes that were drawn in it.
        regions: Name of a union of classes to its classes.
        notes: What the terminal shows about the files.
    """

    sources: list[Source] = field(default_factory=list)
    rows: list[LedgerRow] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    present_labels: dict[str, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    notes: list[Message] = field(default_factory=list)


def discover_dataset(scans: Path, config: IngestConfig = DEFAULTS) -> DatasetLayout:
    """Sorts the files under a folder into cases and ledger rows, so that each file is in exactly one of them.

    Args:
        scans: The folder.
        config: The options of an ingestion.
    """
    files, layout = _list_files(scans)
    remaining = set(files)
    for description in [f for f in files if f.name == "dataset.json"]:
        _move_part(layout, remaining, _read_dataset_json(description, remaining), published=True)
    for folder in sorted({f.parent for f in remaining if f.parent.name == "imagesTr"}):
        _move_part(layout, remaining, _find_nnunet_cases(folder.parent, remaining, {}, ()), published=True)
    image_files = sorted(f for f in remaining if images.is_image(f))
    _move_part(layout, remaining, _find_plain_images(image_files, remaining, scans))
    studies = discover_series(sorted(remaining), config.allow_gaps, config.select)
    part = DatasetLayout(studies.sources, studies.rows, studies.labels, studies.present_labels, notes=studies.notes)
    _move_part(layout, remaining, part)
    layout.rows.extend(used_rows(sorted(remaining), Message("an archive, whose members are listed")))
    return _apply_user_options(layout, config.modality, config.patients)


def parse_class_names(labels: dict[str, Any]) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Returns class number to name, and region to its classes.

    Args:
        labels: The entry of a dataset.json: number to name as in the Decathlon, or name to number as in nnU-Net.
            Detection sets count from 0 without background; here they count from 1.
    """
    pairs = [(k, v) if str(k).lstrip("-").isdigit() else (v, k) for k, v in labels.items()]
    if any(isinstance(number, list) for number, _ in pairs):
        return _parse_regions(labels)
    names = {int(number): str(name) for number, name in pairs}
    if names and names.get(0, "background").lower() != "background":
        names = {number + 1: name for number, name in names.items()}
    return {number: name for number, name in sorted(names.items()) if number > 0}, {}


def image_stem(path: Path) -> str:
    """Returns the name of a file without the ending of an image."""
    return re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", "", path.name)


def _list_files(scans: Path) -> tuple[list[Path], DatasetLayout]:
    """Lists regular files in a fixed order, without following links; everything else is refused."""
    if not scans.is_dir():
        raise BadInput(f"{scans}: no such folder; give the folder that holds the scans")

    def raise_unreadable(error: OSError) -> None:
        raise BadInput(f"{error.filename}: cannot be listed ({error.strerror}); make it readable or remove it")

    regular: list[Path] = []
    special: list[Path] = []
    for root, folders, names in os.walk(scans, onerror=raise_unreadable):
        links = [n for n in folders if (Path(root) / n).is_symlink()]
        for path in (Path(root) / n for n in [*names, *links]):
            (regular if stat.S_ISREG(path.lstat().st_mode) else special).append(path)
    reason = Message("a link, a pipe or a device; put a copy of the file here")
    return sorted(regular), DatasetLayout(rows=rejected_rows(special, reason))


def _move_part(layout: DatasetLayout, remaining: set[Path], part: DatasetLayout, published: bool = False) -> None:
    """Adds a part to the layout and removes its files from the remaining ones."""
    layout.sources.extend(replace(source, published=published) for source in part.sources)
    layout.rows.extend(part.rows)
    layout.labels.update(part.labels)
    layout.present_labels.update(part.present_labels)
    layout.regions.update(part.regions)
    layout.notes.extend(part.notes)
    remaining.difference_update(f for s in part.sources for f in s.files)
    remaining.difference_update(Path(row.path) for row in part.rows)


def _read_dataset_json(path: Path, remaining: set[Path]) -> DatasetLayout:
    """Finds the cases that a dataset.json lists (Decathlon, MONAI detection), or else those named as in nnU-Net."""
    root = path.parent
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
        labels, regions = parse_class_names(parsed.get("labels") or {})
        channels = parsed.get("channel_names") or parsed.get("modality") or {}
        modalities = tuple(_parse_modality(str(channels[key])) for key in sorted(channels, key=int))
        entries = [(split, item) for split in SPLITS for item in parsed.get(split) or ()]
        present_labels = parsed.get("present_labels") or {}
        present = {str(case): [int(v) for v in classes] for case, classes in present_labels.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be parsed: its cases, labels and class names are ignored", path.name)
        return DatasetLayout(rows=rejected_rows([path], Message("dataset.json cannot be parsed: {error}", error=error)))
    tables = _read_tables(root, remaining)
    metadata = {case: values for table in tables.values() for case, values in table.items()}
    layout = DatasetLayout() if entries else _find_nnunet_cases(root, remaining, metadata, modalities)
    for split, item in entries:
        source = _parse_entry(root, item, modalities, remaining)
        if isinstance(source, Source):
            declared_split = SPLITS[split] if parsed.get("validation") else ""
            classes = tuple(labels) if source.instances is None else ()
            layout.sources.append(replace(_apply_metadata(source, metadata), split=declared_split, classes=classes))
        else:
            layout.rows.extend(source)
    num_missing = sum(source.id not in metadata for source in layout.sources) if metadata else 0
    if num_missing:
        log.warning("%d cases are in no table next to dataset.json; each counts as a separate patient", num_missing)
    layout.rows.extend(used_rows([path, *tables], Message("describes the data set")))
    return replace(layout, labels=labels, present_labels=present, regions=regions)


def _read_tables(root: Path, remaining: set[Path]) -> dict[Path, dict[str, CaseMetadata]]:
    """Reads the tables next to a dataset.json, and the JSON files of single cases one folder below."""
    candidates = [f for f in sorted(remaining) if (f.parent, f.suffix) == (root, ".csv")]
    candidates += [f for f in sorted(remaining) if (f.parent.parent, f.suffix) == (root, ".json")]
    return {f: table for f in candidates if (table := read_case_metadata(f))}


def _parse_entry(root: Path, item: Any, modalities: tuple[str, ...], remaining: set[Path]) -> Source | list[LedgerRow]:
    """Parses one entry of a dataset.json: an image (or its channels), with or without a label or an instance mask.

    Returns:
        The case, or ledger rows of its files if one of them is missing.
    """
    entry = item if isinstance(item, dict) else {"image": item}
    image, label_name = entry.get("image"), entry.get("mask") or entry.get("label")
    paths = tuple(_resolve(root, str(p)) for p in (image if isinstance(image, list) else [image]))
    label = _resolve(root, label_name) if isinstance(label_name, str) else None
    files = (*paths, label) if label else paths
    missing = [os.path.relpath(p, root) for p in files if p not in remaining]
    if missing:
        reason = Message(
            "dataset.json lists it with {missing}, which is not there; add that file or remove the entry",
            missing=", ".join(missing),
        )
        return rejected_rows([p for p in files if p in remaining], reason)
    instances = tuple(int(v) + 1 for v in entry.get("label") or ()) if entry.get("mask") else None
    channel = CHANNEL.match(image_stem(paths[0])) if len(paths) > 1 else None
    name = channel[1] if channel else image_stem(paths[0])
    per_channel = modalities if len(modalities) == len(paths) else (modalities or ("",))[:1] * len(paths)
    return Source(name, name, paths, per_channel, label, instances=instances)


def _find_nnunet_cases(
    root: Path, remaining: set[Path], metadata: Mapping[str, CaseMetadata], modalities: tuple[str, ...]
) -> DatasetLayout:
    """Finds imagesTr/NAME_0000 (one file per channel) with labelsTr/NAME, and the same in imagesTs and labelsTs."""
    layout = DatasetLayout()
    for suffix in ("Tr", "Ts"):
        label_folder, image_folder = root / f"labels{suffix}", root / f"images{suffix}"
        labels = {image_stem(f): f for f in remaining if f.parent == label_folder and images.is_image(f)}
        channels_of: dict[str, dict[int, Path]] = {}
        for path in sorted(f for f in remaining if f.parent == image_folder and images.is_image(f)):
            channel = CHANNEL.match(image_stem(path))
            name, number = (channel[1], int(channel[2])) if channel else (image_stem(path), 0)
            channels_of.setdefault(name, {})[number] = path
        for name, channels in channels_of.items():
            numbers = sorted(channels)
            per_channel = tuple(modalities[n] if n < len(modalities) else "" for n in numbers)
            paths = tuple(channels[n] for n in numbers)
            source = Source(name, name, paths, per_channel, labels.pop(name, None))
            layout.sources.append(_apply_metadata(source, metadata))
        layout.rows.extend(rejected_rows(labels.values(), Message("a label without an image of its name")))
    return layout


def _find_plain_images(files: list[Path], remaining: set[Path], scans: Path) -> DatasetLayout:
    """Makes every image file a case, which is named after its path; files in label folders are refused."""
    layout = DatasetLayout()
    for path in files:
        if LABEL_FOLDERS.fullmatch(path.parent.name):
            layout.rows.extend(rejected_rows([path], Message("a label that belongs to no image here")))
            continue
        name = re.sub(r"[^\w.-]+", "-", "_".join([*path.relative_to(scans).parts[:-1], image_stem(path)]))
        voxel_files = [path.with_name(image_stem(path) + ending) for ending in VOXEL_ENDINGS]
        parts = tuple(f for f in voxel_files if f in remaining) if path.suffix == ".mhd" else ()
        layout.sources.append(Source(name, name, (path,), ("",), parts=parts))
    return layout


def _apply_user_options(layout: DatasetLayout, modality: str, patients: Path | None) -> DatasetLayout:
    """Sets the modality and the metadata that the user gives, and makes the names of the cases unique."""
    metadata = read_case_metadata(patients) if patients else {}
    if patients and not metadata:
        raise BadInput(f"{patients}: has no columns `case` and `patient` (or `site`); write one line per case")
    counts: dict[str, int] = {}
    sources = []
    for source in sorted(layout.sources, key=lambda s: (s.id, s.files)):
        base = re.sub(r"[\ud800-\udfff]", "-", source.id)  # bytes of a file name that are not UTF-8
        counts[base] = counts.get(base, 0) + 1
        name = base if counts[base] == 1 else f"{base}-{make_pseudonym(str(source.images[0]))}"
        modalities = tuple(modality or m for m in source.modalities) if source.series is None else source.modalities
        sources.append(_apply_metadata(replace(source, id=name, modalities=modalities), metadata))
    return replace(layout, sources=sources)


def _apply_metadata(source: Source, metadata: Mapping[str, CaseMetadata]) -> Source:
    """Returns the source with the values that a table has for it."""
    values = asdict(metadata.get(source.id, CaseMetadata()))
    return replace(source, **{name: value for name, value in values.items() if value not in ("", None)})


def _parse_regions(labels: dict[str, Any]) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Parses the unions of classes that nnU-Net writes by name; a class is named after the smallest region around it.

    `regions_class_order` is not needed: it numbers the predictions of nnU-Net, not the labels.
    """
    classes_of = {name: sorted({int(v) for v in (v if isinstance(v, list) else [v])}) for name, v in labels.items()}
    special = {name: values[0] for name, values in classes_of.items() if name in ("background", "ignore") and values}
    regions = {name: values for name, values in classes_of.items() if name not in special}
    invalid = [
        name for name, values in regions.items() if not values or values[0] < 1 or set(values) & set(special.values())
    ]
    if invalid:
        raise ValueError(f"region {invalid[0]!r} is empty, or holds the background or the label to ignore")
    names = {value: name for name, value in special.items() if value}
    for name, values in sorted(regions.items(), key=lambda item: len(item[1])):
        names = {value: name if len(values) == 1 else f"{name}_{value}" for value in values} | names
    return dict(sorted(names.items())), regions


def _parse_modality(name: str) -> str:
    return "CT" if "CT" in name.upper().split("_") else "PT" if "PET" in name.upper() else "MR"


def _resolve(root: Path, name: str) -> Path:
    return Path(os.path.normpath(root / name))
