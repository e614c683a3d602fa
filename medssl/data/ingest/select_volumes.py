"""Chooses which volumes of a series become cases: echoes, phases, time points or b-values under one series UID."""

from collections.abc import Sequence

from medssl.data.ingest.file_ledger import LedgerRow, rejected_rows
from medssl.errors import Message
from medssl.io.dicom.reader import Series

MAX_VOLUMES = 8  # `auto` takes every volume of a series of at most as many, and the first of a longer (dynamic) one
PUBLIC_SELECTIONS = {"auto": Message("auto"), "first": Message("first")}  # a tag's value may be private


def select_volumes(volumes: Sequence[Series], select: str) -> tuple[list[Series], list[LedgerRow]]:
    """Returns the volumes of one series that become cases, and a ledger row for each file of the others.

    Args:
        volumes: All volumes of the series, in order.
        select: auto, all, first, or the value of a tag, such as EchoTime=80.
    """
    if select == "all" or len(volumes) == 1 or (select == "auto" and len(volumes) <= MAX_VOLUMES):
        return list(volumes), []
    is_first = select in ("auto", "first")
    is_selected = [n == 0 if is_first else _has_tag(volume, select) for n, volume in enumerate(volumes)]
    accounted = {file for volume, chosen in zip(volumes, is_selected, strict=True) if chosen for file in volume.files}
    rows = []
    for volume in volumes:
        reason = Message(
            "{tags}: one of {count} volumes of its series, not chosen by --select {select}; "
            "--select all takes every volume",
            tags=volume.sub_volume,
            count=len(volumes),
            select=PUBLIC_SELECTIONS.get(select, select),
        )
        rows.extend(rejected_rows([file for file in volume.files if file not in accounted], reason))
        accounted.update(volume.files)
    return [volume for volume, chosen in zip(volumes, is_selected, strict=True) if chosen], rows


def describe_selection(num_series: int, num_volumes: int, num_selected: int) -> Message:
    """Returns the line for the terminal on series of several volumes."""
    return Message(
        "{num_series} DICOM series hold {num_volumes} volumes (echoes, phases, times or b-values), of which "
        "{num_selected} became cases; --select all, first or TAG=VALUE chooses others",
        num_series=num_series,
        num_volumes=num_volumes,
        num_selected=num_selected,
    )


def _has_tag(volume: Series, select: str) -> bool:
    name, _, value = select.partition("=")
    return any(_is_same(tag, name, value) for tag in volume.sub_volume.split(", "))


def _is_same(tag: str, name: str, value: str) -> bool:
    """Whether a tag such as "EchoTime 80" has this name and value; numbers are compared as numbers."""
    tag_name, _, tag_value = tag.partition(" ")
    try:
        return tag_name == name and float(tag_value) == float(value)
    except ValueError:
        return tag_name == name and tag_value == value
