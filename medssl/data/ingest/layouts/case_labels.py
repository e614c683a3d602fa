"""Labels whole scans by a table of cases or patients, for the classification task."""

from dataclasses import replace
from pathlib import Path

from medssl.data.case_tables import read_case_column
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout
from medssl.errors import BadInput, list_names

NO_CLASS = ("", "0")  # labels of a scan that holds none of the classes


def label_whole_scans(layout: DatasetLayout, table: Path) -> DatasetLayout:
    """Returns the layout with the class of each scan in the table, numbered in alphabetical order.

    Args:
        layout: Cases without labels of their own.
        table: A CSV with the columns `label` and `case`, or `label` and `patient`.

    Raises:
        BadInput: The table is not one of labels, names a case twice, an unknown one, or has one label only; or a case
            has a label that was drawn.
    """
    if labelled := [source for source in layout.sources if source.label]:
        raise BadInput(
            f"{labelled[0].id}: has a label that was drawn, and {table} labels whole scans; choose the images alone"
            " with --image"
        )
    column, label_of = _read_table(table)
    key_of = {source.id: source.id if column == "case" else source.patient for source in layout.sources}
    _require_known(table, column, set(label_of) - set(key_of.values()))
    names = sorted({label for label in label_of.values() if label not in NO_CLASS})
    number_of = {name: number for number, name in enumerate(names, 1)} | dict.fromkeys(NO_CLASS, 0)

    sources = [
        replace(source, whole_class=number_of[label_of[key]]) if (key := key_of[source.id]) in label_of else source
        for source in layout.sources
    ]
    return replace(layout, sources=sources, labels=dict(enumerate(names, 1)), regions={})


def _read_table(table: Path) -> tuple[str, dict[str, str]]:
    """Returns the column that names the scans, `case` or `patient`, and the label by that name."""
    column, label_of = read_case_column(table, "label", ("case", "patient"))
    labels = set(label_of.values())
    if len(labels - set(NO_CLASS)) + bool(labels & set(NO_CLASS)) < 2:
        raise BadInput(
            f"{table}: all {len(label_of)} rows have the label {min(labels)!r}; a classification needs two different"
            " ones, of which an empty one stands for none of the classes"
        )
    return column, label_of


def _require_known(table: Path, column: str, unknown: set[str]) -> None:
    """Raises BadInput if the table names cases or patients that are not among the scans."""
    if unknown:
        raise BadInput(
            f"{table}: no scan has the {column} {list_names(sorted(unknown))}; `medssl ingest SCANS --dry-run` prints"
            " the names"
        )
