"""Mirrored views of a volume: which are allowed, and how what a network says of one is turned back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

SIDES = {"left": "right", "l": "r", "lt": "rt", "lft": "rgt", "lh": "rh"}
OTHER = SIDES | {right: left for left, right in SIDES.items()}


@dataclass(frozen=True)
class View:
    """A volume (axes i j k of RAS) mirrored along some axes; `classes` says which class each one is in the mirror."""

    axes: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()

    def of(self, voxels: Float[np.ndarray, "*c i j k"]) -> Float[np.ndarray, "*c i j k"]:
        """The voxels as they look in the mirror."""
        return np.flip(voxels, tuple(axis - 3 for axis in self.axes))

    def rows(self, top: int, count: int, height: int) -> slice:
        """Where `count` rows of the mirrored volume from `top` on belong in the volume, of `height` rows."""
        start = height - top - count if 0 in self.axes else top
        return slice(start, start + count)

    def back(self, said: Float[Tensor, "n p j k"]) -> Float[Tensor, "n p j k"]:
        """What was said of the mirrored rows, as it stands in the volume."""
        named = said[list(self.classes)] if self.classes and 0 in self.axes else said
        return named.flip([axis - 3 for axis in self.axes])


def views(axes: Sequence[int], names: Mapping[int, str]) -> tuple[View, ...]:
    """The volume and all its mirrorings along `axes`.

    Where a name tells left from right, the mirror along axis i gives each class the name of its counterpart; where one
    has no counterpart, that axis is never mirrored.
    """
    classes = counterparts(names)
    allowed = [axis for axis in sorted(set(axes)) if axis != 0 or classes is not None]
    chosen = [some for count in range(len(allowed) + 1) for some in combinations(allowed, count)]
    return tuple(View(some, (classes or ()) if 0 in some else ()) for some in chosen)


def counterparts(names: Mapping[int, str]) -> tuple[int, ...] | None:
    """Of every class, background first, the one it is in a left-right mirror; None where a sided one lacks its pair."""
    number = {_words(name): value for value, name in names.items()}
    paired = {value: number.get(tuple(OTHER.get(word, word) for word in words)) for words, value in number.items()}
    if None in paired.values():
        return None
    return tuple(paired.get(value) or value for value in range(max(names, default=0) + 1))


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))
