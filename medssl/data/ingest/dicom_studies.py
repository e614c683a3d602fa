"""Groups DICOM files into cases, each with the structures that were drawn on it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.data.ingest.select_volumes import describe_selection, select_volumes
from medssl.data.ingest.source import Source, find_common_folder, make_pseudonym
from medssl.errors import BadInput, Message
from medssl.io.dicom import annotations, reader
from medssl.io.dicom.annotations import Annotation
from medssl.io.rejected import RejectedFiles

VENDORS = (
    "Siemens", "GE", "Philips", "Canon", "Toshiba", "Hitachi", "Fujifilm", "United Imaging", "UIH", "Shimadzu",
    "Varian", "Hologic", "Esaote", "Neusoft", "Samsung", "Mediso", "CTI", "Bruker",
)  # fmt: skip


@dataclass(frozen=True)
class DicomStudies:
    """The DICOM series of a folder.

    Attributes:
        sources: One case per series.
        rows: A ledger row for each file that is not part of a case.
        labels: Class number to the name of a structure.
        present_labels: Case to the classes that were drawn in it.
        notes: What the terminal shows about the series.
    """

    sources: list[Source] = field(default_factory=list)
    rows: list[LedgerRow] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    present_labels: dict[str, list[int]] = field(default_factory=dict)
    notes: list[Message] = field(default_factory=list)


def discover_series(files: Sequence[Path], allow_gaps: bool, select: str = "auto") -> DicomStudies:
    """Groups DICOM files by series; reads headers only.

    The classes are numbered in the alphabetical order of the names of all structures.

    Args:
        files: All files that are not image files.
        allow_gaps: Accept series with missing slices.
        select: Which volumes of a series become cases, see `select_volumes`.
    """
    studies = DicomStudies()
    volumes_of: dict[str, list[reader.Series]] = {}
    cases_of_series: dict[str, list[int]] = {}
    drawings: list[Annotation] = []
    for item in reader.read(files, allow_gaps) if files else ():
        if isinstance(item, RejectedFiles):
            if annotation := _read_annotation(item):
                drawings.append(annotation)
            else:
                studies.rows.extend(rejected_rows(item.files, _rejection_reason(item)))
        else:
            volumes_of.setdefault(item.uid, []).append(item)
    for uid, volumes in volumes_of.items():
        selected, rows = select_volumes(volumes, select)
        cases_of_series[uid] = list(range(len(studies.sources), len(studies.sources) + len(selected)))
        studies.sources.extend(_make_source(series, volumes) for series in selected)
        studies.rows.extend(rows)
    studies.notes.extend(_describe_split_series(volumes_of, studies.sources))
    names = sorted({name for annotation in drawings for name in annotation.names})
    studies.labels.update(enumerate(names, 1))
    for annotation in drawings:
        _attach_annotation(studies, annotation, cases_of_series.get(annotation.series, []), names)
    return studies


def name_series(series: reader.Series) -> str:
    """Returns the name of a series: a pseudonym of its UID and, if one UID holds several volumes, of the volume."""
    return make_series_name(series.uid, series.sub_volume)


def make_series_name(uid: str, sub_volume: str) -> str:
    """Returns the name of a volume of a series, see `name_series`."""
    return make_pseudonym(f"{uid}{sub_volume}")


def describe_site(scanner: str) -> str:
    """Returns the vendor of a scanner, if it is a known one, and a pseudonym of the model, which is free text."""
    vendor = next((v for v in VENDORS if re.search(rf"\b{v}\b", scanner, re.IGNORECASE)), "unknown")
    return f"{vendor} {make_pseudonym(scanner)[:6]}" if scanner else ""


def _describe_split_series(volumes_of: Mapping[str, list[reader.Series]], sources: list[Source]) -> list[Message]:
    """Returns a line on the series that hold several volumes, if there are any."""
    counts = [len(volumes) for volumes in volumes_of.values() if len(volumes) > 1]
    num_selected = sum(bool(source.sub_volume) for source in sources)
    return [describe_selection(len(counts), sum(counts), num_selected)] if counts else []


def _make_source(series: reader.Series, volumes: Sequence[reader.Series]) -> Source:
    """Returns the case of one of the volumes of a series."""
    name = name_series(series)
    info = series.patient_info
    return Source(
        id=f"{series.modality}-{name}",
        patient=make_pseudonym(series.patient),
        images=series.files,
        modalities=(series.modality,),
        series=name,
        sub_volume=series.sub_volume,
        series_folder=find_common_folder([f for v in volumes for f in v.files]) if series.sub_volume else None,
        site=describe_site(info.scanner),
        age_years=info.age_years,
        sex=info.sex,
        date=info.date,
        burned_in=not set(series.warnings).isdisjoint(reader.BURNED_IN),
    )


def _read_annotation(item: RejectedFiles) -> Annotation | None:
    """Returns the structures of a file with contours or masks, else None."""
    try:
        return annotations.read(item.files[0]) if item.code == "annotation" else None
    except BadInput:
        return None


def _attach_annotation(studies: DicomStudies, annotation: Annotation, cases: list[int], names: list[str]) -> None:
    """Makes an annotation the label of its case, or refuses it.

    Args:
        studies: The cases.
        annotation: The structures.
        cases: Indices of the cases of its series.
        names: The names of all classes, in order from 1.
    """
    if len(cases) != 1:
        reason = Message("structures: the series that they were drawn on is not here")
        studies.rows.extend(rejected_rows([annotation.path], reason))
        return
    source = studies.sources[cases[0]]
    if source.label:
        reason = Message("structures: other structures of their series are used")
        studies.rows.extend(rejected_rows([annotation.path], reason))
        return
    classes = tuple(names.index(name) + 1 for name in annotation.names)
    studies.sources[cases[0]] = replace(source, label=annotation.path, classes=classes)
    studies.present_labels[source.id] = sorted(classes)


def _rejection_reason(item: RejectedFiles) -> Message:
    return Message("neither an image nor DICOM") if item.code == "not-dicom" else item.reason
