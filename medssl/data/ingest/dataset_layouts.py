"""Layouts: which files of a folder belong together as one case, and which belong to none."""

import json
import logging
import os
import re
import stat
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl.data.ingest import metadata_tables as tables
from medssl.data.ingest.dicom_studies import find as find_studies
from medssl.data.ingest.file_ledger import Row, refused
from medssl.data.ingest.metadata_tables import Told
from medssl.data.ingest.source import Source, pseudonym
from medssl.errors import BadInput
from medssl.io import images

log = logging.getLogger(__name__)
CHANNEL = re.compile(r"(.+)_(\d{4})$")
VOXELS = (".raw", ".zraw", ".raw.gz")
SPLITS = {"training": "train", "validation": "val", "test": "test", "unlabeled": "", "unlabelled": ""}


@dataclass(frozen=True)
class Layout:
    """What a folder holds: cases to read, ledger rows of the files that belong to none, and the class names.

    `present` lists the classes that were drawn in a case, `regions` the classes that a named union is made of.
    """

    sources: list[Source] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    present: dict[str, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)


def find(scans: Path, modality: str = "", patients: Path | None = None, allow_gaps: bool = False) -> Layout:
    """Sorts the files under `scans` into cases and ledger rows; each file is in exactly one of them."""
    files, found = _files(scans)
    left = set(files)
    for described in [f for f in files if f.name == "dataset.json"]:
        _take(found, left, _described(described, left), published=True)
    for folder in sorted({f.parent for f in left if f.parent.name == "imagesTr"}):
        _take(found, left, _nnunet(folder.parent, left, {}, ()), published=True)
    _take(found, left, _plain(sorted(f for f in left if images.is_image(f)), left, scans))
    studies = find_studies(sorted(left), allow_gaps)
    _take(found, left, Layout(studies.sources, studies.rows, studies.labels, studies.present))
    found.rows.extend(Row(str(f), "used", "", "an archive, whose members are listed") for f in sorted(left))
    return _finished(found, modality, patients)


def _files(scans: Path) -> tuple[list[Path], Layout]:
    """Regular files in a fixed order, links not followed; what is no file is refused."""
    if not scans.is_dir():
        raise BadInput(f"{scans}: no such folder; give the folder that holds the scans")

    def unreadable(error: OSError) -> None:
        raise BadInput(f"{error.filename}: cannot be listed ({error.strerror}); make it readable or leave it out")

    regular: list[Path] = []
    odd: list[Path] = []
    for root, folders, names in os.walk(scans, onerror=unreadable):
        linked = [n for n in folders if (Path(root) / n).is_symlink()]
        for path in (Path(root) / n for n in [*names, *linked]):
            (regular if stat.S_ISREG(path.lstat().st_mode) else odd).append(path)
    return sorted(regular), Layout(rows=refused(odd, "a link, a pipe or a device; put a copy of the file here"))


def _take(into: Layout, left: set[Path], part: Layout, published: bool = False) -> None:
    into.sources.extend(replace(source, published=published) for source in part.sources)
    into.rows.extend(part.rows)
    into.labels.update(part.labels)
    into.present.update(part.present)
    into.regions.update(part.regions)
    left.difference_update(f for s in part.sources for f in s.files)
    left.difference_update(Path(row.path) for row in part.rows)


def _described(path: Path, left: set[Path]) -> Layout:
    """The cases a dataset.json lists, as in the Decathlon and in MONAI's detection sets, or as nnU-Net names them."""
    root = path.parent
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        labels, regions = class_names(told.get("labels") or {})
        channels = told.get("channel_names") or told.get("modality") or {}
        modalities = tuple(_modality(str(channels[key])) for key in sorted(channels, key=int))
        listed = [(split, item) for split in SPLITS for item in told.get(split) or ()]
        present = {str(case): [int(v) for v in classes] for case, classes in (told.get("present_labels") or {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be understood: the cases, labels and class names that it lists are not known", path.name)
        return Layout(rows=refused([path], f"dataset.json cannot be understood: {error}"))
    beside = [f for f in sorted(left) if (f.parent, f.suffix) == (root, ".csv")]
    beside += [f for f in sorted(left) if (f.parent.parent, f.suffix) == (root, ".json")]
    known = {f: table for f in beside if (table := tables.read(f))}
    said = {case: told for table in known.values() for case, told in table.items()}
    found = Layout() if listed else _nnunet(root, left, said, modalities)
    for split, item in listed:
        source = _listed(root, item, modalities, left)
        if isinstance(source, Source):
            part = SPLITS[split] if told.get("validation") else ""
            classes = tuple(labels) if source.instances is None else ()
            found.sources.append(replace(_said(source, said), split=part, classes=classes))
        else:
            found.rows.extend(source)
    untold = sum(source.id not in said for source in found.sources) if said else 0
    if untold:
        log.warning("%d cases are in no table beside dataset.json: each counts as a patient of its own", untold)
    found.rows.extend(Row(str(f), "used", "", "describes the data set") for f in (path, *known))
    return replace(found, labels=labels, present=present, regions=regions)


def _listed(root: Path, item: Any, modalities: tuple[str, ...], left: set[Path]) -> Source | list[Row]:
    """One entry of a dataset.json: an image (or its channels) with or without a label or an instance mask."""
    entry = item if isinstance(item, dict) else {"image": item}
    named, told = entry.get("image"), entry.get("mask") or entry.get("label")
    paths = tuple(_under(root, str(p)) for p in (named if isinstance(named, list) else [named]))
    label = _under(root, told) if isinstance(told, str) else None
    wanted = (*paths, label) if label else paths
    missing = [os.path.relpath(p, root) for p in wanted if p not in left]
    if missing:
        reason = f"dataset.json lists it with {', '.join(missing)}, which is not there; add that file or drop the entry"
        return refused([p for p in wanted if p in left], reason)
    instances = tuple(int(v) + 1 for v in entry.get("label") or ()) if entry.get("mask") else None
    channel = CHANNEL.match(stem(paths[0])) if len(paths) > 1 else None
    name = channel[1] if channel else stem(paths[0])
    kinds = modalities if len(modalities) == len(paths) else (modalities or ("",))[:1] * len(paths)
    return Source(name, name, paths, kinds, label, instances=instances)


def _nnunet(root: Path, left: set[Path], said: dict[str, Told], modalities: tuple[str, ...]) -> Layout:
    """imagesTr/NAME_0000 (one file a channel) with labelsTr/NAME, and imagesTs likewise."""
    found = Layout()
    for suffix in ("Tr", "Ts"):
        labels = {stem(f): f for f in left if f.parent == root / f"labels{suffix}" and images.is_image(f)}
        grouped: dict[str, dict[int, Path]] = {}
        for path in sorted(f for f in left if f.parent == root / f"images{suffix}" and images.is_image(f)):
            channel = CHANNEL.match(stem(path))
            name, number = (channel[1], int(channel[2])) if channel else (stem(path), 0)
            grouped.setdefault(name, {})[number] = path
        for name, channels in grouped.items():
            numbers = sorted(channels)
            kinds = tuple(modalities[n] if n < len(modalities) else "" for n in numbers)
            paths = tuple(channels[n] for n in numbers)
            found.sources.append(_said(Source(name, name, paths, kinds, labels.pop(name, None)), said))
        found.rows.extend(refused(labels.values(), "a label without an image of its name"))
    return found


def _plain(files: list[Path], left: set[Path], scans: Path) -> Layout:
    """Every image file is a case of its own, named by its path."""
    found = Layout()
    for path in files:
        if re.fullmatch(r"(labels?(Tr|Ts)?|masks?|segmentations?)", path.parent.name):
            found.rows.extend(refused([path], "a label that belongs to no image here"))
            continue
        name = re.sub(r"[^\w.-]+", "-", "_".join([*path.relative_to(scans).parts[:-1], stem(path)]))
        beside = [path.with_name(stem(path) + ending) for ending in VOXELS] if path.suffix == ".mhd" else []
        found.sources.append(Source(name, name, (path,), ("",), parts=tuple(f for f in beside if f in left)))
    return found


def _finished(found: Layout, modality: str, patients: Path | None) -> Layout:
    """Modality and patients as the user says, and names that are unique."""
    said = tables.read(patients) if patients else {}
    if patients and not said:
        raise BadInput(f"{patients}: has no columns `case` and `patient` (or `site`); write one line a case")
    seen: dict[str, int] = {}
    sources = []
    for source in sorted(found.sources, key=lambda s: (s.id, s.files)):
        plain = re.sub(r"[\ud800-\udfff]", "-", source.id)  # a file's name that is no UTF-8
        number = seen[plain] = seen.get(plain, 0) + 1
        name = plain if number == 1 else f"{plain}-{pseudonym(str(source.images[0]))}"
        kinds = tuple(modality or m for m in source.modalities) if source.series is None else source.modalities
        sources.append(_said(replace(source, id=name, modalities=kinds), said))
    return replace(found, sources=sources)


def _said(source: Source, said: dict[str, Told]) -> Source:
    """A source with what a table says of it in place of what its files say."""
    told = {name: value for name, value in asdict(said.get(source.id, Told())).items() if value not in ("", None)}
    return replace(source, **told)


def class_names(told: dict[str, Any]) -> tuple[dict[int, str], dict[str, list[int]]]:
    """Class number -> name, and region -> its classes.

    nnU-Net writes classes the other way round. Detection sets count from 0 without background.
    """
    pairs = [(k, v) if str(k).lstrip("-").isdigit() else (v, k) for k, v in told.items()]
    if any(isinstance(number, list) for number, _ in pairs):
        return _regions(told)
    named = {int(number): str(name) for number, name in pairs}
    if named and named.get(0, "background").lower() != "background":
        named = {number + 1: name for number, name in named.items()}
    return {number: name for number, name in sorted(named.items()) if number > 0}, {}


def _regions(told: dict[str, Any]) -> tuple[dict[int, str], dict[str, list[int]]]:
    """nnU-Net's unions of classes by name: a class is called after the smallest region around it.

    Beside them, `regions_class_order` tells how nnU-Net numbers its own predictions, and nothing of the labels.
    """
    values = {name: sorted({int(v) for v in (of if isinstance(of, list) else [of])}) for name, of in told.items()}
    blank = {name: of[0] for name, of in values.items() if name in ("background", "ignore") and of}
    regions = {name: of for name, of in values.items() if name not in blank}
    wrong = [name for name, of in regions.items() if not of or of[0] < 1 or set(of) & set(blank.values())]
    if wrong:
        raise ValueError(f"region {wrong[0]!r} is empty, or holds the background or what is to be ignored")
    named = {of: name for name, of in blank.items() if of}
    for name, of in sorted(regions.items(), key=lambda item: len(item[1])):
        named = {value: name if len(of) == 1 else f"{name}_{value}" for value in of} | named
    return dict(sorted(named.items())), regions


def _modality(told: str) -> str:
    return "CT" if "CT" in told.upper().split("_") else "PT" if "PET" in told.upper() else "MR"


def _under(root: Path, name: str) -> Path:
    return Path(os.path.normpath(root / name))


def stem(path: Path) -> str:
    """A file's name without the ending of an image."""
    return re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", "", path.name)
