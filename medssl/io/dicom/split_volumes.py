"""Parts: a series that holds several volumes (echoes, b-values, times) taken apart by its tags."""

from collections.abc import Sequence
from itertools import combinations

from medssl.io.dicom.frames import MARKS, Frame
from medssl.io.rejected import Refusal

# These may not change within one volume: where they do, two volumes were laid into each other.
CONSTANT = ("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "ConvolutionKernel", "Units", "RescaleType")


def parts(frames: Sequence[Frame]) -> list[tuple[str, tuple[Frame, ...]]]:
    """The volumes of a series, each with the tags that tell it apart ("" for the only one)."""
    places = {_place(frame) for frame in frames}
    found = [("", tuple(frames))] if len(places) == len(frames) else _split(frames, len(places))
    for _, part in found:
        _check_constant(part)
    return found


def _split(frames: Sequence[Frame], places: int) -> list[tuple[str, tuple[Frame, ...]]]:
    """Groups by one tag, or by two, such that each group has every place exactly once."""
    changing = [name for name in MARKS if len({frame.marks.get(name) for frame in frames}) > 1]
    for names in (*((name,) for name in changing), *combinations(changing, 2)):
        groups: dict[tuple[str, ...], list[Frame]] = {}
        for frame in frames:
            groups.setdefault(tuple(frame.marks.get(name, "none") for name in names), []).append(frame)
        if all(len(group) == places == len({_place(f) for f in group}) for group in groups.values()):
            return [(_told(names, key), tuple(groups[key])) for key in sorted(groups, key=_by_number)]
    raise Refusal("duplicates", f"several slices at one place, and no tag tells them apart: {_repeated(frames)}")


def _check_constant(part: Sequence[Frame]) -> None:
    names = (*CONSTANT, "ImageType", "FrameType") if part[0].origin.modality == "MR" else CONSTANT
    for name in names:
        values = sorted({frame.marks.get(name, "none") for frame in part})
        if len(values) > 1:
            raise Refusal(
                "mixed", f"{name} changes from slice to slice ({', '.join(values[:4])}): several volumes in one"
            )


def _place(frame: Frame) -> tuple[float, ...]:
    return tuple(round(mm, 2) for mm in (*frame.position, *frame.axes))


def _told(names: tuple[str, ...], key: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))


def _by_number(key: tuple[str, ...]) -> list[tuple[float, str]]:
    return [(float(value) if value.replace(".", "", 1).isdigit() else -1.0, value) for value in key]


def _repeated(frames: Sequence[Frame]) -> str:
    seen: dict[tuple[float, ...], int] = {}
    for frame in frames:
        seen[frame.position] = seen.get(frame.position, 0) + 1
    twice = [place for place, count in seen.items() if count > 1]
    told = "; ".join(", ".join(f"{mm:.2f}" for mm in place) for place in twice[:4])
    return f"({told}) mm" + (f" and {len(twice) - 4} more" if len(twice) > 4 else "")
