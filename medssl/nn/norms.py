"""Norms whose moments are taken over visible voxels only, from statistics per sample and channel.

Every norm here is a plain torch module with its usual state; what differs under a mask is the statistics it is given.
Those are first taken per sample and channel, then merged over a group (GN) or over the batch (BN) by the
pairwise rule of Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances"
(1979), http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf. Sums are fp32 whatever the features are.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

Norm = Literal["instance", "group", "batch", "layer"]
MonaiNorm = Literal["instance", "group", "batch"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Each voxel's channels with mean 0 and variance 1, scaled and shifted."""
        last = x.movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps).movedim(-1, 1)


class ResponseNorm(nn.Module):
    """ConvNeXt V2's global response norm: channels compete by the size of what each has over the whole volume.

    A sample's channel c is multiplied by 1 + weight_c r_c / mean(r), r_c the root of its mean square, and shifted.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """The features, those of strong channels stronger."""
        return affine(x, *scale_and_shift(self, moments(x)))


class GroupNorm(nn.GroupNorm):
    """Torch's group norm, but for learning on a CPU in the channels-last order, where torch's gradient is slow.

    In bf16 a whole step takes half the time with this one (benchmarks/precision.py).
    """

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Each group with mean 0 and variance 1, scaled and shifted."""
        if x.device.type != "cpu" or x.is_contiguous() or not torch.is_grad_enabled():
            return super().forward(x)
        return affine(x, *scale_and_shift(self, moments(x)))


def make(norm: Norm, channels: int) -> nn.Module:
    """A norm by name, with learned scale and shift."""
    if norm == "instance":
        # One group a channel is instance norm; torch's InstanceNorm3d undoes the channels-last order, and is slower.
        return GroupNorm(channels, channels)
    if norm == "group":
        return GroupNorm(groups(channels), channels)
    return nn.BatchNorm3d(channels) if norm == "batch" else ChannelNorm(channels)


def groups(channels: int) -> int:
    """How many groups a group norm has: the most up to eight that share the channels evenly."""
    return max(n for n in range(1, 9) if channels % n == 0)


@dataclass(frozen=True)
class Moments:
    """Mean and variance per sample and channel, and over how many voxels of each sample."""

    mean: Float[Tensor, "b c"]
    var: Float[Tensor, "b c"]
    count: Float[Tensor, "b 1"]


def moments(x: Float[Tensor, "b c i j k"], m: Bool[Tensor, "b 1 i j k"] | None = None) -> Moments:
    """The moments of `x` over the voxels where `m` holds; elsewhere `x` is zero by a mask that stops gradients too."""
    kind = torch.promote_types(x.dtype, torch.float32)
    voxels = x.shape[2] * x.shape[3] * x.shape[4]
    count = x.new_full((len(x), 1), voxels, dtype=kind) if m is None else m.sum((2, 3, 4), dtype=kind)
    mean, var = _Moments.apply(x, m, count.clamp_min(1))
    return Moments(mean, var, count)


def affine(
    x: Float[Tensor, "b c i j k"],
    scale: Float[Tensor, "b c"],
    shift: Float[Tensor, "b c"],
    m: Bool[Tensor, "b 1 i j k"] | None = None,
) -> Float[Tensor, "b c i j k"]:
    """Scales and shifts each sample's channels where `m` holds; elsewhere zero."""
    return _Affine.apply(x, scale, shift, m)


def spread(x: Float[Tensor, "b c"]) -> Float[Tensor, "b c 1 1 1"]:
    """One number per sample and channel, ready to meet a volume."""
    return x[..., None, None, None]


def merge(
    mean: Float[Tensor, "*n"], var: Float[Tensor, "*n"], weight: Float[Tensor, "*#n"], dim: int
) -> tuple[Float[Tensor, "*m"], Float[Tensor, "*m"]]:
    """The moments of the union of sets along `dim`, kept as an axis of one; `weight` are the sets' sizes."""
    share = weight / weight.sum(dim, keepdim=True).clamp_min(1)
    whole = (share * mean).sum(dim, keepdim=True)
    return whole, (share * (var + (mean - whole).square())).sum(dim, keepdim=True)


def scale_and_shift(norm: nn.Module, seen: Moments) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """What `norm` multiplies each sample's channels by, and adds, given what was seen; batch norm remembers it."""
    if isinstance(norm, ResponseNorm):
        response = (seen.var + seen.mean.square() + norm.eps).sqrt()
        return 1 + norm.weight * response / response.mean(1, keepdim=True), norm.bias.expand_as(response)
    if isinstance(norm, nn.InstanceNorm3d):
        mean, var = seen.mean, seen.var
    elif isinstance(norm, nn.GroupNorm):
        mean, var = _over_groups(seen, norm.num_groups)
    elif isinstance(norm, nn.modules.batchnorm._BatchNorm):
        mean, var = _over_batch(norm, seen)
    else:
        raise TypeError(f"{type(norm).__name__} has no masked form; use one of instance, group, batch, layer")
    scale = norm.weight * torch.rsqrt(var + norm.eps)
    return scale, norm.bias - mean * scale


def _over_groups(seen: Moments, groups: int) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    b, c = seen.mean.shape
    grouped = (b, groups, c // groups)
    one = torch.ones_like(seen.mean).view(grouped)
    mean, var = merge(seen.mean.view(grouped), seen.var.view(grouped), one, 2)
    return mean.expand(grouped).reshape(b, c), var.expand(grouped).reshape(b, c)


def _over_batch(norm: nn.modules.batchnorm._BatchNorm, seen: Moments) -> tuple[Tensor, Tensor]:
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        return norm.running_mean.expand_as(seen.mean), norm.running_var.expand_as(seen.var)
    everywhere = _from_all_ranks(seen)
    mean, var = merge(everywhere.mean, everywhere.var, everywhere.count, 0)
    _remember(norm, mean[0].detach(), var[0].detach(), everywhere.count.sum())
    return mean.expand_as(seen.mean), var.expand_as(seen.var)


def _from_all_ranks(seen: Moments) -> Moments:
    """One row per rank's sample: gradients flow back to the rank that each came from."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return seen
    return Moments(*(torch.cat(all_gather(part.contiguous())) for part in (seen.mean, seen.var, seen.count)))


def _remember(
    norm: nn.modules.batchnorm._BatchNorm, mean: Float[Tensor, "c"], var: Float[Tensor, "c"], n: Shaped[Tensor, ""]
) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.item()
    norm.running_mean.lerp_(mean, rate)
    norm.running_var.lerp_(var * n / (n - 1).clamp_min(1), rate)


class _Moments(torch.autograd.Function):
    """Two passes over `x` and one back; autograd's own would keep a second copy of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, m: Tensor | None, count: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.sum((2, 3, 4), dtype=count.dtype) / count
        apart = x - spread(mean)
        if m is not None:
            apart *= m
        var = apart.square_().sum((2, 3, 4)) / count
        ctx.save_for_backward(x, mean, count)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_mean: Tensor, to_var: Tensor) -> tuple[Tensor, None, None]:
        x, mean, count = ctx.saved_tensors
        slope = 2 * to_var / count
        return (
            torch.addcmul(spread(to_mean / count - slope * mean), x.to(slope.dtype), spread(slope)).to(x.dtype),
            None,
            None,
        )


class _Affine(torch.autograd.Function):
    """One pass over `x`, of which only `x` itself is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, m: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale, m)
        y = torch.addcmul(spread(shift), x.to(scale.dtype), spread(scale))
        if m is not None:
            y *= m
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, m = ctx.saved_tensors
        grad = grad.to(scale.dtype) if m is None else grad.to(scale.dtype) * m
        to_scale = (grad * x).sum((2, 3, 4))
        return (grad * spread(scale)).to(x.dtype), to_scale, grad.sum((2, 3, 4)), None


def norm_of(norm: MonaiNorm, channels: int) -> tuple[str, dict[str, Any]]:
    """A norm as MONAI asks for it, for networks whose widths are multiples of `channels`."""
    kinds: dict[str, dict[str, Any]] = {
        "instance": {"affine": True},
        "group": {"num_groups": groups(channels), "affine": True},
        "batch": {},
    }
    return norm, kinds[norm]
