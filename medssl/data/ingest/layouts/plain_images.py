"""Makes cases of image files that follow no known layout, and finds the label of each by name, folder and grid."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree
from medssl.data.ingest.layouts.evidence import (
    IMAGE_WORDS,
    LABEL_WORDS,
    PART_WORDS,
    has_label_values,
    image_stem,
    is_label_name,
    split_words,
)
from medssl.data.ingest.layouts.modality import parse_modality
from medssl.data.ingest.layouts.patients import infer_patients
from medssl.data.ingest.source import LabelPart, Source, find_common_folder
from medssl.errors import Message
from medssl.io.slicer_segmentation import read_segments

NO_IMAGE = Message(
    "looks like a label (by its name or its few whole numbers), and no image here has its name or its grid alone; "
    "pair them with --image and --label, or take it as a scan with --image"
)
RATER = re.compile(r"(rater|reader|observer|annotator|expert|version|v|final|original|auto|manual|pred\w*)\d*")


@dataclass(frozen=True)
class _PlainFile:
    """An image or a label and the words by which the two are matched.

    Attributes:
        path: The file.
        folder: The folders, without those that are named after images or labels.
        words: The words of the name, without those that mean image or label.
    """

    path: Path
    folder: tuple[str, ...]
    words: tuple[str, ...]


ScansByName = dict[tuple[str, ...], dict[tuple[str, ...], list[_PlainFile]]]


def find_plain_images(tree: FileTree) -> DatasetLayout:
    """Makes every image file that is no label a case, with the label that belongs to it; other labels are refused."""
    top = find_common_folder(tree.image_files) if tree.image_files else tree.root
    files = [_describe(path, tree) for path in tree.image_files]
    is_label = {f.path: is_label_name(f.path, top) or has_label_values(f.path, tree.header(f.path)) for f in files}
    scans = [file for file in files if not is_label[file.path]]
    labels_of: dict[Path, list[_PlainFile]] = {scan.path: [] for scan in scans}
    by_name: ScansByName = {}
    for scan in scans:
        by_name.setdefault(scan.folder, {}).setdefault(scan.words, []).append(scan)
    layout = DatasetLayout()
    for label in (file for file in files if is_label[file.path]):
        matches = _find_images(label, by_name, tree)
        if len(matches) == 1:
            labels_of[matches[0].path].append(_name_structure(label, matches[0]))
        else:
            layout.rows.extend(rejected_rows([label.path], NO_IMAGE))
    has_structures = any(len(labels) > 1 and _are_structures(labels) for labels in labels_of.values())
    folders = [tuple(tree.relative_names[scan.path].split("/")[:-1]) for scan in scans]
    patients = infer_patients([(f, image_stem(s.path)) for f, s in zip(folders, scans, strict=True)])
    for scan, patient in zip(scans, patients, strict=True):
        source, rows = _attach_labels(_make_source(scan.path, tree, patient), labels_of[scan.path], has_structures)
        layout.sources.append(source)
        layout.rows.extend(rows)
    return layout


def _describe(path: Path, tree: FileTree) -> _PlainFile:
    parts = tree.relative_names[path].split("/")[:-1]
    words = _match_words(image_stem(path))
    name_of_folder = _match_words(parts[-1]) if parts else ()
    if name_of_folder and words[: len(name_of_folder)] == name_of_folder:
        words = words[len(name_of_folder) :]
    return _PlainFile(path, tuple(f for part in parts if (f := _reduce_folder(part))), words)


def _match_words(name: str) -> tuple[str, ...]:
    """Splits a name into lower-case words, of which those that mean image or label leave their number only."""
    words = re.split(r"[^A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    numbered = [re.fullmatch(r"(.*?)(\d*)", word) for word in words]
    reduced = [m[2] if m[1] in LABEL_WORDS | IMAGE_WORDS else m[0] for m in numbered if m]
    return tuple(word for word in reduced if word)


def _reduce_folder(folder: str) -> str:
    """Returns the name of a folder; of one that is named after images or labels, only its part (Tr, test)."""
    words = split_words(folder)
    kinds = [word for word in words if word not in PART_WORDS]
    if not kinds or kinds[-1] not in LABEL_WORDS | IMAGE_WORDS:
        return "" if words and set(words) <= {"final", "original"} else folder
    return "/".join(word for word in words if word in PART_WORDS - {"final", "original"})


def _find_images(label: _PlainFile, scans: ScansByName, tree: FileTree) -> list[_PlainFile]:
    """Returns the scans that a label may belong to: those of its name, else those that its name begins with, else an
    unnamed one in its folder ("ct.nii.gz"); the latter two only on the same grid.
    """
    nearby = scans.get(label.folder, {})
    same_name = nearby.get(label.words, [])
    if same_name:
        return same_name if len(same_name) == 1 else [scan for scan in same_name if _share_grid(label, scan, tree)]
    for length in range(len(label.words) - 1, -1, -1):
        begins = [scan for scan in nearby.get(label.words[:length], []) if not length or _has_letters(label, scan)]
        if matches := [scan for scan in begins if _share_grid(label, scan, tree)]:
            return matches
    return []


def _has_letters(label: _PlainFile, scan: _PlainFile) -> bool:
    return any(re.search("[a-z]", word) for word in label.words[len(scan.words) :])


def _share_grid(label: _PlainFile, scan: _PlainFile, tree: FileTree) -> bool:
    label_header, header = tree.header(label.path), tree.header(scan.path)
    return label_header is not None and header is not None and header.has_same_grid(label_header)


def _name_structure(label: _PlainFile, scan: _PlainFile) -> _PlainFile:
    """Returns the label with the words of its structure only: those that the name of the scan lacks."""
    words = tuple(word for word in label.words[len(scan.words) :] if not RATER.fullmatch(word))
    return replace(label, words=words if any(re.search("[a-z]", word) for word in words) else ())


def _are_structures(labels: Sequence[_PlainFile]) -> bool:
    """Whether every label names a structure of its own."""
    names = {label.words for label in labels}
    return () not in names and len(names) == len(labels)


def _make_source(path: Path, tree: FileTree, patient: str) -> Source:
    relative = Path(tree.relative_names[path])
    name = re.sub(r"[^\w.-]+", "-", "_".join([*relative.parts[:-1], image_stem(path)]))
    modality = parse_modality(image_stem(path)) or parse_modality(relative.parent.name)
    source = Source(name, patient or name, (path,), (modality,))
    return replace(source, patient_from="their folders" if patient else "")


def _attach_labels(
    source: Source, labels: Sequence[_PlainFile], has_structures: bool
) -> tuple[Source, list[LedgerRow]]:
    """Returns the source with its label, or with the rows of labels among which nothing decides."""
    paths = [label.path for label in labels]
    segments = [LabelPart(path, s.name, s.value, s.layer) for path in paths for s in read_segments(path)]
    if labels and {part.path for part in segments} == set(paths):
        return replace(source, label=paths[0], label_parts=tuple(segments)), []
    if labels and has_structures and _are_structures(labels):
        parts = tuple(LabelPart(label.path, "_".join(label.words)) for label in labels)
        return replace(source, label=paths[0], label_parts=parts), []
    if len(labels) == 1 and not has_structures:
        return replace(source, label=paths[0]), []
    reason = Message(
        "one of {count} labels of its image; choose the one that counts with --image and --label", count=len(paths)
    )
    return source, rejected_rows(paths, reason)
