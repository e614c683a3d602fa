"""Mirrored views of a volume: which are allowed, and how what a network says of one is turned back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from medssl.data.classes import Classes


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
        named = said[list(self.classes)] if self.classes else said
        return named.flip([axis - 3 for axis in self.axes])


def views(axes: Sequence[int], names: Mapping[int, str]) -> tuple[View, ...]:
    """The volume and all its mirrorings along `axes`.

    Where a name tells left from right, the mirror along axis i gives each class the name of its counterpart; where one
    has no counterpart, that axis is never mirrored.
    """
    pairs = Classes(names).mirrored()
    allowed = [axis for axis in sorted(set(axes)) if axis != 0 or pairs is not None]
    other = {a: b for pair in pairs or () for a, b in (pair, pair[::-1])}
    classes = tuple(other.get(n, n) for n in range(max(names) + 1)) if other else ()
    chosen = [some for count in range(len(allowed) + 1) for some in combinations(allowed, count)]
    return tuple(View(some, classes if 0 in some else ()) for some in chosen)
