"""Lengths of kernels: before a norm they change nothing of what a network says, but how far a step turns a kernel.

Van Laarhoven, "L2 Regularization versus Batch and Weight Normalization" (2017), https://arxiv.org/abs/1706.05350: the
longer a kernel that a norm follows, the slower it learns. A pretraining leaves them 1.4 to 3 times as long as fresh.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from medssl.errors import BadInput
from medssl.nn.encoders.residual import ConvNorm


def lengths(encoder: nn.Module) -> dict[str, float]:
    """The length of every kernel before a norm; refuses an encoder that is not made of such pairs."""
    found = {name: float(pair.conv.weight.detach().norm()) for name, pair in _pairs(encoder)}
    if not found:
        raise BadInput("rescale=true: is for residual encoders (residual, resenc), whose kernels norms follow")
    return found


@torch.no_grad()
def rescale(encoder: nn.Module, to: Mapping[str, float]) -> None:
    """Brings every kernel before a norm to a length."""
    for name, pair in _pairs(encoder):
        by = to[name] / pair.conv.weight.norm().clamp_min(1e-12)
        for weight in pair.conv.parameters():
            weight.mul_(by)


def _pairs(encoder: nn.Module) -> Iterator[tuple[str, ConvNorm]]:
    for name, module in encoder.named_modules():
        if isinstance(module, ConvNorm):
            yield name, module
