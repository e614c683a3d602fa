"""Visible-block execution: a masked network run on its visible cells alone, exactly, with ordinary dense kernels.

Features are stored as [visible cells, channels, voxels of one cell]. A convolution first gathers, from a table built
once a mask, each cell with a halo of its neighbours' voxels, zeros where the neighbour is hidden; then it convolves
without padding. Nothing is approximated. docs/spark-speed.md says what it brings.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from medssl.nn.executor import Layout, Triple
from medssl.nn.norms import ChannelNorm, Moments, affine, moments, scale_and_shift


class Blocks(Layout):
    """Keeps visible cells only: [n c i j k] with n visible cells of the whole batch, in the order of the grid."""

    def __init__(self, keep: Bool[Tensor, "b 1 p q r"]) -> None:
        self.grid = keep[:, 0]
        self.sample, *self.cells = self.grid.nonzero(as_tuple=True)
        self.slots = self.grid.flatten().nonzero()[:, 0]
        self.neighbours = _neighbours(self.grid)
        self._rows: dict[tuple[Triple, Triple, Triple], Tensor] = {}
        self._wide: Tensor | None = None

    def enter(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "n c p q r"]:
        """The visible cells of a volume."""
        counts = self.grid.shape[1:]
        width = [size // n for size, n in zip(x.shape[2:], counts, strict=True)]
        split = [part for pair in zip(counts, width, strict=True) for part in pair]
        cells = x.reshape(*x.shape[:2], *split).permute(0, 2, 4, 6, 3, 5, 7, 1)
        return cells.flatten(0, 3).index_select(0, self.slots).movedim(-1, 1)

    def leave(
        self, x: Float[Tensor, "n c p q r"], fill: Float[Tensor, "c"] | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """The cells in their places, elsewhere `fill` or zeros."""
        last = x.movedim(1, -1)
        around = x.new_zeros(1) if fill is None else fill.to(x.dtype)
        whole = around.expand(self.grid.numel(), *last.shape[1:]).index_copy(0, self.slots, last)
        placed = whole.view(*self.grid.shape, *last.shape[1:]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        sizes = [n * p for n, p in zip(self.grid.shape[1:], x.shape[2:], strict=True)]
        return placed.reshape(len(self.grid), *sizes, x.shape[1]).movedim(-1, 1)

    def conv(self, conv: nn.Conv3d, x: Float[Tensor, "n c i j k"]) -> Float[Tensor, "n d p q r"]:
        """The convolution, with halos from visible neighbours."""
        if max(conv.kernel_size) == 1 and max(conv.stride) == 1:
            return conv(x)
        reach = Reach.of(conv)
        if conv.groups > 1 or max(conv.dilation) > 1 or not reach.within(_triple(x.shape[2:])):
            return self.enter(conv(self.leave(x)))
        weight, bias = conv.weight, conv.bias
        if torch.is_autocast_enabled(x.device.type):
            kind = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        return HaloConv.apply(x, weight, bias, self, reach)

    def norm(self, norm: nn.Module, x: Float[Tensor, "n c i j k"]) -> Float[Tensor, "n c i j k"]:
        """The norm, from the moments of cells merged over each sample."""
        if isinstance(norm, ChannelNorm):
            return norm(x)
        scale, shift = scale_and_shift(norm, self._merged(moments(x)))
        return affine(x, scale.index_select(0, self.sample), shift.index_select(0, self.sample))

    def densify(self, conv: nn.Conv3d, x: Float[Tensor, "n c i j k"], fill: Float[Tensor, "c"]) -> Tensor:
        """By linearity: the convolution of `fill` everywhere, plus that of what visible cells differ from it."""
        if conv.kernel_size != (3, 3, 3) or min(x.shape[2:]) < 4:
            return conv(self.leave(x, fill))
        # Written as a transposed convolution, which is 2.5 to 3.5 times as fast as one that pads by two.
        turned = conv.weight.flip(2, 3, 4).transpose(0, 1)
        about = F.conv_transpose3d(x - fill[:, None, None, None], turned)
        sizes = _triple(n * p for n, p in zip(self.grid.shape[1:], x.shape[2:], strict=True))
        rows = about.movedim(1, -1).flatten(0, 3)
        whole = rows.new_zeros(len(self.grid) * sizes[0] * sizes[1] * sizes[2] + 1, rows.shape[1])
        whole = whole.index_add(0, self._places(_triple(x.shape[2:]), sizes), rows)[:-1]
        return whole.view(len(self.grid), *sizes, -1).movedim(-1, 1) + _constant(conv, fill, sizes).to(rows.dtype)

    def _places(self, width: Triple, sizes: Triple) -> Int[Tensor, "rows"]:
        """For each voxel of each cell and of a rim about it, its row in the dense volume; the last row is outside."""
        place = self.sample[:, None]
        outside = torch.zeros_like(place, dtype=torch.bool)
        for axis, (w, size) in enumerate(zip(width, sizes, strict=True)):
            at = self.cells[axis][:, None] * w + torch.arange(-1, w + 1, device=place.device)
            place = (place[:, :, None] * size + at[:, None]).flatten(1)
            outside = (outside[:, :, None] | ((at < 0) | (at >= size))[:, None]).flatten(1)
        return place.masked_fill(outside, len(self.grid) * sizes[0] * sizes[1] * sizes[2]).flatten()

    def gather(self, x: Float[Tensor, "n c p q r"], low: Triple, high: Triple) -> Float[Tensor, "n c i j k"]:
        """Each cell with so many more voxels on its low and high sides, from its neighbours; zeros if hidden.

        It holds until the next call: written to fresh memory each time, it would take four times as long.
        """
        n, c, *width = x.shape
        key = ((width[0], width[1], width[2]), low, high)
        if key not in self._rows:
            self._rows[key] = self._table(*key)
        rows = x.movedim(1, -1).reshape(-1, c)
        wide = [a + w + b for a, w, b in zip(low, width, high, strict=True)]
        at = self._rows[key]
        filled = self._room(x, len(at) * c).view(-1, c)
        torch.index_select(torch.cat([rows, rows.new_zeros(1, c)]), 0, at, out=filled)
        return filled.view(n, *wide, c).movedim(-1, 1)

    def _room(self, like: Tensor, count: int) -> Float[Tensor, "count"]:
        """So many numbers, to be written over."""
        if self._wide is None or self._wide.dtype != like.dtype or len(self._wide) < count:
            self._wide = like.new_empty(count)
        return self._wide[:count]

    def _table(self, width: Triple, low: Triple, high: Triple) -> Int[Tensor, "rows"]:
        """For each voxel of each widened cell, its row among all voxels of all cells; the last row is for zeros."""
        side = torch.zeros(1, dtype=torch.int64)
        inside = torch.zeros(1, dtype=torch.int64)
        for w, a, b in zip(width, low, high, strict=True):
            at = torch.arange(-a, w + b)
            side = (side[:, None] * 3 + at.div(w, rounding_mode="floor") + 1).flatten()
            inside = (inside[:, None] * w + at.remainder(w)).flatten()
        voxels = width[0] * width[1] * width[2]
        first = self.neighbours.index_select(1, side.to(self.slots.device)) * voxels
        return (first + inside.to(self.slots.device)).clamp_max_(len(self.slots) * voxels).flatten()

    def _merged(self, cell: Moments) -> Moments:
        """Moments of samples from those of their cells."""
        cells = torch.bincount(self.sample, minlength=len(self.grid))[:, None]

        def mean(x: Float[Tensor, "n c"]) -> Float[Tensor, "b c"]:
            return x.new_zeros(len(self.grid), x.shape[1]).index_add(0, self.sample, x) / cells.clamp_min(1)

        whole = mean(cell.mean)
        apart = cell.mean - whole.index_select(0, self.sample)
        return Moments(whole, mean(cell.var + apart.square()), cells * cell.count[:1])


@dataclass(frozen=True)
class Reach:
    """How far a convolution's window reaches over the sides of a cell, forwards and back."""

    kernel: Triple
    stride: Triple
    padding: Triple

    @classmethod
    def of(cls, conv: nn.Conv3d) -> "Reach":
        """The reach of a convolution."""
        return cls(_triple(conv.kernel_size), _triple(conv.stride), _triple(conv.padding))

    def within(self, width: Triple) -> bool:
        """Whether cells of this width are reached from their nearest neighbours only, which is all a halo holds."""
        return all(max(*sides) <= w for w, *sides in zip(width, *self.inputs(), strict=True))

    def inputs(self) -> tuple[Triple, Triple]:
        """Voxels read below and above a cell to compute its outputs."""
        above = (max(0, k - p - s) for k, s, p in zip(self.kernel, self.stride, self.padding, strict=True))
        return self.padding, _triple(above)

    def outputs(self) -> tuple[Triple, Triple]:
        """Outputs below and above a cell that its voxels have a part in."""
        axes = tuple(zip(self.kernel, self.stride, self.padding, strict=True))
        return _triple((k - 1 - p) // s for k, s, p in axes), _triple((p + s - 1) // s for k, s, p in axes)


class HaloConv(torch.autograd.Function):
    """A convolution over cells; only the cells themselves are kept for the way back, not their halos."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, blocks: Blocks, reach: Reach) -> Tensor:
        """Gathers and convolves."""
        ctx.save_for_backward(x, weight)
        ctx.blocks, ctx.reach = blocks, reach
        return _convolve(blocks.gather(x, *reach.inputs()), weight, bias, reach.stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The input's gradient gathers that of the outputs: nothing is scattered."""
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _convolve_back(ctx.blocks, grad, weight, ctx.reach, x.shape[2:])
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(ctx.blocks.gather(x, *ctx.reach.inputs()), grad, weight, ctx.reach.stride)
        if ctx.needs_input_grad[2]:
            to_bias = grad.sum((0, 2, 3, 4))
        return to_x, to_weight, to_bias, None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple) -> Tensor:
    if x.shape[2:] == weight.shape[2:]:
        # One output a cell: a matrix product, which is three times as fast as a convolution of so small a volume.
        return F.linear(_flat(x), _flat(weight), bias)[..., None, None, None]
    return F.conv3d(x, weight, bias, stride)


def _convolve_back(blocks: Blocks, grad: Tensor, weight: Tensor, reach: Reach, width: torch.Size) -> Tensor:
    low, high = reach.outputs()
    halo = blocks.gather(grad, low, high)
    if max(reach.stride) == 1 and halo.shape[2:] == weight.shape[2:]:
        return _convolve(halo, weight.flip(2, 3, 4).transpose(0, 1), None, reach.stride)
    crop = [p + s * n for p, s, n in zip(reach.padding, reach.stride, low, strict=True)]
    whole = F.conv_transpose3d(halo, weight, None, reach.stride, crop)
    return F.pad(whole, [n for w, have in zip(width[::-1], whole.shape[:1:-1], strict=True) for n in (0, w - have)])


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, stride: Triple) -> Tensor:
    if x.shape[2:] == weight.shape[2:]:
        flat = grad.flatten(1).t() @ _flat(x)
        return flat.view(len(weight), *weight.shape[2:], weight.shape[1]).movedim(-1, 1)
    plain = [None, stride, (0, 0, 0), (1, 1, 1), False, (0, 0, 0), 1, (False, True, False)]
    return torch.ops.aten.convolution_backward(grad, x, weight, *plain)[1]


def _constant(conv: nn.Conv3d, fill: Float[Tensor, "c"], sizes: Triple) -> Float[Tensor, "1 d i j k"]:
    """What a padded 3^3 convolution makes of a constant volume: along each axis only its two ends differ."""
    y = conv(fill[None, :, None, None, None].expand(1, -1, 3, 3, 3))
    for axis, size in enumerate(sizes, 2):
        at = torch.ones(size, dtype=torch.int64, device=fill.device)
        at[0], at[-1] = 0, 2
        y = y.index_select(axis, at)
    return y


def _flat(x: Tensor) -> Tensor:
    """Everything but the first axis in one, channels last as blocks are stored."""
    return x.movedim(1, -1).flatten(1)


def _neighbours(grid: Bool[Tensor, "b p q r"]) -> Int[Tensor, "n 27"]:
    """For each visible cell, the numbers of the 27 cells about it; the count of visible cells where one is hidden."""
    n = int(grid.sum())
    number = torch.full([s + 2 * (axis > 0) for axis, s in enumerate(grid.shape)], n, device=grid.device)
    number[:, 1:-1, 1:-1, 1:-1][grid] = torch.arange(n, device=grid.device)
    about = number.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)
    return about[grid].flatten(1)


def _triple(values: Any) -> Triple:
    i, j, k = values
    return i, j, k
