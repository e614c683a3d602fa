"""Test-time augmentation by mirroring: the allowed views of a volume, and their inverse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

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

    def restore(self, slab: Float[np.ndarray, "n w u v"], axis: int) -> Float[np.ndarray, "n w u v"]:
        """Maps a slab of class probabilities back to the original volume.

        Args:
            slab: Mirrored rows that were streamed along an axis, in the order of the original rows.
            axis: This axis, 0 to 2.
        """
        renamed = slab[list(self.classes)] if self.classes else slab
        plane = [n for n in range(3) if n != axis]
        return np.flip(renamed, tuple(2 + plane.index(mirrored) for mirrored in self.axes if mirrored != axis))


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
