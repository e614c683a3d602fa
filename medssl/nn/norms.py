"""Normalisation layers, and the moments over visible voxels that they use under a mask.

Each layer is a plain torch module with its usual state dict; under a mask it receives other moments. The moments are
computed per sample and channel and then merged over a group (group norm) or over the batch (batch norm) by the pairwise
rule of Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf. Sums are in fp32 for all dtypes of the features.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from medssl.nn.collectives import all_gather_rows, is_distributed

Norm = Literal["instance", "group", "batch", "layer"]
MonaiNorm = Literal["instance", "group", "batch"]


class LayerNorm3d(nn.Module):
    """A layer norm over the channels of each voxel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Normalises the channels of each voxel to mean 0 and variance 1, then scales and shifts them."""
        channels_last = x.movedim(1, -1)
        return layer_norm(channels_last, self.weight, self.bias, self.eps).movedim(-1, 1)


class LayerNorm(nn.LayerNorm):
    """Torch's layer norm over the last axis, with exact gradients in bf16 on a CPU."""

    def forward(self, x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows c"]:
        """Normalises each row to mean 0 and variance 1, then scales and shifts it."""
        return layer_norm(x, self.weight, self.bias, self.eps)


def layer_norm(
    x: Float[Tensor, "*rows c"], weight: Float[Tensor, "c"], bias: Float[Tensor, "c"], eps: float
) -> Float[Tensor, "*rows c"]:
    """Applies a layer norm, in fp32 on a CPU.

    Torch 2.13 sums the gradients of scale and shift in bf16 there: the sum stops to grow after a few hundred rows.
    """
    y = F.layer_norm(x.float() if _is_low_precision_on_cpu(x) else x, x.shape[-1:], weight, bias, eps)
    return y.to(x.dtype)


def replace_norms(network: nn.Module) -> None:
    """Replaces torch's layer norms and batch norms in a network by ours, in place; the weights stay."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            norm: nn.Module | None = None
            if type(child) is nn.LayerNorm:
                norm = LayerNorm(child.normalized_shape, child.eps)
            elif type(child) is nn.BatchNorm3d:
                norm = BatchNorm(child.num_features, child.eps, child.momentum)
            if norm is not None:
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm)


class GlobalResponseNorm(nn.Module):
    """The global response norm of ConvNeXt V2, in which channels compete by their root mean square over the volume.

    Channel c of a sample is multiplied by 1 + weight_c r_c / mean(r), where r_c is its root mean square, and shifted.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Amplifies the channels with a large response."""
        return apply_scale_shift(x, *compute_scale_shift(self, compute_moments(x)))


class GroupNorm(nn.GroupNorm):
    """Torch's group norm; on a CPU in channels-last order more exact, and with a faster gradient.

    Torch's own is off by up to 1e-3 there in fp32. A training step in bf16 takes half the time
    (benchmarks/precision.py); only for inference in bf16, torch's is as exact and faster.
    """

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Normalises each group of channels to mean 0 and variance 1, then scales and shifts them."""
        if x.device.type != "cpu" or x.is_contiguous():
            return super().forward(x)
        if _is_low_precision_on_cpu(x) and not torch.is_grad_enabled():
            return super().forward(x)
        return apply_scale_shift(x, *compute_scale_shift(self, compute_moments(x)))


class BatchNorm(nn.BatchNorm3d):
    """Torch's batch norm, which in training has the moments of the batches of all processes."""

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Normalises each channel to mean 0 and variance 1 over the global batch, then scales and shifts it."""
        if not self.training or not is_distributed():
            return super().forward(x)
        return apply_scale_shift(x, *compute_scale_shift(self, compute_moments(x)))


def _is_low_precision_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def build_norm(norm: Norm, channels: int) -> nn.Module:
    """Builds a norm with learned scale and shift."""
    if norm == "instance":
        # Instance norm is a group norm with one channel in each group; torch's own is slower and not channels-last.
        return GroupNorm(channels, channels)
    if norm == "group":
        return GroupNorm(choose_num_groups(channels), channels)
    return BatchNorm(channels) if norm == "batch" else LayerNorm3d(channels)


def choose_num_groups(channels: int) -> int:
    """Returns the number of groups of a group norm: the largest divisor of the channels up to eight."""
    return max(n for n in range(1, 9) if channels % n == 0)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each channel of each sample, and the number of voxels of each sample."""

    mean: Float[Tensor, "b c"]
    var: Float[Tensor, "b c"]
    count: Float[Tensor, "b 1"]


def compute_moments(x: Float[Tensor, "b c i j k"], mask: Bool[Tensor, "b 1 i j k"] | None = None) -> Moments:
    """Computes the moments of visible voxels.

    Args:
        x: Features that a mask has set to zero, with their gradient, in hidden voxels.
        mask: Which voxels are visible; None is all.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    voxels = x.shape[2] * x.shape[3] * x.shape[4]
    count = x.new_full((x.shape[0], 1), voxels, dtype=dtype) if mask is None else mask.sum((2, 3, 4), dtype=dtype)
    mean, var = _MomentsFunction.apply(x, mask, count.clamp_min(1))
    return Moments(mean, var, count)


def apply_scale_shift(
    x: Float[Tensor, "b c i j k"],
    scale: Float[Tensor, "b c"],
    shift: Float[Tensor, "b c"],
    mask: Bool[Tensor, "b 1 i j k"] | None = None,
) -> Float[Tensor, "b c i j k"]:
    """Scales and shifts the channels of each sample where the mask is true; sets other voxels to zero."""
    return _ScaleShiftFunction.apply(x, scale, shift, mask)


def broadcast(x: Float[Tensor, "b c"]) -> Float[Tensor, "b c 1 1 1"]:
    """Appends three axes, so that values per sample and channel broadcast against a volume."""
    return x[..., None, None, None]


def merge_moments(
    mean: Float[Tensor, "*n"], var: Float[Tensor, "*n"], weight: Float[Tensor, "*#n"], dim: int
) -> tuple[Float[Tensor, "*m"], Float[Tensor, "*m"]]:
    """Merges the moments of several sets of voxels along an axis, which is kept with length 1.

    Args:
        mean: The mean of each set.
        var: The variance of each set.
        weight: The number of voxels of each set.
        dim: The axis to merge over.
    """
    fraction = weight / weight.sum(dim, keepdim=True).clamp_min(1)
    merged_mean = (fraction * mean).sum(dim, keepdim=True)
    return merged_mean, (fraction * (var + (mean - merged_mean).square())).sum(dim, keepdim=True)


def compute_scale_shift(norm: nn.Module, moments: Moments) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Returns the scale and the shift that a norm applies to each channel of each sample.

    A batch norm in training mode also updates its running statistics.

    Args:
        norm: The layer.
        moments: The moments of its input.
    """
    if isinstance(norm, GlobalResponseNorm):
        response = (moments.var + moments.mean.square() + norm.eps).sqrt()
        return 1 + norm.weight * response / response.mean(1, keepdim=True), norm.bias.expand_as(response)
    if isinstance(norm, nn.InstanceNorm3d):
        mean, var = moments.mean, moments.var
    elif isinstance(norm, nn.GroupNorm):
        mean, var = _merge_groups(moments, norm.num_groups)
    elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
        mean, var = _merge_batch(norm, moments)
    else:
        raise TypeError(f"{type(norm).__name__} cannot be masked; use one of instance, group, batch, layer")
    scale = norm.weight * torch.rsqrt(var + norm.eps)
    return scale, norm.bias - mean * scale


def _merge_groups(moments: Moments, groups: int) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Merges the channels of each group; each channel gets the moments of its group."""
    b, c = moments.mean.shape
    grouped = (b, groups, c // groups)
    weight = torch.ones_like(moments.mean).view(grouped)
    mean, var = merge_moments(moments.mean.view(grouped), moments.var.view(grouped), weight, 2)
    return mean.expand(grouped).reshape(b, c), var.expand(grouped).reshape(b, c)


def _merge_batch(norm: nn.modules.batchnorm._BatchNorm, moments: Moments) -> tuple[Tensor, Tensor]:
    """Merges the samples of all processes in training mode; returns the running statistics in evaluation mode."""
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        return norm.running_mean.expand_as(moments.mean), norm.running_var.expand_as(moments.var)
    gathered = Moments(*(all_gather_rows(x) for x in (moments.mean, moments.var, moments.count)))
    mean, var = merge_moments(gathered.mean, gathered.var, gathered.count, 0)
    _update_running_stats(norm, mean[0].detach(), var[0].detach(), gathered.count.sum())
    return mean.expand_as(moments.mean), var.expand_as(moments.var)


def _update_running_stats(
    norm: nn.modules.batchnorm._BatchNorm, mean: Float[Tensor, "c"], var: Float[Tensor, "c"], n: Shaped[Tensor, ""]
) -> None:
    """Updates the running statistics of a batch norm with the moments of `n` voxels, as torch does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.item()
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(var * n / (n - 1).clamp_min(1), rate)


class _MomentsFunction(torch.autograd.Function):
    """Computes mean and variance with two passes over `x` and one pass backward, without a second copy of `x`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None, count: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.sum((2, 3, 4), dtype=count.dtype) / count
        deviation = x - broadcast(mean)
        if mask is not None:
            deviation *= mask
        var = deviation.square_().sum((2, 3, 4)) / count
        ctx.save_for_backward(x, mean, count)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor, None, None]:
        x, mean, count = ctx.saved_tensors
        slope = 2 * grad_var / count
        offset = broadcast(grad_mean / count - slope * mean)
        return torch.addcmul(offset, x.to(slope.dtype), broadcast(slope)).to(x.dtype), None, None


class _ScaleShiftFunction(torch.autograd.Function):
    """Scales and shifts in one pass over `x`, and saves nothing but `x` for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale, mask)
        y = torch.addcmul(broadcast(shift), x.to(scale.dtype), broadcast(scale))
        if mask is not None:
            y *= mask
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, mask = ctx.saved_tensors
        grad = grad.to(scale.dtype) if mask is None else grad.to(scale.dtype) * mask
        grad_scale = (grad * x).sum((2, 3, 4))
        return (grad * broadcast(scale)).to(x.dtype), grad_scale, grad.sum((2, 3, 4)), None


def to_monai_norm(norm: MonaiNorm, channels: int) -> tuple[str, dict[str, Any]]:
    """Returns the norm argument of a MONAI network with widths that are multiples of `channels`."""
    options: dict[str, dict[str, Any]] = {
        "instance": {"affine": True},
        "group": {"num_groups": choose_num_groups(channels), "affine": True},
        "batch": {},
    }
    return norm, options[norm]
