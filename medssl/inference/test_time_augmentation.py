"""Test-time augmentation by mirroring: the allowed views of a volume, and their inverse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from medssl.data.classes import Classes


@dataclass(frozen=True)
class MirrorView:
    """A volume in RAS axes i j k, mirrored along some of them.

    Args:
        axes: The mirrored axes, 0 to 2; () is the identity.
        classes: The class that each class becomes in the mirror; () if none changes.
    """

    axes: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()

    def apply(self, voxels: Float[np.ndarray, "*c i j k"]) -> Float[np.ndarray, "*c i j k"]:
        """Mirrors voxels."""
        return np.flip(voxels, tuple(axis - 3 for axis in self.axes))

    def source_rows(self, top: int, count: int, height: int) -> slice:
        """Returns the rows of the original volume, of `height` rows, that `count` mirrored rows from `top` on show."""
        start = height - top - count if 0 in self.axes else top
        return slice(start, start + count)

    def invert(self, probability: Float[Tensor, "n p j k"]) -> Float[Tensor, "n p j k"]:
        """Maps class probabilities of mirrored rows back to the original volume."""
        renamed = probability[list(self.classes)] if self.classes else probability
        return renamed.flip([axis - 3 for axis in self.axes])


def mirror_views(axes: Sequence[int], names: Mapping[int, str]) -> tuple[MirrorView, ...]:
    """Returns the identity and all views mirrored along some of `axes`.

    If class names distinguish left from right, mirroring along i swaps each class with its counterpart. If a class has
    no counterpart, axis i is never mirrored.

    Args:
        axes: The axes that may be mirrored, 0 to 2.
        names: The class names by label value, without background.
    """
    pairs = Classes(names).find_left_right_pairs()
    allowed = [axis for axis in sorted(set(axes)) if axis != 0 or pairs is not None]
    counterpart = {a: b for pair in pairs or () for a, b in (pair, pair[::-1])}
    classes = tuple(counterpart.get(n, n) for n in range(max(names) + 1)) if counterpart else ()
    subsets = [subset for count in range(len(allowed) + 1) for subset in combinations(allowed, count)]
    return tuple(MirrorView(subset, classes if 0 in subset else ()) for subset in subsets)
