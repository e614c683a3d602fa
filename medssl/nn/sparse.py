"""Runs a masked network on the visible patches only, exactly, with ordinary dense kernels.

Features are stored as [visible patches, channels, voxels of one patch]. A convolution first gathers each patch with a
halo of voxels of its neighbours, zero where the neighbour is hidden, and then convolves without padding. The table of
indices that gathers the halos is built once for each mask. Nothing is approximated.

Blank patches fill the batch up to one of 16 sizes, because libraries and allocators keep memory for every shape of a
batch that they meet: no table points at a blank patch, its halo is zero and it has no weight in a norm.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from medssl.nn.executor import Executor, Triple, convolve
from medssl.nn.norms import LayerNorm3d, Moments, apply_scale_shift, compute_moments, compute_scale_shift

NUM_BATCH_SIZES = 16


class VisibleBlocks(Executor):
    """Stores the visible patches of the whole batch as [n c i j k], in the order of the mask, then blank patches.

    Args:
        visible: Which patches are visible.
        num_visible: How many are; None reads it from `visible`, for which the host has to wait for the device.
    """

    def __init__(self, visible: Bool[Tensor, "b 1 p q r"], num_visible: int | None = None) -> None:
        self.grid = visible[:, 0]
        flat, per_volume = self.grid.flatten(), self.grid.shape[1:].numel()
        size = choose_batch_size(int(flat.sum()) if num_visible is None else num_visible, len(flat))
        # Stable, so that the visible patches come first and in the order of the mask; no shape depends on the mask.
        self.index = flat.byte().argsort(descending=True, stable=True)[:size]
        self.filled = flat[self.index]
        self.sample = self.index // per_volume
        self.neighbours = _find_neighbours(self.grid, self.index)
        self._halo_tables: dict[tuple[Triple, Triple, Triple], Tensor] = {}
        self._buffer: Tensor | None = None

    def to_features(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "n c p q r"]:
        """Cuts the visible patches out of a volume."""
        _, p, q, r = self.grid.shape
        patches = rearrange(x, "b c (p i) (q j) (r k) -> (b p q r) i j k c", p=p, q=q, r=r)
        blocks = torch.where(self.filled[:, None, None, None, None], patches.index_select(0, self.index), 0)
        return blocks.movedim(-1, 1)

    def to_dense(
        self, x: Float[Tensor, "n c p q r"], fill: Float[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """Writes the visible patches into a volume that holds `fill`, or zero, elsewhere."""
        b, p, q, r = self.grid.shape
        channels_last = x.movedim(1, -1)
        background = x.new_zeros(1) if fill is None else fill.to(x.dtype)
        surplus = self.grid.numel()  # a row behind the last patch, for the blank ones
        patches = background.expand(surplus + 1, *channels_last.shape[1:])
        patches = patches.index_copy(0, torch.where(self.filled, self.index, surplus), channels_last)[:-1]
        return rearrange(patches, "(b p q r) i j k c -> b (p i) (q j) (r k) c", b=b, p=p, q=q, r=r).movedim(-1, 1)

    def conv(self, conv: nn.Conv3d, x: Float[Tensor, "n c i j k"]) -> Float[Tensor, "n d p q r"]:
        """Applies a convolution to each patch with a halo from its visible neighbours."""
        if max(conv.kernel_size) == 1 and max(conv.stride) == 1:
            return conv(x)
        footprint = Footprint.from_conv(conv)
        if conv.groups > 1 or max(conv.dilation) > 1 or not footprint.fits_into(_as_triple(x.shape[2:])):
            return self.to_features(convolve(conv, self.to_dense(x)))
        weight, bias = conv.weight, conv.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return HaloConv.apply(x, weight, bias, self, footprint)

    def norm(self, norm: nn.Module, x: Float[Tensor, "n c i j k"]) -> Float[Tensor, "n c i j k"]:
        """Applies a norm with the moments of all visible patches of a sample."""
        if isinstance(norm, LayerNorm3d):
            return norm(x)
        scale, shift = compute_scale_shift(norm, self._merge_moments(compute_moments(x)))
        return apply_scale_shift(x, scale.index_select(0, self.sample), shift.index_select(0, self.sample))

    def densify(self, conv: nn.Conv3d, x: Float[Tensor, "n c i j k"], fill: Float[Tensor, "c"]) -> Tensor:
        """Convolves `fill` everywhere and adds the convolution of the visible patches minus `fill`, by linearity."""
        if conv.kernel_size != (3, 3, 3) or min(x.shape[2:]) < 4:
            return conv(self.to_dense(x, fill))
        # A transposed convolution is 2.5 to 3.5 times as fast as the same convolution with a padding of two.
        flipped = conv.weight.flip(2, 3, 4).transpose(0, 1)
        difference = F.conv_transpose3d(x - fill[:, None, None, None], flipped)
        size = _as_triple(n * p for n, p in zip(self.grid.shape[1:], x.shape[2:], strict=True))
        rows = difference.movedim(1, -1).flatten(0, 3)
        dense = rows.new_zeros(len(self.grid) * size[0] * size[1] * size[2] + 1, rows.shape[1])
        dense = dense.index_add(0, self._index_dense_rows(_as_triple(x.shape[2:]), size), rows)[:-1]
        return dense.view(len(self.grid), *size, -1).movedim(-1, 1) + _convolve_constant(conv, fill, size).to(
            rows.dtype
        )

    def _index_dense_rows(self, patch: Triple, size: Triple) -> Int[Tensor, "rows"]:
        """Returns the row in the dense volume of each voxel of each patch with a rim of one voxel.

        Voxels outside the volume and of blank patches get the row behind the last voxel.
        """
        row, outside = self.sample[:, None], ~self.filled[:, None]
        position = torch.unravel_index(self.index, self.grid.shape)[1:]
        for width, voxels, patch_index in zip(patch, size, position, strict=True):
            index = patch_index[:, None] * width + torch.arange(-1, width + 1, device=row.device)
            row = (row[:, :, None] * voxels + index[:, None]).flatten(1)
            outside = (outside[:, :, None] | ((index < 0) | (index >= voxels))[:, None]).flatten(1)
        return row.masked_fill(outside, len(self.grid) * size[0] * size[1] * size[2]).flatten()

    def gather_halo(self, x: Float[Tensor, "n c p q r"], low: Triple, high: Triple) -> Float[Tensor, "n c i j k"]:
        """Extends each patch by voxels of its neighbours, zero where the neighbour is hidden.

        The result is valid until the next call only: the buffer is reused, since fresh memory takes four times as long.

        Args:
            x: The visible patches.
            low: Voxels to add below the patch along each axis.
            high: Voxels to add above the patch along each axis.
        """
        n, c, *patch = x.shape
        key = ((patch[0], patch[1], patch[2]), low, high)
        if key not in self._halo_tables:
            self._halo_tables[key] = self._build_halo_table(*key)
        table = self._halo_tables[key]
        rows = x.movedim(1, -1).reshape(-1, c)
        extended = [a + width + b for a, width, b in zip(low, patch, high, strict=True)]
        gathered = self._get_buffer(x, len(table) * c).view(-1, c)
        torch.index_select(torch.cat([rows, rows.new_zeros(1, c)]), 0, table, out=gathered)
        return gathered.view(n, *extended, c).movedim(-1, 1)

    def _get_buffer(self, like: Tensor, count: int) -> Float[Tensor, "count"]:
        """Returns `count` uninitialised numbers of the dtype of `like`; the memory is reused between calls."""
        if self._buffer is None or self._buffer.dtype != like.dtype or len(self._buffer) < count:
            self._buffer = like.new_empty(count)
        return self._buffer[:count]

    def _build_halo_table(self, patch: Triple, low: Triple, high: Triple) -> Int[Tensor, "rows"]:
        """Returns, for each voxel of each extended patch, its row among all voxels of all patches.

        Voxels of hidden neighbours get the row behind the last voxel, which holds zeros.
        """
        device, voxels = self.index.device, math.prod(patch)
        num_rows = len(self.index) * voxels
        dtype = torch.int32 if num_rows < torch.iinfo(torch.int32).max else torch.int64
        side = torch.zeros(1, dtype=dtype, device=device)
        inside = torch.zeros(1, dtype=dtype, device=device)
        for width, below, above in zip(patch, low, high, strict=True):
            index = torch.arange(-below, width + above, dtype=dtype, device=device)
            side = (side[:, None] * 3 + index.div(width, rounding_mode="floor") + 1).flatten()
            inside = (inside[:, None] * width + index.remainder(width)).flatten()
        first = self.neighbours.to(dtype).index_select(1, side) * voxels
        return (first + inside).clamp_max_(num_rows).flatten()

    def _merge_moments(self, patches: Moments) -> Moments:
        """Merges the moments of patches into the moments of samples."""
        num_samples = len(self.grid)
        counts = self.grid.flatten(1).sum(1, keepdim=True)
        owner = torch.where(self.filled, self.sample, num_samples)  # a row that is dropped owns the blank patches

        def average(x: Float[Tensor, "n c"]) -> Float[Tensor, "b c"]:
            return x.new_zeros(num_samples + 1, x.shape[1]).index_add(0, owner, x)[:-1] / counts.clamp_min(1)

        mean = average(patches.mean)
        deviation = patches.mean - mean.index_select(0, self.sample)
        return Moments(mean, average(patches.var + deviation.square()), counts * patches.count[:1])


@dataclass(frozen=True)
class Footprint:
    """The kernel size, stride and padding of a convolution, which decide how far it reads beyond a patch."""

    kernel: Triple
    stride: Triple
    padding: Triple

    @classmethod
    def from_conv(cls, conv: nn.Conv3d) -> "Footprint":
        """Reads the footprint of a convolution."""
        return cls(*map(_as_triple, (conv.kernel_size, conv.stride, conv.padding)))

    def fits_into(self, patch: Triple) -> bool:
        """Returns whether the convolution reads from the nearest neighbours of a patch only, as a halo requires."""
        return all(max(*sides) <= width for width, *sides in zip(patch, *self.input_halo, strict=True))

    @property
    def input_halo(self) -> tuple[Triple, Triple]:
        """The number of voxels below and above a patch that its outputs depend on."""
        above = (max(0, k - p - s) for k, s, p in zip(self.kernel, self.stride, self.padding, strict=True))
        return self.padding, _as_triple(above)

    @property
    def output_halo(self) -> tuple[Triple, Triple]:
        """The number of outputs below and above a patch that depend on its voxels."""
        axes = tuple(zip(self.kernel, self.stride, self.padding, strict=True))
        return _as_triple((k - 1 - p) // s for k, s, p in axes), _as_triple((p + s - 1) // s for k, s, p in axes)


class HaloConv(torch.autograd.Function):
    """A convolution of patches with halos; it saves the patches for the backward pass, but not their halos."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, blocks: VisibleBlocks, footprint: Footprint
    ) -> Tensor:
        """Gathers the halos and convolves."""
        ctx.save_for_backward(x, weight)
        ctx.blocks, ctx.footprint = blocks, footprint
        return _convolve(blocks.gather_halo(x, *footprint.input_halo), weight, bias, footprint.stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gathers the halos of the output gradient, so that nothing has to be scattered."""
        x, weight = ctx.saved_tensors
        footprint: Footprint = ctx.footprint
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _compute_input_gradient(ctx.blocks, grad, weight, footprint, x.shape[2:])
        if ctx.needs_input_grad[1]:
            halo = ctx.blocks.gather_halo(x, *footprint.input_halo)
            grad_weight = _compute_weight_gradient(halo, grad, weight, footprint.stride)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3, 4))
        return grad_x, grad_weight, grad_bias, None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple) -> Tensor:
    """Convolves without padding."""
    if x.shape[2:] == weight.shape[2:]:
        # With one output voxel for each patch, a matrix product is three times as fast as a convolution.
        return F.linear(_flatten_channels_last(x), _flatten_channels_last(weight), bias)[..., None, None, None]
    return F.conv3d(x, weight, bias, stride)


def _compute_input_gradient(
    blocks: VisibleBlocks, grad: Tensor, weight: Tensor, footprint: Footprint, patch: torch.Size
) -> Tensor:
    """Computes the gradient of the patches from the output gradient with its halo."""
    low, high = footprint.output_halo
    halo = blocks.gather_halo(grad, low, high)
    if max(footprint.stride) == 1 and halo.shape[2:] == weight.shape[2:]:
        return _convolve(halo, weight.flip(2, 3, 4).transpose(0, 1), None, footprint.stride)
    crop = [p + s * n for p, s, n in zip(footprint.padding, footprint.stride, low, strict=True)]
    axes = zip(halo.shape[2:], footprint.stride, footprint.kernel, crop, patch, strict=True)
    surplus = [(n - 1) * s + k - 2 * c - width for n, s, k, c, width in axes]
    grad_x = F.conv_transpose3d(halo, weight, None, footprint.stride, crop, [max(0, -n) for n in surplus])
    return F.pad(grad_x, [n for count in reversed(surplus) for n in (0, -max(0, count))])


def _compute_weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, stride: Triple) -> Tensor:
    """Computes the gradient of the kernel from the patches with their halos."""
    if x.shape[2:] == weight.shape[2:]:
        flat = grad.flatten(1).t() @ _flatten_channels_last(x)
        return flat.view(len(weight), *weight.shape[2:], weight.shape[1]).movedim(-1, 1)
    options = [None, stride, (0, 0, 0), (1, 1, 1), False, (0, 0, 0), 1, (False, True, False)]
    return torch.ops.aten.convolution_backward(grad, x, weight, *options)[1]


def _convolve_constant(conv: nn.Conv3d, fill: Float[Tensor, "c"], size: Triple) -> Float[Tensor, "1 d i j k"]:
    """Convolves a constant volume with a padded 3x3x3 kernel; along each axis only the two ends differ."""
    y = conv(fill[None, :, None, None, None].expand(1, -1, 3, 3, 3))
    for axis, voxels in enumerate(size, 2):
        index = torch.ones(voxels, dtype=torch.int64, device=fill.device)
        index[0], index[-1] = 0, 2
        y = y.index_select(axis, index)
    return y


def _flatten_channels_last(x: Tensor) -> Tensor:
    """Flattens all axes but the first, channels last as patches are stored."""
    return x.movedim(1, -1).flatten(1)


def choose_batch_size(num_visible: int, num_patches: int) -> int:
    """Returns the number of patches in a batch of `num_visible` visible and some blank patches.

    It takes at most 16 values, closer to each other where they are small; a quarter of all patches is one of them.
    """
    step = math.ceil(NUM_BATCH_SIZES * math.sqrt(num_visible / num_patches))
    return math.ceil(num_patches * step**2 / NUM_BATCH_SIZES**2)


def _find_neighbours(grid: Bool[Tensor, "b p q r"], index: Int[Tensor, "n"]) -> Int[Tensor, "n 27"]:
    """Returns the positions in `index` of the 27 patches around each; len(index) for hidden ones and around blanks."""
    filled = grid.flatten()[index]
    number = torch.full((grid.numel(),), len(index), device=grid.device)
    number = number.index_copy(0, index, torch.where(filled, torch.arange(len(index), device=grid.device), len(index)))
    padded = F.pad(number.view(grid.shape), (1, 1, 1, 1, 1, 1), value=len(index))
    neighbourhoods = padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1).flatten(0, 3).flatten(1)
    return neighbourhoods.index_select(0, index).masked_fill(~filled[:, None], len(index))


def _as_triple(values: Any) -> Triple:
    i, j, k = values
    return i, j, k
