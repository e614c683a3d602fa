"""Labels whole scans by a table of cases or patients, for the classification task."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

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
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            rows = [{key: (row[key] or "").strip() for key in row if key} for row in csv.DictReader(handle)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: not a table ({error}); give a CSV with the columns case and label") from None
    columns = list(rows[0]) if rows else []
    column = next((name for name in ("case", "patient") if name in columns), "")
    if not column or "label" not in columns:
        raise BadInput(
            f"{table}: has {'the columns ' + ', '.join(columns) if columns else 'no row'}; give a row for each scan,"
            " with the columns case (or patient) and label"
        )
    repeated = [name for name, count in Counter(row[column] for row in rows).items() if count > 1]
    if repeated:
        raise BadInput(f"{table}: {column} {list_names(repeated)} stands in several rows; give each one row")
    labels = {row["label"] for row in rows}
    if len(labels - set(NO_CLASS)) + bool(labels & set(NO_CLASS)) < 2:
        raise BadInput(
            f"{table}: all {len(rows)} rows have the label {min(labels)!r}; a classification needs two different ones,"
            " of which an empty one stands for none of the classes"
        )
    return column, {row[column]: row["label"] for row in rows}


def _require_known(table: Path, column: str, unknown: set[str]) -> None:
    """Raises BadInput if the table names cases or patients that are not among the scans."""
    if unknown:
        raise BadInput(
            f"{table}: no scan has the {column} {list_names(sorted(unknown))}; `medssl ingest SCANS --dry-run` prints"
            " the names"
        )
