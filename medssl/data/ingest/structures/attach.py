"""Makes the structures of RTSTRUCT and SEG files the labels of the series that they were drawn on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.data.ingest.source import Source
from medssl.data.ingest.structures.structure_map import StructureMap
from medssl.errors import Message
from medssl.io.dicom.annotations import Annotation
from medssl.io.dicom.reader import Series


@runtime_checkable
class Labelled(Protocol):
    """Cases with class names and the classes that were drawn in each."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def sources(self) -> list[Source]:
        """The cases."""

    @property
    def labels(self) -> dict[int, str]:
        """Class number to name."""

    @property
    def present_labels(self) -> dict[str, list[int]]:
        """Case to the classes that were drawn in it."""


L = TypeVar("L", bound=Labelled)


@dataclass(frozen=True)
class LabelledSources:
    """The cases with their labels.

    Attributes:
        sources: The cases; those with structures have a label.
        labels: Class number to name.
        present_labels: Case to the classes that were drawn in it.
        rows: A ledger row for each annotation that belongs to no case.
    """

    sources: list[Source]
    labels: dict[int, str]
    present_labels: dict[str, list[int]]
    rows: list[LedgerRow]


def attach_structures(
    sources: Sequence[Source], volumes: Sequence[Series], drawings: Sequence[Annotation], chosen: StructureMap
) -> LabelledSources:
    """Unites the annotations of each series as the label of its case; refuses the others with their reasons.

    Args:
        sources: The cases.
        volumes: The volume of each case.
        drawings: The annotations.
        chosen: Which structures become which classes.
    """
    rows: list[LedgerRow] = []
    drawings_of: dict[int, list[Annotation]] = {}
    for annotation in sorted(drawings, key=lambda a: a.path):
        case = _find_case(annotation, volumes)
        if isinstance(case, int):
            drawings_of.setdefault(case, []).append(annotation)
        else:
            rows.extend(_reject(annotation.path, case))
    class_of = {name: chosen.name_class(name) for group in drawings_of.values() for a in group for name in a.names}
    numbers = {name: n for n, name in enumerate(sorted({name for name in class_of.values() if name}), 1)}
    labelled, present_labels = list(sources), {}
    priority = chosen.rank_classes(numbers)
    for case, group in drawings_of.items():
        number_of = {name: numbers.get(class_name or "", 0) for name, class_name in class_of.items()}
        selected, present = _select_drawable(group, volumes[case], number_of)
        files = {path: classes for path, classes in selected.items() if not isinstance(classes, Message)}
        for path, reason in selected.items():
            rows.extend(_reject(path, reason) if isinstance(reason, Message) else [])
        if files:
            label, *others = files
            classes = tuple(value for values in files.values() for value in values)
            labelled[case] = replace(
                sources[case], label=label, annotations=tuple(others), classes=classes, priority=priority
            )
            present_labels[sources[case].id] = present
    return LabelledSources(labelled, {n: name for name, n in numbers.items()}, present_labels, rows)


def _select_drawable(
    group: Sequence[Annotation], volume: Series, number_of: Mapping[str, int]
) -> tuple[dict[Path, tuple[int, ...] | Message], list[int]]:
    """Finds which annotations of a series can be drawn.

    Args:
        group: The annotations of the series.
        volume: The series.
        number_of: Name of a structure to the number of its class; 0 if it is left out.

    Returns:
        For each file the classes of its structures, or why it is refused; and the classes that are drawn completely.
    """
    image = volume.empty_volume()
    selected: dict[Path, tuple[int, ...] | Message] = {}
    present: set[int] = set()
    incomplete: set[int] = set()
    for annotation in group:
        classes = tuple(number_of[name] for name in annotation.names)
        faults = {n: fault for n, s in enumerate(annotation.structures) if (fault := s.find_fault(image))}
        drawable = {value for n, value in enumerate(classes) if value and n not in faults}
        if not any(classes):
            selected[annotation.path] = Message("none of its structures is chosen by --structures")
        elif not drawable:
            selected[annotation.path] = _describe_faults(annotation, faults)
        else:
            selected[annotation.path] = classes
            present |= drawable
            incomplete.update(classes[n] for n in faults)
    return selected, sorted(present - incomplete)


def renumber_structures(cases: L, stored: Mapping[int, str]) -> L:
    """Gives the classes of structures the numbers that their names have in a store, and new names the next ones.

    Labels of whole scans are named as well. Nothing changes where a label holds numbers instead of names.

    Args:
        cases: The cases with their labels, a dataclass.
        stored: Number to name of the classes of the store.
    """
    labelled = [source for source in cases.sources if source.has_label]
    has_names = [source.series or source.label_parts or source.whole_class is not None for source in labelled]
    if not any(has_names) or not all(has_names):
        return cases
    stored_numbers = {name: number for number, name in stored.items()}
    new = [number for number, name in sorted(cases.labels.items()) if name not in stored_numbers]
    number_of = {0: 0, **{number: max(stored, default=0) + n for n, number in enumerate(new, 1)}}
    number_of |= {number: stored_numbers[name] for number, name in cases.labels.items() if name in stored_numbers}
    sources = [
        replace(
            source,
            classes=tuple(number_of[n] for n in source.classes),
            priority=tuple(number_of[n] for n in source.priority),
            whole_class=None if source.whole_class is None else number_of[source.whole_class],
        )
        for source in cases.sources
    ]
    present = {case: sorted(number_of[n] for n in numbers) for case, numbers in cases.present_labels.items()}
    labels = {number_of[number]: name for number, name in cases.labels.items()}
    changes: dict[str, Any] = {"sources": sources, "labels": dict(sorted(labels.items())), "present_labels": present}
    return replace(cases, **changes)


def _find_case(annotation: Annotation, volumes: Sequence[Series]) -> int | Message:
    """Returns the index of the only volume that an annotation was drawn on, or why there is none."""
    if annotation.series:
        cases = [n for n, volume in enumerate(volumes) if volume.uid == annotation.series]
        if not cases:
            return Message("structures: the series that they were drawn on is not here; add its images")
        if len(cases) > 1:
            return Message("structures of a series of {count} volumes; choose one with --select", count=len(cases))
        return cases[0]
    frame = annotation.frame_of_reference
    cases = [
        n for n, volume in enumerate(volumes)
        if frame and volume.frame_of_reference == frame
        and not any(s.find_fault(volume.empty_volume()) for s in annotation.structures)
    ]  # fmt: skip
    if len(cases) != 1:
        return Message(
            "structures without the name of their series, and {count} series have their frame of reference and their "
            "grid; add ReferencedSeriesSequence",
            count=len(cases),
        )
    return cases[0]


def _reject(path: Path, reason: Message) -> list[LedgerRow]:
    return rejected_rows([path], Message("{path.name}: {reason}", path=path, reason=reason))


def _describe_faults(annotation: Annotation, faults: Mapping[int, Message]) -> Message:
    """Returns the fault of the first structure that cannot be drawn."""
    number = min(faults)
    return Message(
        "{name!r}: {fault}; none of its {count} structures can be drawn",
        name=annotation.names[number],
        fault=faults[number],
        count=len(annotation.names),
    )
