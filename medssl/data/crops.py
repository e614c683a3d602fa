"""Crops: what every objective and task is fed with."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """A batch of v views per volume, intensities in [0, 1], with where each was cut.

    `corner` and `size` are voxels of the stored volume; `affine` maps a crop's voxel index to mm, RAS+;
    `volume` numbers the volume each row was cut from, so that crops of one scan are known as such.
    """

    x: Float[Tensor, "b v c i j k"]
    corner: Int[Tensor, "b v 3"]
    size: Int[Tensor, "b 3"]
    affine: Float[Tensor, "b v 4 4"]
    volume: Int[Tensor, "b"]
    label: Int[Tensor, "b v i j k"] | None = None
