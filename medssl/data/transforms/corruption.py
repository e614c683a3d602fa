"""Corruptions to undo: each takes one crop with intensities in [0, 1] and says which voxels it touched.

Zhou et al., "Models Genesis", MedIA 2021, https://arxiv.org/abs/2004.07882; Chen et al., "Self-supervised learning for
medical image analysis using image context restoration", MedIA 2019; Tang et al., "Self-supervised pre-training of Swin
transformers for 3D medical image analysis", CVPR 2022, https://arxiv.org/abs/2111.14791. Swaps are made in place, one
after the other: taking both blocks from the original, as some code does, duplicates content.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medssl.data.transforms.intensity import uniform

Crop = Float[Tensor, "c i j k"]
Touched = Bool[Tensor, "i j k"]
Box = tuple[slice, slice, slice]
Swap = tuple[Box, Box]


def drop_voxels(x: Crop, share: float, generator: torch.Generator) -> tuple[Crop, Touched]:
    """Sets single voxels to 0, each with the chance `share`."""
    touched = uniform(x.shape[1:], x, generator) < share
    return x * ~touched, touched


def drop_cells(x: Crop, cell: int, share: float, generator: torch.Generator) -> tuple[Crop, Touched]:
    """Sets cubes of `cell` voxels to 0: the asked share of all cubes, rounded."""
    counts = [math.ceil(n / cell) for n in x.shape[1:]]
    order = torch.randperm(math.prod(counts), generator=generator)
    cells = (order < round(share * len(order))).reshape(counts).to(x.device)
    touched = cells.repeat_interleave(cell, 0).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    touched = touched[tuple(slice(n) for n in x.shape[1:])]
    return x * ~touched, touched


def fill_boxes(x: Crop, boxes: int, outside: bool, generator: torch.Generator) -> tuple[Crop, Touched]:
    """Puts noise into boxes of 1/6 to 1/3 of the side, or, `outside`, everywhere else."""
    touched = torch.full(x.shape[1:], outside, device=x.device)
    for _ in range(boxes):
        touched[_box(x.shape[1:], generator)] = not outside
    return torch.where(touched, uniform(x.shape, x, generator), x), touched


def shuffle_blocks(x: Crop, block: int, share: float, generator: torch.Generator) -> tuple[Crop, Touched]:
    """Shuffles the voxels inside cubes of `block` voxels; the asked share of all whole cubes, rounded."""
    out, touched = x.clone(), torch.zeros_like(x[0], dtype=torch.bool)
    cubes = list(_lattice(x.shape[1:], block))
    for n in torch.randperm(len(cubes), generator=generator)[: round(share * len(cubes))].tolist():
        order = torch.randperm(block**3, generator=generator).to(x.device)
        place = (slice(None), *cubes[n])
        out[place] = x[place].flatten(1)[:, order].reshape(x[place].shape)
        touched[cubes[n]] = True
    return out, touched


def draw_swaps(shape: Sequence[int], block: int, swaps: int, generator: torch.Generator) -> list[Swap]:
    """Pairs of different cubes of a lattice, in the order in which they change places."""
    cubes = list(_lattice(shape, block))
    pairs = [
        torch.randperm(len(cubes), generator=generator)[:2].tolist() for _ in range(swaps if len(cubes) > 1 else 0)
    ]
    return [(cubes[a], cubes[b]) for a, b in pairs]


def swap_blocks(x: Crop, swaps: Sequence[Swap]) -> tuple[Crop, Touched]:
    """Lets pairs of cubes change places; the same swaps in reverse order undo it."""
    out, touched = x.clone(), torch.zeros_like(x[0], dtype=torch.bool)
    for a, b in swaps:
        first = out[:, *a].clone()
        out[:, *a] = out[:, *b]
        out[:, *b] = first
        touched[a] = touched[b] = True
    return out, touched


def _box(shape: Sequence[int], generator: torch.Generator) -> Box:
    i, j, k = (_interval(n, generator) for n in shape)
    return i, j, k


def _interval(n: int, generator: torch.Generator) -> slice:
    width = int(torch.randint(max(1, math.ceil(n / 6)), max(1, n // 3) + 1, (), generator=generator))
    start = int(torch.randint(n - width + 1, (), generator=generator))
    return slice(start, start + width)


def _lattice(shape: Sequence[int], block: int) -> Iterator[Box]:
    for i, j, k in product(*(range(0, n - block + 1, block) for n in shape)):
        yield slice(i, i + block), slice(j, j + block), slice(k, k + block)
