"""Corrupts crops for inpainting objectives; each function returns the crop and the mask of voxels that it touched.

The corruptions follow Zhou et al., "Models Genesis", MedIA 2021, https://arxiv.org/abs/2004.07882; Chen et al.,
"Self-supervised learning for medical image analysis using image context restoration", MedIA 2019; and Tang et al.,
"Self-supervised pre-training of Swin transformers for 3D medical image analysis", CVPR 2022,
https://arxiv.org/abs/2111.14791. Swaps are made in place, one after the other: some implementations take both blocks
from the original, which duplicates content.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medssl.data.transforms.intensity import draw_uniform

CropTensor = Float[Tensor, "c i j k"]
TouchedMask = Bool[Tensor, "i j k"]
BoxSlices = tuple[slice, slice, slice]
BlockSwaps = Int[Tensor, "s 2"]


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


def drop_band(x: CropTensor, width: float, generator: torch.Generator) -> CropTensor:
    """Removes a random band of spatial frequencies; the mean and all other frequencies stay.

    Args:
        x: A crop.
        width: Width of the band, as a fraction of the highest frequency, which is along the diagonal.
        generator: Source of all randomness.
    """
    low = float(torch.rand((), generator=generator)) * (1 - width)
    axes = torch.meshgrid(*[torch.fft.fftfreq(n, device=x.device) for n in x.shape[1:]], indexing="ij")
    radius = torch.stack(axes).norm(dim=0) / 0.75**0.5
    is_dropped = (radius > 0) & (radius >= low) & (radius <= low + width)
    spectrum = torch.fft.fftn(x.float(), dim=(1, 2, 3))
    return torch.fft.ifftn(spectrum * ~is_dropped, dim=(1, 2, 3)).real.to(x)


def replace_slabs(
    x: CropTensor, slab_voxels: int, fraction: float, generator: torch.Generator
) -> tuple[CropTensor, TouchedMask]:
    """Replaces slabs along a random axis, about a fraction of all slices and at least one slab.

    As in TERA, four of five slabs become zero, and the others a copy of another slab of the crop.
    """
    axis = int(torch.randint(3, (), generator=generator))
    length, replaced = x.shape[axis + 1], x.clone()
    thickness = min(slab_voxels, length)
    touched = torch.zeros(length, dtype=torch.bool, device=x.device)
    for _ in range(max(1, int(fraction * length / thickness))):
        start, source = torch.randint(length - thickness + 1, (2,), generator=generator).tolist()
        is_copy = float(torch.rand((), generator=generator)) < 0.2
        content = x.narrow(axis + 1, source, thickness) if is_copy else 0.0
        replaced.narrow(axis + 1, start, thickness).copy_(torch.as_tensor(content, dtype=x.dtype, device=x.device))
        touched[start : start + thickness] = True
    shape = [length if n == axis else 1 for n in range(3)]
    return replaced, touched.view(shape).expand(x.shape[1:])


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
    blocks = _cut_blocks(x, block_size)
    chosen = torch.randperm(len(blocks), generator=generator)[: round(fraction * len(blocks))].to(x.device)
    order = draw_uniform((len(chosen), 1, block_size**3), x, generator).argsort(2).expand(-1, len(x), -1)
    return _place_blocks(x, blocks.index_copy(0, chosen, blocks[chosen].gather(2, order)), block_size, chosen)


def draw_swaps(num_blocks: int, num_swaps: int, generator: torch.Generator) -> BlockSwaps:
    """Draws pairs of different blocks by their numbers, in the order in which to swap them."""
    if num_blocks < 2:
        return torch.zeros(0, 2, dtype=torch.int64)
    first = torch.randint(num_blocks, (num_swaps,), generator=generator)
    distance = torch.randint(1, num_blocks, (num_swaps,), generator=generator)
    return torch.stack([first, (first + distance) % num_blocks], 1)


def swap_blocks(x: CropTensor, block_size: int, swaps: BlockSwaps) -> tuple[CropTensor, TouchedMask]:
    """Swaps pairs of cubes one after the other; the same swaps in reverse order undo it."""
    order = list(range(count_blocks(x.shape[1:], block_size)))
    for a, b in swaps.tolist():
        order[a], order[b] = order[b], order[a]
    moved = torch.tensor(order, dtype=torch.int64, device=x.device)
    return _place_blocks(x, _cut_blocks(x, block_size)[moved], block_size, swaps.flatten().to(x.device))


def count_blocks(shape: Sequence[int], block_size: int) -> int:
    """Returns the number of cubes with edges of `block_size` voxels that lie completely inside a crop."""
    return math.prod(n // block_size for n in shape)


def _cut_blocks(x: CropTensor, size: int) -> Float[Tensor, "n c v"]:
    """Returns the cubes with edges of `size` voxels that lie completely inside a crop."""
    i, j, k = (n // size * size for n in x.shape[1:])
    return rearrange(x[:, :i, :j, :k], "c (p a) (q b) (r d) -> (p q r) c (a b d)", a=size, b=size, d=size)


def _place_blocks(
    x: CropTensor, blocks: Float[Tensor, "n c v"], size: int, touched: Int[Tensor, "m"]
) -> tuple[CropTensor, TouchedMask]:
    """Writes cubes into a copy of a crop; also returns the voxels of the cubes that were touched."""
    p, q, r = (n // size for n in x.shape[1:])
    out, mask = x.clone(), torch.zeros_like(x[0], dtype=torch.bool)
    inside = slice(p * size), slice(q * size), slice(r * size)
    out[:, *inside] = rearrange(
        blocks, "(p q r) c (a b d) -> c (p a) (q b) (r d)", p=p, q=q, r=r, a=size, b=size, d=size
    )
    is_touched = torch.zeros(len(blocks), dtype=torch.bool, device=x.device).index_fill(0, touched, True)
    mask[inside] = repeat(is_touched, "(p q r) -> (p a) (q b) (r d)", p=p, q=q, r=r, a=size, b=size, d=size)
    return out, mask


def _draw_box(shape: Sequence[int], generator: torch.Generator) -> BoxSlices:
    i, j, k = (_draw_interval(n, generator) for n in shape)
    return i, j, k


def _draw_interval(n: int, generator: torch.Generator) -> slice:
    """Draws an interval of 1/6 to 1/3 of `n`."""
    width = int(torch.randint(max(1, math.ceil(n / 6)), max(1, n // 3) + 1, (), generator=generator))
    start = int(torch.randint(n - width + 1, (), generator=generator))
    return slice(start, start + width)
