"""Corrupts crops for inpainting objectives; each function returns the crop and the mask of voxels that it touched.

The corruptions follow Zhou et al., "Models Genesis", MedIA 2021, https://arxiv.org/abs/2004.07882; Chen et al.,
"Self-supervised learning for medical image analysis using image context restoration", MedIA 2019; and Tang et al.,
"Self-supervised pre-training of Swin transformers for 3D medical image analysis", CVPR 2022,
https://arxiv.org/abs/2111.14791. Swaps are made in place, one after the other: some implementations take both blocks
from the original, which duplicates content.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.data.transforms.intensity import draw_uniform

CropTensor = Float[Tensor, "c i j k"]
TouchedMask = Bool[Tensor, "i j k"]
BoxSlices = tuple[slice, slice, slice]
BlockSwap = tuple[BoxSlices, BoxSlices]


def drop_voxels(x: CropTensor, fraction: float, generator: torch.Generator) -> tuple[CropTensor, TouchedMask]:
    """Sets each voxel to 0 with probability `fraction`."""
    touched = draw_uniform(x.shape[1:], x, generator) < fraction
    return x * ~touched, touched


def drop_cells(
    x: CropTensor, cell_size: int, fraction: float, generator: torch.Generator
) -> tuple[CropTensor, TouchedMask]:
    """Sets a fraction, rounded to whole cubes, of the cubes with edges of `cell_size` voxels to 0."""
    counts = [math.ceil(n / cell_size) for n in x.shape[1:]]
    order = torch.randperm(math.prod(counts), generator=generator)
    cells = (order < round(fraction * len(order))).reshape(counts).to(x.device)
    touched = cells.repeat_interleave(cell_size, 0).repeat_interleave(cell_size, 1).repeat_interleave(cell_size, 2)
    touched = touched[tuple(slice(n) for n in x.shape[1:])]
    return x * ~touched, touched


def fill_boxes(
    x: CropTensor, num_boxes: int, outside: bool, generator: torch.Generator
) -> tuple[CropTensor, TouchedMask]:
    """Fills boxes with edges of 1/6 to 1/3 of the crop, or with `outside` everything else, with uniform noise."""
    touched = torch.full(x.shape[1:], outside, device=x.device)
    for _ in range(num_boxes):
        touched[_draw_box(x.shape[1:], generator)] = not outside
    return torch.where(touched, draw_uniform(x.shape, x, generator), x), touched


def shuffle_blocks(
    x: CropTensor, block_size: int, fraction: float, generator: torch.Generator
) -> tuple[CropTensor, TouchedMask]:
    """Shuffles the voxels inside a fraction, rounded to whole cubes, of the cubes with edges of `block_size` voxels."""
    out, touched = x.clone(), torch.zeros_like(x[0], dtype=torch.bool)
    cubes = list(_iterate_blocks(x.shape[1:], block_size))
    for n in torch.randperm(len(cubes), generator=generator)[: round(fraction * len(cubes))].tolist():
        order = torch.randperm(block_size**3, generator=generator).to(x.device)
        cube = (slice(None), *cubes[n])
        out[cube] = x[cube].flatten(1)[:, order].reshape(x[cube].shape)
        touched[cubes[n]] = True
    return out, touched


def draw_swaps(shape: Sequence[int], block_size: int, num_swaps: int, generator: torch.Generator) -> list[BlockSwap]:
    """Draws pairs of different cubes with edges of `block_size` voxels, in the order in which to swap them."""
    cubes = list(_iterate_blocks(shape, block_size))
    pairs = [
        torch.randperm(len(cubes), generator=generator)[:2].tolist() for _ in range(num_swaps if len(cubes) > 1 else 0)
    ]
    return [(cubes[a], cubes[b]) for a, b in pairs]


def swap_blocks(x: CropTensor, swaps: Sequence[BlockSwap]) -> tuple[CropTensor, TouchedMask]:
    """Swaps pairs of cubes one after the other; the same swaps in reverse order undo it."""
    out, touched = x.clone(), torch.zeros_like(x[0], dtype=torch.bool)
    for a, b in swaps:
        first = out[:, *a].clone()
        out[:, *a] = out[:, *b]
        out[:, *b] = first
        touched[a] = touched[b] = True
    return out, touched


def _draw_box(shape: Sequence[int], generator: torch.Generator) -> BoxSlices:
    i, j, k = (_draw_interval(n, generator) for n in shape)
    return i, j, k


def _draw_interval(n: int, generator: torch.Generator) -> slice:
    """Draws an interval of 1/6 to 1/3 of `n`."""
    width = int(torch.randint(max(1, math.ceil(n / 6)), max(1, n // 3) + 1, (), generator=generator))
    start = int(torch.randint(n - width + 1, (), generator=generator))
    return slice(start, start + width)


def _iterate_blocks(shape: Sequence[int], size: int) -> Iterator[BoxSlices]:
    """Yields the cubes with edges of `size` voxels that lie completely inside a crop."""
    for i, j, k in product(*(range(0, n - size + 1, size) for n in shape)):
        yield slice(i, i + size), slice(j, j + size), slice(k, k + size)
