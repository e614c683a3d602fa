"""Finds cases by the patterns of a user: --image, --label and --patient."""

import re
from pathlib import Path

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.file_ledger import rejected_rows
from medssl.data.ingest.layouts.cases_from_files import CaseFiles, build_cases
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree
from medssl.data.ingest.layouts.evidence import image_stem
from medssl.data.ingest.layouts.patients import infer_patients
from medssl.errors import BadInput, Message

Key = tuple[str, ...]
NO_PATIENT = Message("--patient describes no part of its path; widen it, or give --patients CSV")


def find_by_patterns(tree: FileTree, config: IngestConfig) -> DatasetLayout:
    """Returns the cases that the patterns describe; every other file is refused.

    Files belong to one case if the folders before the pattern and the texts that its `*` stand for are equal. A label
    with a further `*` is a file of one structure, which that text names.

    Raises:
        BadInput: A pattern describes no file, or a file is described by two.
    """
    labels = {p: _match_glob(p, tree) for p in config.label_patterns}
    labelled = {path for files in labels.values() for path in files}
    scans = {p: _match_glob(p, tree.without(labelled)) for p in config.image_patterns}
    _check_matches(labels, tree)
    _check_matches(scans, tree)
    has_channels = len(scans) > 1
    cases: dict[Key, CaseFiles] = {}
    for pattern, files in scans.items():
        for path, key in files.items():
            name = re.sub(r"[^\w.-]+", "-", "_".join(part.strip("/") for part in key if part)) or image_stem(path)
            case = cases.setdefault(key, CaseFiles(name, name, ""))
            case.channels[_name_channel(pattern) if has_channels else ""] = path
    layout = DatasetLayout()
    for path, key in (item for files in labels.values() for item in files.items()):
        length = next((n for n in range(len(key), 0, -1) if key[:n] in cases), 0)
        if not length:
            layout.rows.extend(rejected_rows([path], Message("a label whose image no --image describes")))
        elif length == len(key):
            cases[key].labels.append((0, path))
        else:
            cases[key[:length]].structures["_".join(key[length:])] = path
    _name_patients(cases, tree, config, layout)
    channels = [_name_channel(pattern) for pattern in scans] if has_channels else []
    if len(set(channels)) < len(channels):
        raise BadInput(f"--image {' --image '.join(scans)}: the file names are equal; give channels different names")
    layout.add(build_cases(cases.values(), tree, channels, {}, are_volumes_channels=True))
    reason = Message("described by neither --image nor --label")
    layout.rows.extend(rejected_rows(sorted(tree.remaining - layout.files), reason))
    return layout


def _match_glob(pattern: str, tree: FileTree) -> dict[Path, Key]:
    """Returns the files that a pattern describes, with the folders before it and the texts that its `*` stand for."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    wild = {"**/": r"((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}
    compiled = re.compile("((?:[^/]+/)*)" + "".join(wild.get(part) or re.escape(part) for part in parts))
    matches = {path: compiled.fullmatch(name) for path, name in tree.relative_names.items()}
    return {path: match.groups() for path, match in matches.items() if match}


def _check_matches(matches: dict[str, dict[Path, Key]], tree: FileTree) -> None:
    for pattern, files in matches.items():
        if not files:
            raise BadInput(
                f"{pattern!r}: no file below {tree.root} is named like that; a pattern describes the end of a path, "
                "such as '*_t1.nii.gz' or 'labels/*.nii.gz'"
            )
    patterns_of: dict[Path, list[str]] = {}
    for pattern, files in matches.items():
        for path in files:
            patterns_of.setdefault(path, []).append(pattern)
    for path, patterns in patterns_of.items():
        if len(patterns) > 1:
            raise BadInput(f"{path}: is described by {' and '.join(map(repr, patterns))}; make the patterns narrower")


def _name_channel(pattern: str) -> str:
    """Returns the fixed words of the file name of a pattern: t1 for '*_t1.nii.gz'."""
    name = image_stem(Path(pattern.rpartition("/")[2]))
    return "_".join(word for word in re.split(r"[^A-Za-z0-9]+", name) if word) or pattern


def _name_patients(cases: dict[Key, CaseFiles], tree: FileTree, config: IngestConfig, layout: DatasetLayout) -> None:
    """Names the patient of each case by --patient, or else by its folders; a case without a match is refused."""
    names = {key: tree.relative_names[next(iter(case.channels.values()))] for key, case in cases.items()}
    if not config.patient_pattern:
        places = [(tuple(names[key].split("/")[:-1]), case.name) for key, case in cases.items()]
        for case, folder in zip(cases.values(), infer_patients(places), strict=True):
            case.patient, case.patient_from = folder or case.name, "their folders" if folder else ""
        return
    for key, case in list(cases.items()):
        if patient := match_patient(config.patient_pattern, names[key]):
            case.patient, case.patient_from = patient, "--patient"
        else:
            files = [*case.channels.values(), *(p for _, p in case.labels), *case.structures.values()]
            layout.rows.extend(rejected_rows(files, NO_PATIENT))
            del cases[key]


def match_patient(pattern: str, name: str) -> str:
    """Returns what a regular expression, or its first group, describes in a path; empty if nothing."""
    match = re.search(pattern, name)
    return "" if match is None else (match[1] if match.groups() else match[0]) or ""
