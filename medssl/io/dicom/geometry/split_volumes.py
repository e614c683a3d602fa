"""Splits a series that holds several volumes (echoes, b-values, time points) by its tags."""

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np

from medssl.errors import Message
from medssl.io.dicom.frames import VOLUME_TAGS, Frame
from medssl.io.rejected import ReadRejected

# These tags may not change within one volume; if they do, two volumes are interleaved.
CONSTANT = ("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ConvolutionKernel", "Units", "RescaleType")
SAME_POSITION_MM, SAME_AXES = 0.01, 2e-3
Volumes = list[tuple[str, tuple[Frame, ...]]]


def split_into_volumes(frames: Sequence[Frame]) -> Volumes:
    """Returns the volumes of a series, each with the tags that distinguish it ("" if there is only one)."""
    places = _number_positions(frames)
    num_positions = max(places) + 1
    volumes = [("", tuple(frames))] if num_positions == len(frames) else _split_repeated(frames, places, num_positions)
    for _, part in volumes:
        _check_constant(part)
    return volumes


def _split_repeated(frames: Sequence[Frame], places: Sequence[int], num_positions: int) -> Volumes:
    """Splits slices of which several lie at one position, so that each volume has every position exactly once."""
    if len(frames) % num_positions == 0:
        groups = _group_by_tags(frames, places, num_positions) or _group_by_number(frames, places, num_positions)
        if groups:
            return [(name, tuple(frames[n] for n in group)) for name, group in groups]
    raise ReadRejected(
        "duplicates",
        Message(
            "several slices lie at one position, and no tag distinguishes them: {slices}; {num_slices} slices at "
            "{num_positions} positions, if it is a 4D series, export each of its volumes as a series of its own",
            slices=_describe_repeats(frames, places),
            num_slices=len(frames),
            num_positions=num_positions,
        ),
    )


def _group_by_tags(
    frames: Sequence[Frame], places: Sequence[int], num_positions: int
) -> list[tuple[str, list[int]]] | None:
    """Groups the slices by one tag, or by two, so that each group has every position once; None if none does."""
    values = {name: [frame.volume_tags.get(name, "none") for frame in frames] for name in VOLUME_TAGS}
    keys = {name: [normalize_value(value) for value in values[name]] for name in VOLUME_TAGS}
    changing = [name for name in VOLUME_TAGS if len(set(keys[name])) > 1]
    for names in (*((name,) for name in changing), *combinations(changing, 2)):
        key_of_frame = list(zip(*(keys[name] for name in names), strict=True))
        if len(set(key_of_frame)) * num_positions != len(frames):
            continue
        groups: dict[tuple[str, ...], list[int]] = {}
        for n, key in enumerate(key_of_frame):
            groups.setdefault(key, []).append(n)
        if all(len({places[n] for n in group}) == len(group) == num_positions for group in groups.values()):
            firsts = {key: tuple(values[name][groups[key][0]] for name in names) for key in groups}
            order = sorted(groups, key=lambda key: _numeric_sort_key(firsts[key]))
            return [(_format_tags(names, firsts[key]), groups[key]) for key in order]
    return None


def _group_by_number(
    frames: Sequence[Frame], places: Sequence[int], num_positions: int
) -> list[tuple[str, list[int]]] | None:
    """Groups the slices by InstanceNumber, which counts through each volume, or through the volumes at each position.

    Returns:
        The groups; None if numbers are missing or repeated, or if the positions do not recur in one order.
    """
    numbers = [frame.number for frame in frames]
    if None in numbers or len(set(numbers)) < len(numbers):
        return None
    order = np.array(sorted(range(len(frames)), key=lambda n: numbers[n] or 0))
    table = np.array(places)[order].reshape(-1, num_positions)  # one volume a row
    if (table == table[0]).all() and len(set(table[0])) == num_positions:
        rows = order.reshape(-1, num_positions)
    else:
        table = np.array(places)[order].reshape(num_positions, -1)  # one position a row
        if (table != table[:, :1]).any() or len(set(table[:, 0])) < num_positions:
            return None
        rows = order.reshape(num_positions, -1).T
    return [(f"InstanceNumber from {numbers[row[0]]}", [int(n) for n in row]) for row in rows]


def normalize_value(value: str) -> str:
    """Returns the value of a tag so that equal numbers are equal texts: "98" and "98.0" become one."""
    try:
        return "\\".join(f"{float(part):.12g}" for part in value.split("\\"))
    except ValueError:
        return value


def _check_constant(part: Sequence[Frame]) -> None:
    """Rejects a volume within which a tag changes that must be constant."""
    names = (*CONSTANT, "ImageType", "FrameType") if part[0].series_key.modality == "MR" else CONSTANT
    for name in names:
        texts = dict.fromkeys(frame.volume_tags.get(name, "none") for frame in part)
        values = {normalize_value(text): text for text in texts}
        if len(values) > 1:
            raise ReadRejected(
                "mixed",
                Message(
                    "{name} changes from slice to slice ({values}), so several volumes are mixed; export each of them "
                    "as a series of its own",
                    name=name,
                    values=", ".join(sorted(values.values())[:4]),
                ),
            )


def _number_positions(frames: Sequence[Frame]) -> list[int]:
    """Returns the number of each slice's position; slices within 0.01 mm of each other share one."""
    positions = np.sort([frame.position for frame in frames], axis=0)
    if len(frames) > 1 and (np.diff(positions, axis=0).min(axis=0) > 2 * SAME_POSITION_MM).any():
        return list(range(len(frames)))  # all differ along one axis, as in most series
    numbers: list[int] = []
    cells: dict[tuple[int, ...], list[tuple[int, Frame]]] = {}
    total = 0
    for frame in frames:
        cell = tuple(int(mm // (4 * SAME_POSITION_MM)) for mm in frame.position)
        near = {tuple(int((mm + shift) // (4 * SAME_POSITION_MM)) for mm in frame.position)
                for shift in (-SAME_POSITION_MM, SAME_POSITION_MM)}  # fmt: skip
        neighbours = _list_cells(near) if len(near | {cell}) > 1 else [cell]
        number = next((n for c in neighbours for n, other in cells.get(c, ()) if _is_same_place(frame, other)), total)
        if number == total:
            cells.setdefault(cell, []).append((total, frame))
            total += 1
        numbers.append(number)
    return numbers


def _list_cells(corners: set[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Returns the cells of the box around some cells."""
    return list(product(*(range(min(indices), max(indices) + 1) for indices in zip(*corners, strict=True))))


def _is_same_place(a: Frame, b: Frame) -> bool:
    """Returns whether two slices have one position and one orientation."""
    return (
        max(abs(p - q) for p, q in zip(a.position, b.position, strict=True)) <= SAME_POSITION_MM
        and max(abs(p - q) for p, q in zip(a.axes, b.axes, strict=True)) <= SAME_AXES
    )


def _format_tags(names: tuple[str, ...], key: tuple[str, ...]) -> str:
    """Joins names and values of tags."""
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))


def _numeric_sort_key(key: tuple[str, ...]) -> list[tuple[float, str]]:
    """Sorts the values of tags as numbers where they are numbers."""
    return [(float(value) if value.replace(".", "", 1).isdigit() else -1.0, value) for value in key]


def _describe_repeats(frames: Sequence[Frame], places: Sequence[int]) -> str:
    """Lists the first positions with more than one slice, in mm."""
    counts = np.bincount(places)
    repeated = [frames[places.index(number)].position for number in np.flatnonzero(counts > 1)[:4]]
    listed = "; ".join(", ".join(f"{mm:.2f}" for mm in position) for position in repeated)
    return f"({listed}) mm" + (f" and {(counts > 1).sum() - 4} more" if (counts > 1).sum() > 4 else "")
