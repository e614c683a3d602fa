"""Splits a series that holds several volumes (echoes, b-values, time points) by its tags."""

from collections.abc import Sequence
from itertools import combinations

from medssl.errors import Message
from medssl.io.dicom.frames import VOLUME_TAGS, Frame
from medssl.io.rejected import ReadRejected

# These tags may not change within one volume; if they do, two volumes are interleaved.
CONSTANT = ("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ConvolutionKernel", "Units", "RescaleType")


def split_into_volumes(frames: Sequence[Frame]) -> list[tuple[str, tuple[Frame, ...]]]:
    """Returns the volumes of a series, each with the tags that distinguish it ("" if there is only one)."""
    positions = {_position_key(frame) for frame in frames}
    volumes = [("", tuple(frames))] if len(positions) == len(frames) else _split_by_tags(frames, len(positions))
    for _, part in volumes:
        _check_constant(part)
    return volumes


def _split_by_tags(frames: Sequence[Frame], num_positions: int) -> list[tuple[str, tuple[Frame, ...]]]:
    """Groups the slices by one tag, or by two, so that each group has every position exactly once."""
    changing = [name for name in VOLUME_TAGS if len({frame.volume_tags.get(name) for frame in frames}) > 1]
    for names in (*((name,) for name in changing), *combinations(changing, 2)):
        groups: dict[tuple[str, ...], list[Frame]] = {}
        for frame in frames:
            groups.setdefault(tuple(frame.volume_tags.get(name, "none") for name in names), []).append(frame)
        if all(len(group) == num_positions == len({_position_key(f) for f in group}) for group in groups.values()):
            return [(_format_tags(names, key), tuple(groups[key])) for key in sorted(groups, key=_numeric_sort_key)]
    raise ReadRejected(
        "duplicates",
        Message(
            "several slices lie at one position, and no tag distinguishes them: {slices}",
            slices=_describe_repeats(frames),
        ),
    )


def _check_constant(part: Sequence[Frame]) -> None:
    """Rejects a volume within which a tag changes that must be constant."""
    names = (*CONSTANT, "ImageType", "FrameType") if part[0].series_key.modality == "MR" else CONSTANT
    for name in names:
        values = sorted({frame.volume_tags.get(name, "none") for frame in part})
        if len(values) > 1:
            raise ReadRejected(
                "mixed",
                Message(
                    "{name} changes from slice to slice ({values}), so several volumes are mixed",
                    name=name,
                    values=", ".join(values[:4]),
                ),
            )


def _position_key(frame: Frame) -> tuple[float, ...]:
    """Returns the position and orientation of a slice, rounded to 0.01 mm."""
    return tuple(round(mm, 2) for mm in (*frame.position, *frame.axes))


def _format_tags(names: tuple[str, ...], key: tuple[str, ...]) -> str:
    """Joins names and values of tags."""
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))


def _numeric_sort_key(key: tuple[str, ...]) -> list[tuple[float, str]]:
    """Sorts the values of tags as numbers where they are numbers."""
    return [(float(value) if value.replace(".", "", 1).isdigit() else -1.0, value) for value in key]


def _describe_repeats(frames: Sequence[Frame]) -> str:
    """Lists the first positions with more than one slice, in mm."""
    counts: dict[tuple[float, ...], int] = {}
    for frame in frames:
        counts[frame.position] = counts.get(frame.position, 0) + 1
    repeated = [position for position, count in counts.items() if count > 1]
    listed = "; ".join(", ".join(f"{mm:.2f}" for mm in position) for position in repeated[:4])
    return f"({listed}) mm" + (f" and {len(repeated) - 4} more" if len(repeated) > 4 else "")
