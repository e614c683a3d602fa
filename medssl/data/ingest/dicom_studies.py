"""Studies: DICOM files sorted into cases, each with the structures that were drawn on it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl.data.ingest.file_ledger import Row, refused
from medssl.data.ingest.source import Source, pseudonym
from medssl.errors import BadInput
from medssl.io.dicom import annotations as labels
from medssl.io.dicom import reader as dicom
from medssl.io.dicom.annotations import Annotation
from medssl.io.rejected import Refused

VENDORS = (
    "Siemens", "GE", "Philips", "Canon", "Toshiba", "Hitachi", "Fujifilm", "United Imaging", "UIH", "Shimadzu",
    "Varian", "Hologic", "Esaote", "Neusoft", "Samsung", "Mediso", "CTI", "Bruker",
)  # fmt: skip


@dataclass(frozen=True)
class Studies:
    """A case a series, ledger rows of the files that belong to none, the class names, and who has which class."""

    sources: list[Source] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    present: dict[str, list[int]] = field(default_factory=dict)


def find(files: Sequence[Path], allow_gaps: bool) -> Studies:
    """Reads the headers of DICOM files; the names of all structures, in order, number the classes."""
    found = Studies()
    of_series: dict[str, list[int]] = {}
    drawn: list[Annotation] = []
    for item in dicom.read(files, allow_gaps) if files else ():
        if isinstance(item, Refused):
            annotation = _annotation(item)
            drawn.extend([annotation] if annotation else [])
            found.rows.extend([] if annotation else refused(item.files, _reason(item)))
        else:
            of_series.setdefault(item.uid, []).append(len(found.sources))
            found.sources.append(_source(item))
    names = sorted({name for annotation in drawn for name in annotation.names})
    found.labels.update(enumerate(names, 1))
    for annotation in drawn:
        _attach(found, annotation, of_series.get(annotation.series, []), names)
    return found


def series_name(series: dicom.Series) -> str:
    """What a series is called outside: a pseudonym of its UID, and of its part where one UID holds several volumes."""
    return pseudonym(f"{series.uid}{series.part}")


def _source(item: dicom.Series) -> Source:
    series = series_name(item)
    name, patient = f"{item.modality}-{series}", pseudonym(item.patient)
    burned = not set(item.doubts).isdisjoint(dicom.BURNED_IN)
    person = item.person
    return Source(
        name, patient, item.files, (item.modality,), series=series, burned_in=burned, site=site(person.scanner),
        age_years=person.age_years, sex=person.sex, date=person.date,
    )  # fmt: skip


def site(scanner: str) -> str:
    """The vendor, as far as it is a known one, and a pseudonym of the model: free text may hold anything."""
    vendor = next((v for v in VENDORS if re.search(rf"\b{v}\b", scanner, re.IGNORECASE)), "unknown")
    return f"{vendor} {pseudonym(scanner)[:6]}" if scanner else ""


def _annotation(item: Refused) -> Annotation | None:
    """The structures of a file that holds no image but contours or masks."""
    try:
        return labels.read(item.files[0]) if item.code == "annotation" else None
    except BadInput:
        return None


def _attach(found: Studies, annotation: Annotation, at: list[int], names: list[str]) -> None:
    if len(at) != 1 or found.sources[at[0]].label:
        why = "other structures of its series are used" if len(at) == 1 else "it was drawn on a series that is not here"
        found.rows.extend(refused([annotation.path], f"structures: {why}"))
        return
    classes = tuple(names.index(name) + 1 for name in annotation.names)
    found.sources[at[0]] = replace(found.sources[at[0]], label=annotation.path, classes=classes)
    found.present[found.sources[at[0]].id] = sorted(classes)


def _reason(item: Refused) -> str:
    return "neither an image nor DICOM" if item.code == "not-dicom" else item.reason
