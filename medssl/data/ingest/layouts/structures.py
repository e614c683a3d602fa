"""Numbers the classes of labels whose structures have names: files of one structure, and segments of 3D Slicer."""

from dataclasses import replace

from medssl.data.ingest.layouts.dataset_layout import DatasetLayout
from medssl.errors import BadInput


def number_structures(layout: DatasetLayout) -> DatasetLayout:
    """Returns the layout with a class for each named structure, numbered in alphabetical order.

    A structure with the name of a class that the layout has already gets its number. Each case has as present classes
    those that it has structures of.

    Raises:
        BadInput: The folder also holds labels whose classes have numbers but no names.
    """
    names = sorted({part.name for source in layout.sources for part in source.label_parts})
    if not names:
        return layout
    numbers = {name: number for number, name in layout.labels.items()}
    if unnamed := [s.id for s in layout.sources if s.label and not s.label_parts and not s.classes and not s.series]:
        raise BadInput(
            f"{unnamed[0]}: its label has numbers without names, other labels have named structures ({names[0]}); "
            "ingest the two kinds into separate stores"
        )
    for name in names:
        numbers.setdefault(name, max(numbers.values(), default=0) + 1)
    sources, present = [], dict(layout.present_labels)
    for source in layout.sources:
        classes = tuple(numbers[part.name] for part in source.label_parts) or source.classes
        sources.append(replace(source, classes=classes))
        if source.label_parts:
            present[source.id] = sorted(set(classes))
    labels = {number: name for name, number in sorted(numbers.items(), key=lambda item: item[1])}
    return replace(layout, sources=sources, labels=labels, present_labels=present)
