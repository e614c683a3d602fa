"""Finds the cases of a BIDS data set: subjects as patients, sessions, participants.tsv, and derivatives as labels.

Gorgolewski et al., The brain imaging data structure, 2016, https://doi.org/10.1038/sdata.2016.44; names follow the
specification 1.10, https://bids-specification.readthedocs.io.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows, used_rows
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout, FileTree, apply_metadata
from medssl.data.ingest.layouts.evidence import image_stem
from medssl.data.ingest.layouts.metadata_tables import read_rows, read_subjects
from medssl.data.ingest.layouts.modality import parse_modality
from medssl.data.ingest.layouts.naming_scheme import IMAGE_ENDING
from medssl.data.ingest.source import LabelPart, Source
from medssl.errors import Message

NAME = re.compile(
    r"(?P<root>(?:[^/]+/)*?)(?:sourcedata/|rawdata/)?(?P<derivative>derivatives/(?:[^/]+/)*?)?"
    r"sub-(?P<subject>[^/_]+)/(?:ses-(?P<session>[^/_]+)/)?(?P<kind>[a-z]+)/"
    rf"sub-(?P=subject)_(?P<entities>(?:[^/_]+_)*)(?P<suffix>[A-Za-z0-9]+){IMAGE_ENDING}",
    re.IGNORECASE,
)
SIDECAR = re.compile(r"(?:.*/)?(?:sub-[^/]+\.(?:json|tsv)|participants\.(?:tsv|json)|dataset_description\.json)")
LABEL_SUFFIXES = {"dseg": 0, "mask": 1, "roi": 1, "lesion": 1}  # the preferred kind first
NO_SCANS = ("probseg", "defacemask", "sbref")
KINDS = ("anat", "ct", "pet", "mr", "perf", "dwi", "func", "swi")
DERIVED_ENTITIES = ("space", "res", "den", "label", "desc", "seg", "atlas", "hemi")
NO_SCAN = Message("neither a scan of a subject nor a label of one in the BIDS layout; take it as a scan with --image")


@dataclass(frozen=True)
class BidsFile:
    """An image file of a BIDS data set and what its name states.

    Attributes:
        path: The file.
        root: The folder of the data set.
        subject: The subject.
        session: The session; empty if there is only one.
        kind: The kind of data, such as anat.
        entities: Further entities of the name, such as acq-iso.
        suffix: The kind of image, such as T1w.
        is_derivative: Whether the file lies in a folder `derivatives`.
    """

    path: Path
    root: str
    subject: str
    session: str
    kind: str
    entities: frozenset[str]
    suffix: str
    is_derivative: bool

    @property
    def is_label(self) -> bool:
        """Whether the suffix is that of a label."""
        return self.suffix.lower() in LABEL_SUFFIXES

    def entity(self, name: str) -> str:
        """Returns the value of an entity; empty if the name has none."""
        return next((e.partition("-")[2] for e in sorted(self.entities) if e.partition("-")[0] == name), "")


def find_bids_cases(tree: FileTree) -> DatasetLayout:
    """Returns one case for each scan of a subject, with the label in the derivatives that is on its grid."""
    files = [file for path in tree.image_files if (file := _parse(path, tree.relative_names[path]))]
    scans = [f for f in files if not f.is_derivative and not f.is_label and _is_scan(f, tree)]
    layout = DatasetLayout()
    if not scans:
        return layout
    labels_of: dict[Path, list[BidsFile]] = {scan.path: [] for scan in scans}
    sessions: dict[tuple[str, str, str], list[BidsFile]] = {}
    for scan in scans:
        sessions.setdefault((scan.root, scan.subject, scan.session), []).append(scan)
    for file in files:
        if file.path not in labels_of:  # a label, or no scan
            matches = _find_scans(file, sessions.get((file.root, file.subject, file.session), []), tree)
            if len(matches) == 1:
                labels_of[matches[0].path].append(file)
            else:
                layout.rows.extend(rejected_rows([file.path], _describe_rejection(file, len(matches))))
    for scan in scans:
        source, rows = _attach_labels(_make_source(scan), labels_of[scan.path])
        layout.sources.append(source)
        layout.rows.extend(rows)
    participants = [f for f in tree.relative_names if f.name == "participants.tsv"]
    subjects = {name: values for table in participants for name, values in read_subjects(table).items()}
    by_case = {s.id: values for s in layout.sources if (values := subjects.get(s.patient))}
    sources = [apply_metadata(source, by_case, "BIDS subjects") for source in layout.sources]
    sidecars = [f for f, name in tree.relative_names.items() if SIDECAR.fullmatch(name)]
    layout.rows.extend(used_rows(sidecars, Message("describes the data set")))
    return replace(layout, sources=sources)


def _parse(path: Path, name: str) -> BidsFile | None:
    """Returns what the path of an image file states; None if it does not follow BIDS."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    entities = frozenset(e for e in match["entities"].split("_") if e and e != f"ses-{match['session']}")
    return BidsFile(
        path, match["root"], match["subject"], match["session"] or "", match["kind"].lower(), entities, match["suffix"],
        bool(match["derivative"]),
    )  # fmt: skip


def _is_scan(file: BidsFile, tree: FileTree) -> bool:
    header = tree.header(file.path)
    is_single = header is None or header.num_volumes == 1  # the fault of a damaged file is reported when it is read
    return file.kind in KINDS and file.suffix.lower() not in NO_SCANS and is_single


def _find_scans(label: BidsFile, scans: Sequence[BidsFile], tree: FileTree) -> list[BidsFile]:
    """Returns the scans of the same subject and session that a label may have been drawn on."""
    is_other_space = label.entity("space").lower() not in ("", "orig", "individual", "native", "scanner", "t1w", "ct")
    if not label.is_label or label.entity("desc") == "brain" or is_other_space:
        return []
    suffixes = {e for e in label.entities if "-" not in e}
    entities = {e for e in label.entities if "-" in e and e.partition("-")[0] not in DERIVED_ENTITIES}
    header = tree.header(label.path)
    matches = [
        scan
        for scan in scans
        if entities <= scan.entities
        and (not suffixes or scan.suffix in suffixes)
        and header is not None
        and (grid := tree.header(scan.path)) is not None
        and grid.has_same_grid(header)
    ]
    exact = [scan for scan in matches if entities == scan.entities]
    return exact if len(exact) == 1 else matches


def _describe_rejection(file: BidsFile, num_scans: int) -> Message:
    if not file.is_label or file.entity("desc") == "brain":
        return NO_SCAN
    if num_scans > 1:
        return Message(
            "a label that {count} scans of its session may belong to; pair them with --image and --label",
            count=num_scans,
        )
    return Message("a label without a scan of its subject and session on its grid")


def _attach_labels(source: Source, labels: Sequence[BidsFile]) -> tuple[Source, list[LedgerRow]]:
    """Returns the source with its dseg, or else with its masks as structures, and rows for the other labels."""
    ranks = [LABEL_SUFFIXES[label.suffix.lower()] for label in labels]
    chosen = [label for label, rank in zip(labels, ranks, strict=True) if rank == min(ranks)]
    others = [label.path for label in labels if label not in chosen]
    rows = rejected_rows(others, Message("another label of its image is used"))
    if not chosen:
        return source, rows
    names = {label.entity("label") or label.entity("desc") or label.suffix.lower(): label for label in chosen}
    if len(names) < len(chosen) or (min(ranks) == 0 and len(chosen) > 1):
        reason = Message(
            "one of {count} labels of its image; choose the one that counts with --image and --label", count=len(chosen)
        )
        return source, [*rows, *rejected_rows([label.path for label in chosen], reason)]
    if min(ranks) == 0:
        parts = tuple(LabelPart(chosen[0].path, name, value) for value, name in _read_class_names(chosen[0].path))
    else:
        parts = tuple(LabelPart(label.path, name) for name, label in sorted(names.items()))
    return replace(source, label=chosen[0].path, label_parts=parts), rows


def _read_class_names(label: Path) -> list[tuple[int, str]]:
    """Returns the values and names in the table next to a dseg, or in a dseg.tsv in a folder above it."""
    tables = [label.with_name(f"{image_stem(label)}.tsv"), *(folder / "dseg.tsv" for folder in label.parents[:5])]
    for table in tables:
        rows = read_rows(table) if table.is_file() else []
        if rows and {"index", "name"} <= rows[0].keys() and all(row["index"].isdigit() for row in rows):
            return [(int(row["index"]), row["name"]) for row in rows if int(row["index"]) > 0]
    return []


def _make_source(scan: BidsFile) -> Source:
    name = image_stem(scan.path)
    modality = {"ct": "CT", "pet": "PT"}.get(scan.kind) or parse_modality(scan.suffix) or "MR"
    return Source(name, f"sub-{scan.subject}", (scan.path,), (modality,), patient_from="BIDS subjects")
