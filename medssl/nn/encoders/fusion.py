"""A residual encoder with a stem for each sequence, whose features are fused by gates over the sequences present.

Valada, Mohan & Burgard, "Self-supervised model adaptation for multimodal semantic segmentation", IJCV 2019,
https://arxiv.org/abs/1808.03833. Deviations, so that any sequence may be missing: a gate reads the features of its own
sequence only, and gates are a softmax over the sequences present, where SSMA has sigmoids of all features together and
another convolution; and sequences are fused once, at the finest level, which keeps the deeper levels shared.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.nn.encoders.base import Encoder
from medssl.nn.encoders.residual import ConvNorm, ResidualLevels, ResidualSettings, activate, run_levels
from medssl.nn.executor import Executor


class Config(ResidualSettings):
    """Settings with one entry for each level; the levels are those of `residual`."""

    name: Literal["fusion"] = Field("fusion", description="name of the encoder")

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        return FusionEncoder(self, in_channels)


class FusionEncoder(ResidualLevels):
    """A stem and a gate for each input channel, the sum of the gated features, and residual levels that are shared."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__(config, in_channels)
        width, kernel = config.channels[0], self.kernels[0]
        stems = (ConvNorm(1, width, config.norm, kernel, bias=config.bias) for _ in range(in_channels))
        self.stems = nn.ModuleList(stems)
        self.gates = nn.ModuleList(nn.Conv3d(width, width, 1) for _ in range(in_channels))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        present = find_present(executor.to_features(x), executor)
        sequences = executor.to_features(self.standardize(x)).split(1, 1)
        features = [activate(stem(s, executor)) for stem, s in zip(self.stems, sequences, strict=True)]
        logits = [executor.conv(gate, f) for gate, f in zip(self.gates, features, strict=True)]  # type: ignore[arg-type]
        return run_levels(self.levels, fuse(torch.stack(features), torch.stack(logits), present), executor)

    def rename_for_channels(self, key: str, channels: Sequence[int]) -> str:
        """Returns the name of a tensor in a network that has some input channels only, or "" if it lacks the tensor."""
        kind, number, *rest = key.split(".")
        if kind not in ("stems", "gates"):
            return key
        return ".".join([kind, str(channels.index(int(number))), *rest]) if int(number) in channels else ""


def find_present(x: Float[Tensor, "n s i j k"], executor: Executor) -> Bool[Tensor, "n s"]:
    """Returns which sequences are present in the crop that each row of the storage format belongs to.

    A sequence is present if one visible voxel of the crop is not zero. The executor has set hidden voxels to zero, so
    they have no effect: a sequence whose values are all hidden is absent.

    Args:
        x: The sequences in the storage format, before they are standardized.
        executor: Merges the patches of a crop.
    """
    by_row = (x != 0).flatten(2).any(2).to(x.dtype)[..., None, None, None]
    dense = executor.to_dense(by_row)
    return executor.to_features(dense.amax((2, 3, 4), keepdim=True).expand_as(dense)).flatten(1) > 0


def fuse(
    features: Float[Tensor, "s n c i j k"], logits: Float[Tensor, "s n c i j k"], present: Bool[Tensor, "n s"]
) -> Float[Tensor, "n c i j k"]:
    """Returns the sum over the sequences present of their features, weighted by a softmax of the logits.

    Absent sequences have a weight of exactly zero and no gradient; the sum is zero if no sequence is present.
    """
    mask = present.T[..., None, None, None, None]
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(0)
    return torch.where(mask, weights * features, 0).sum(0)
