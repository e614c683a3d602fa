"""Reads dataset.json: Decathlon, MONAI detection, and nnU-Net versions 1 and 2."""

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows, used_rows
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree, apply_metadata
from medssl.data.ingest.layouts.evidence import image_stem
from medssl.data.ingest.layouts.metadata_tables import CaseMetadata, read_case_metadata
from medssl.data.ingest.layouts.modality import parse_modality
from medssl.data.ingest.layouts.naming_scheme import CHANNEL, apply_scheme
from medssl.data.ingest.layouts.schemes import NNUNET
from medssl.data.ingest.source import Source
from medssl.errors import Message

log = logging.getLogger(__name__)
SPLITS = {"training": "train", "validation": "val", "test": "test", "unlabeled": "", "unlabelled": ""}
TABLE = "the tables of their data set"


@dataclass(frozen=True)
class DatasetDescription:
    """What a dataset.json states.

    Attributes:
        labels: Class number to name.
        regions: Name of a union of classes to its classes.
        channels: Names of the channels, in order.
        entries: Split and entry of each listed case.
        present_labels: Case to the classes that were drawn in it.
        ending: The ending of the image files, as nnU-Net states it; empty for any.
    """

    labels: dict[int, str]
    regions: dict[str, list[int]]
    channels: tuple[str, ...]
    entries: tuple[tuple[str, Any], ...]
    present_labels: dict[str, list[int]]
    ending: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modality of each channel; empty where its name states none."""
        return tuple(parse_modality(name) for name in self.channels)


def read_dataset_json(path: Path, tree: FileTree) -> DatasetLayout:
    """Returns the cases that a dataset.json lists, or else those that are named as in nnU-Net."""
    try:
        description = _parse(json.loads(path.read_text(encoding="utf-8-sig")))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be parsed: its cases, labels and class names are ignored", path.name)
        return DatasetLayout(rows=rejected_rows([path], Message("dataset.json cannot be parsed: {error}", error=error)))
    root = path.parent
    tables = _read_tables(root, tree)
    metadata = {case: values for table in tables.values() for case, values in table.items()}
    layout = DatasetLayout() if description.entries else _find_nnunet_cases(root, description, tree)
    has_validation = any(split == "validation" for split, _ in description.entries)
    for split, item in description.entries:
        source = _parse_entry(root, item, description, tree)
        if isinstance(source, Source):
            is_declared = has_validation or (split == "test" and source.label)
            layout.sources.append(replace(source, split=SPLITS[split] if is_declared else ""))
        else:
            layout.rows.extend(source)
    classes = tuple(description.labels)
    sources = [
        apply_metadata(replace(s, classes=() if s.instances is not None else classes, published=True), metadata, TABLE)
        for s in layout.sources
    ]
    num_missing = sum(source.id not in metadata for source in sources) if metadata else 0
    if num_missing:
        log.warning("%d cases are in no table next to dataset.json; each counts as a separate patient", num_missing)
    layout.rows.extend(used_rows([path, *tables], Message("describes the data set")))
    return replace(
        layout, sources=sources, labels=description.labels, present_labels=description.present_labels,
        regions=description.regions,
    )  # fmt: skip


def _parse(parsed: dict[str, Any]) -> DatasetDescription:
    """Parses a dataset.json; raises ValueError, TypeError or AttributeError if it has another form."""
    labels, regions = parse_class_names(parsed.get("labels") or {})
    channels = parsed.get("channel_names") or parsed.get("modality") or {}
    entries = [(split, item) for split in SPLITS for item in parsed.get(split) or ()]
    for name, files in (parsed.get("dataset") or {}).items():
        entries.append(("training", {"case": str(name), "image": list(files["images"]), "label": files.get("label")}))
    present = {str(case): [int(v) for v in classes] for case, classes in (parsed.get("present_labels") or {}).items()}
    names = tuple(str(channels[key]) for key in sorted(channels, key=int))
    return DatasetDescription(labels, regions, names, tuple(entries), present, str(parsed.get("file_ending") or ""))


def _read_tables(root: Path, tree: FileTree) -> dict[Path, dict[str, CaseMetadata]]:
    """Reads the tables next to a dataset.json, and the JSON files of single cases one folder below."""
    files = sorted(tree.remaining)
    candidates = [f for f in files if (f.parent, f.suffix) == (root, ".csv")]
    candidates += [f for f in files if (f.parent.parent, f.suffix) == (root, ".json")]
    return {f: table for f in candidates if (table := read_case_metadata(f))}


def _find_nnunet_cases(root: Path, description: DatasetDescription, tree: FileTree) -> DatasetLayout:
    """Returns the cases in imagesTr and imagesTs; files with another ending than the declared one are left alone."""
    ending = description.ending.lower()
    below = [f for f in tree.remaining if f.is_relative_to(root) and f.name.lower().endswith(ending)]
    others = tree.remaining.difference(below)
    modalities = {f"{n:04d}": modality for n, modality in enumerate(description.modalities)}
    modalities[""] = description.modalities[0] if description.modalities else ""
    return apply_scheme(NNUNET, tree.without(others), modalities)


def _parse_entry(root: Path, item: Any, description: DatasetDescription, tree: FileTree) -> Source | list[LedgerRow]:
    """Parses one entry of a dataset.json: an image (or its channels), with or without a label or an instance mask.

    Returns:
        The case, or ledger rows of its files if one of them is missing.
    """
    entry = item if isinstance(item, dict) else {"image": item}
    image, label_name = entry.get("image"), entry.get("mask") or entry.get("label")
    listed = [_resolve(root, str(p)) for p in (image if isinstance(image, list) else [image])]
    paths = tuple(file for path in listed for file in _find_channels(path, tree))
    label = _resolve(root, label_name) if isinstance(label_name, str) else None
    files = (*paths, label) if label else paths
    missing = [os.path.relpath(p, root) for p in files if p not in tree.remaining]
    if missing:
        reason = Message(
            "dataset.json lists it with {missing}, which is not there; add that file or remove the entry",
            missing=", ".join(missing),
        )
        return rejected_rows([p for p in files if p in tree.remaining], reason)
    instances = tuple(int(v) + 1 for v in entry.get("label") or ()) if entry.get("mask") else None
    channel = CHANNEL.match(image_stem(paths[0])) if len(paths) > 1 or paths != tuple(listed) else None
    name = entry.get("case") or (channel[1] if channel else image_stem(paths[0]))
    header = tree.header(paths[0]) if len(paths) == 1 else None
    num_volumes, modalities = header.num_volumes if header else 1, description.modalities
    if num_volumes not in (1, len(modalities)):
        reason = Message(
            "holds {volumes} volumes, dataset.json declares {channels} channels; name each in its channel_names",
            volumes=num_volumes,
            channels=len(modalities),
        )
        return rejected_rows(files, reason)
    count = max(len(paths), num_volumes)
    per_channel = modalities if len(modalities) == count else (modalities or ("",))[:1] * count
    names = description.channels if len(description.channels) == count > 1 else ()
    return Source(name, name, paths, per_channel, label, instances=instances, channel_names=names)


def _find_channels(path: Path, tree: FileTree) -> list[Path]:
    """Returns a listed file, or the files NAME_0000, NAME_0001, ... that nnU-Net 1 lists as NAME."""
    if path in tree.remaining:
        return [path]
    stem = image_stem(path)
    siblings = tree.files_in.get(path.parent, ())
    return [f for f in siblings if (m := CHANNEL.match(image_stem(f))) and m[1] == stem] or [path]


def _resolve(root: Path, name: str) -> Path:
    return Path(os.path.normpath(root / name))


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
