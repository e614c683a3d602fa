"""Groups DICOM files into cases, each with the structures that were drawn on it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.data.ingest.select_volumes import describe_selection, select_volumes
from medssl.data.ingest.source import Source, find_common_folder, make_pseudonym
from medssl.data.ingest.structures.attach import attach_structures
from medssl.data.ingest.structures.structure_map import StructureMap
from medssl.errors import BadInput, Message
from medssl.io import images
from medssl.io.dicom import annotations, reader
from medssl.io.dicom.annotations import Annotation
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.io.dicom.series_files import BURNED_IN
from medssl.io.rejected import RejectedFiles

KEEP_ALL = StructureMap()
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


def discover_series(
    files: Sequence[Path],
    allow_gaps: bool,
    select: str = "auto",
    structures: StructureMap = KEEP_ALL,
    memory: HeaderMemory | None = None,
) -> DicomStudies:
    """Groups DICOM files by series; reads headers only.

    The classes are numbered in the alphabetical order of their names.

    Args:
        files: All files that are not image files.
        allow_gaps: Accept series with missing slices.
        select: Which volumes of a series become cases, see `select_volumes`.
        structures: Which structures become which classes.
        memory: The headers that an earlier run has read.
    """
    studies = DicomStudies()
    volumes_of: dict[str, list[reader.Series]] = {}
    drawings: list[Annotation] = []
    for item in reader.read(files, allow_gaps, memory=memory) if files else ():
        if isinstance(item, reader.Series):
            volumes_of.setdefault(item.uid, []).append(item)
        elif item.code == "not-dicom" and images.is_nifti(item.files[0]):
            continue  # an image in an archive, which is a case of its own
        elif item.code != "annotation":
            studies.rows.extend(rejected_rows(item.files, _rejection_reason(item)))
        else:
            try:
                drawings.append(annotations.read(item.files[0]))
            except BadInput as error:
                studies.rows.extend(rejected_rows(item.files, error.message))
    volumes: list[reader.Series] = []
    for uid in volumes_of:
        selected, rows = select_volumes(volumes_of[uid], select)
        volumes.extend(selected)
        studies.sources.extend(_make_source(series, volumes_of[uid]) for series in selected)
        studies.rows.extend(rows)
    studies.notes.extend(_describe_split_series(volumes_of, studies.sources))
    attached = attach_structures(studies.sources, volumes, drawings, structures)
    studies.rows.extend(attached.rows)
    return replace(studies, **{name: getattr(attached, name) for name in ("sources", "labels", "present_labels")})


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
        warnings=series.missing,
        burned_in=not set(series.warnings).isdisjoint(BURNED_IN),
    )


def _rejection_reason(item: RejectedFiles) -> Message:
    if item.code != "not-dicom":
        return item.reason
    if images.is_image(item.files[0]):
        return Message("an image in an archive; unpack the archive")
    return Message("neither an image nor DICOM")
