"""Naming schemes: how the files of a known data set or tool are named, each as a few patterns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import rejected_rows, used_rows
from medssl.data.ingest.layouts.cases_from_files import CaseFiles, build_cases
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree, apply_metadata
from medssl.data.ingest.layouts.metadata_tables import read_subjects
from medssl.data.ingest.layouts.patients import infer_patients
from medssl.errors import Message

IMAGE_ENDING = r"\.(?:nii|nii\.gz|nrrd|mha|mhd)"
CHANNEL = re.compile(r"(.+)_(\d{4})$")
LABEL_ENDING = r"(?:\.seg)?" + IMAGE_ENDING


@dataclass(frozen=True)
class NamingScheme:
    """A way to name the files of a data set.

    Every pattern is a regular expression for the path of a file below the folder of scans, with the groups `root` (the
    folder of the data set) and `case`, which are equal in all files of one case.

    Attributes:
        name: The data set or the tool.
        marker: A path that shows, by its `root`, that the scheme is used there.
        image: The images; further groups are `channel`, and `part` (Tr or Ts).
        labels: The labels, the preferred kind first.
        structures: Label files of one structure each, with a group `structure`.
        unused: Files that are neither an image nor a label that counts.
        description: Files that describe the data set.
        patient: The part of the case that names the patient, as its first group; by default the whole case.
        patient_from: What names the patient, for the terminal; empty where each case counts as a patient.
        channels: The order of channels; others follow in alphabetical order.
        needs_channels: Whether an image counts only with a second channel on its grid.
        class_names: Class number to name.
        is_published: Whether the names are those of a published data set, which a store may show.
    """

    name: str
    marker: str
    image: str
    labels: tuple[str, ...] = ()
    structures: str = ""
    unused: str = ""
    description: str = ""
    patient: str = "(.*)"
    patient_from: str = ""
    channels: tuple[str, ...] = ()
    needs_channels: bool = False
    class_names: Mapping[int, str] = field(default_factory=dict)
    is_published: bool = False


def apply_scheme(scheme: NamingScheme, tree: FileTree, modalities: Mapping[str, str]) -> DatasetLayout:
    """Returns the cases below each folder where the marker of a scheme is.

    Args:
        scheme: The patterns.
        tree: The files.
        modalities: Channel to modality, where a description states it.
    """
    roots = {match["root"] for match in _match_files(scheme.marker, tree).values()}
    layout = DatasetLayout()
    for root in sorted(roots):
        cases = _collect_cases(scheme, tree, root)
        channels = {name for case in cases for name in case.channels}
        if scheme.needs_channels and not _share_grids(cases, tree):
            continue
        order = {name: n for n, name in enumerate(scheme.channels)}
        names = sorted(channels, key=lambda name: (order.get(name, len(order)), name))
        part = build_cases(cases, tree, names if any(names) else (), modalities)
        unused = Message("neither a scan nor the label that counts in the layout of {name}", name=scheme.name)
        part.rows.extend(rejected_rows(_list_matches(scheme.unused, tree, root), unused))
        reason = Message("describes the data set")
        part.rows.extend(used_rows(_list_matches(scheme.description, tree, root), reason))
        tables = _list_matches(scheme.description, tree, root)
        subjects = {case: row for table in tables for case, row in read_subjects(table).items()}
        sources = [apply_metadata(replace(s, published=scheme.is_published), subjects, "") for s in part.sources]
        part = replace(part, sources=sources)
        part.labels.update(scheme.class_names if any(s.label for s in part.sources) else {})
        layout.add(part)
    return layout


def _match_files(pattern: str, tree: FileTree) -> dict[Path, re.Match[str]]:
    """Returns the files whose whole path a pattern describes, without regard to case."""
    compiled = re.compile(pattern, re.IGNORECASE)
    matches = {path: compiled.fullmatch(name) for path, name in tree.relative_names.items()} if pattern else {}
    return {path: match for path, match in matches.items() if match}


def _list_matches(pattern: str, tree: FileTree, root: str) -> list[Path]:
    return [path for path, match in _match_files(pattern, tree).items() if match["root"] == root]


def _collect_cases(scheme: NamingScheme, tree: FileTree, root: str) -> list[CaseFiles]:
    """Sorts the files below one root into cases."""
    cases: dict[tuple[str, str], CaseFiles] = {}

    def find_case(match: re.Match[str]) -> CaseFiles:
        groups = match.groupdict()
        part, name = groups.get("part") or "", groups["case"].rstrip("_-/")
        patient = re.fullmatch(scheme.patient, name.rpartition("/")[2])
        case = CaseFiles(
            re.sub(r"[^\w.-]+", "-", name.rpartition("/")[2]), patient[1] if patient else name, scheme.patient_from,
            split="test" if part.lower() == "ts" else "",
        )  # fmt: skip
        return cases.setdefault((part.lower(), name), case)

    for path, match in _match_files(scheme.image, tree).items():
        if match["root"] == root:
            find_case(match).channels[(match.groupdict().get("channel") or "").lower()] = path
    for rank, pattern in enumerate(scheme.labels):
        for path, match in _match_files(pattern, tree).items():
            if match["root"] == root:
                find_case(match).labels.append((rank, path))
    for path, match in _match_files(scheme.structures, tree).items():
        if match["root"] == root:
            find_case(match).structures[match["structure"]] = path
    return _name_patients(scheme, {key: cases[key] for key in sorted(cases)})


def _name_patients(scheme: NamingScheme, cases: Mapping[tuple[str, str], CaseFiles]) -> list[CaseFiles]:
    """Names the patients after their folders where the scheme does not say who they are and the folders do."""
    places = [(tuple(name.split("/")[:-1]), case.name) for (_, name), case in cases.items()]
    folders = infer_patients(places) if not scheme.patient_from else [""] * len(places)
    for case, folder in zip(cases.values(), folders, strict=True):
        if folder:
            patient = re.fullmatch(scheme.patient, folder.rpartition("/")[2])
            case.patient, case.patient_from = patient[1] if patient else folder, "their folders"
    return list(cases.values())


def _share_grids(cases: list[CaseFiles], tree: FileTree) -> bool:
    """Whether there are cases with several channels, and the channels of each lie on one grid."""
    groups = [[h for path in case.channels.values() if (h := tree.header(path))] for case in cases]
    several = [headers for headers in groups if len(headers) > 1]
    return bool(several) and all(first.has_same_grid(other) for first, *others in several for other in others)
