"""Groups the files of a folder into cases: known layouts, patterns of the user, plain image files and DICOM."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.dicom_studies import discover_series
from medssl.data.ingest.file_ledger import rejected_rows, used_rows
from medssl.data.ingest.layouts.bids import find_bids_cases
from medssl.data.ingest.layouts.case_labels import label_whole_scans
from medssl.data.ingest.layouts.dataset_json import read_dataset_json
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree, apply_metadata
from medssl.data.ingest.layouts.metadata_tables import read_case_metadata
from medssl.data.ingest.layouts.naming_scheme import apply_scheme
from medssl.data.ingest.layouts.plain_images import find_plain_images
from medssl.data.ingest.layouts.schemes import SCHEMES
from medssl.data.ingest.layouts.structures import number_structures
from medssl.data.ingest.layouts.user_patterns import find_by_patterns, match_patient
from medssl.data.ingest.source import Source, make_pseudonym
from medssl.data.ingest.structures.structure_map import StructureMap
from medssl.errors import BadInput, Message, join_messages, restore_message
from medssl.io import archives, file_walk, images
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.io.rejected import RejectedFiles
from medssl.io.voxel_files import list_voxel_files

DEFAULTS = IngestConfig()
NOT_UTF8 = r"[\ud800-\udfff]"  # bytes of a file name that are not UTF-8


def discover_dataset(scans: Path, config: IngestConfig = DEFAULTS, memory: HeaderMemory | None = None) -> DatasetLayout:
    """Sorts the files under a folder into cases and ledger rows, so that each file is in exactly one of them.

    Args:
        scans: The folder.
        config: The options of an ingestion.
        memory: The headers that an earlier run has read.
    """
    files, layout = _list_files(scans, config.follow_links)
    tree = FileTree(scans, frozenset(files))
    voxel_files = {path: set(list_voxel_files(path)) & tree.remaining for path in tree.image_files}
    tree = tree.without(set().union(*voxel_files.values()))
    for find_cases in _list_layouts(tree, config, memory):
        layout.add(find_cases(tree))
        tree = tree.without(layout.files)
    layout = _attach_voxel_files(layout, voxel_files)
    layout.rows.extend(used_rows(sorted(tree.remaining), Message("an archive, whose members are listed")))
    layout = number_structures(_apply_user_options(layout, scans, config))
    if config.case_labels:
        layout = label_whole_scans(layout, config.case_labels)
    layout.notes.append(_describe_patients(layout.sources))
    return layout


def _attach_voxel_files(layout: DatasetLayout, voxel_files: Mapping[Path, set[Path]]) -> DatasetLayout:
    """Returns the layout with the voxel files of headers, each in the case of its header or refused with it."""
    remaining = set().union(*voxel_files.values())
    sources = []
    for source in layout.sources:
        parts = sorted(remaining & set().union(*(voxel_files.get(file, set()) for file in source.files)))
        remaining.difference_update(parts)
        sources.append(replace(source, parts=(*source.parts, *parts)))
    rows = rejected_rows(sorted(remaining), Message("the voxels of a header that is refused"))
    return replace(layout, sources=sources, rows=[*layout.rows, *rows])


def _list_layouts(
    tree: FileTree, config: IngestConfig, memory: HeaderMemory | None
) -> Iterator[Callable[[FileTree], DatasetLayout]]:
    """Yields the layouts that are tried in turn, each on the files that those before it have not accounted for."""
    if config.image_patterns:
        yield lambda rest: find_by_patterns(rest, config)
        return
    for path in sorted(f for f in tree.remaining if f.name == "dataset.json"):
        yield lambda rest, path=path: read_dataset_json(path, rest)  # type: ignore[misc]
    yield find_bids_cases
    for scheme in SCHEMES:
        yield lambda rest, scheme=scheme: apply_scheme(scheme, rest, {})  # type: ignore[misc]
    yield find_plain_images
    yield lambda rest: _find_dicom_cases(rest, config, memory)


def _find_dicom_cases(tree: FileTree, config: IngestConfig, memory: HeaderMemory | None) -> DatasetLayout:
    studies = discover_series(
        sorted(tree.remaining, key=lambda path: path.parts),
        config.allow_gaps,
        config.select,
        StructureMap.read(config.structures),
        memory,
    )
    sources = [replace(source, patient_from="the PatientID of DICOM") for source in studies.sources]
    return DatasetLayout(sources, studies.rows, studies.labels, studies.present_labels, notes=studies.notes)


def _list_files(scans: Path, follow_links: bool) -> tuple[list[Path], DatasetLayout]:
    """Lists files and the NIfTI members of archives in a fixed order; links that are not followed are refused."""
    if not scans.is_dir():
        raise BadInput(f"{scans}: no such folder; give the folder that holds the scans")
    files: list[Path] = []
    layout = DatasetLayout()
    for item in file_walk.list_files(scans, follow_links):
        if isinstance(item, RejectedFiles):
            layout.rows.extend(rejected_rows(item.files, item.reason))
        elif not archives.is_apple_double(item):
            files += [item, *(member for member in archives.list_members(item) if images.is_nifti(member))]
    return sorted(files, key=lambda path: path.parts), layout


def _apply_user_options(layout: DatasetLayout, scans: Path, config: IngestConfig) -> DatasetLayout:
    """Returns the layout with unique case names, the user's modality, and patients from --patient or a table."""
    metadata = read_case_metadata(config.patients) if config.patients else {}
    if config.patients and not metadata:
        raise BadInput(f"{config.patients}: has no columns `case` and `patient` (or `site`); write one line per case")
    counts: dict[str, int] = {}
    sources = []
    for source in sorted(layout.sources, key=lambda s: (s.id, s.files)):
        base, patient = (re.sub(NOT_UTF8, "-", text) for text in (source.id, source.patient))
        counts[base] = counts.get(base, 0) + 1
        name = base if counts[base] == 1 else f"{base}-{make_pseudonym(str(source.images[0]))}"
        modalities = tuple(config.modality or m for m in source.modalities)
        modalities = source.modalities if source.series else modalities
        renamed = replace(source, id=name, patient=patient, modalities=modalities)
        if not source.series and not config.image_patterns and config.patient_pattern:
            renamed = _name_patient(renamed, source.images[0].relative_to(scans).as_posix(), config.patient_pattern)
        sources.append(apply_metadata(renamed, metadata, "--patients"))
    return replace(layout, sources=sources)


def _name_patient(source: Source, name: str, pattern: str) -> Source:
    """Returns the source with the patient that --patient describes in its path."""
    patient = match_patient(pattern, name)
    if not patient:
        raise BadInput(f"--patient {pattern}: describes no part of {name}; widen it, or give --patients CSV")
    return replace(source, patient=patient, patient_from="--patient")


def _describe_patients(sources: list[Source]) -> Message:
    """Returns the line for the terminal on how the patients of the cases were identified."""
    patients = len({source.patient for source in sources})
    counts = Counter(source.patient_from for source in sources)
    unknown = counts.pop("", 0)
    text = ", ".join(f"{origin} ({count} cases)" for origin, count in sorted(counts.items()))
    ways = restore_message(text, text)  # words of this package and numbers
    line = Message("{patients} patients of {cases} cases, by {ways}", patients=patients, cases=len(sources), ways=ways)
    warning = Message(
        "warning: each of {unknown} cases counts as its own patient, so scans of one person may lie in two splits; "
        "name them with --patient REGEX or --patients CSV",
        unknown=unknown,
    )
    return warning if not text else join_messages([line, warning]) if unknown else line
