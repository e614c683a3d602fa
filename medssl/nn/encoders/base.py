"""The base class of encoders, which turn a volume, fully or partly visible, into a feature pyramid."""

import logging
import math
import operator
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.nn.executor import Executor, MaskedExecutor, Triple
from medssl.nn.sparse import VisibleBlocks
from medssl.settings import Settings

log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Computes a feature pyramid, fine to coarse.

    Attributes:
        in_channels: Number of channels of the input volume.
        channels: Width of each level, fine to coarse.
        strides: Stride of each level, relative to the previous one.
        kernels: Kernel of each level, which a decoder uses as well; () is 3 along each axis.
        unmasked: Describes the layers that ignore a mask; "" if there are none. Such layers treat hidden patches as
            zeros and compute the whole volume; the values of hidden voxels still have no effect.
        upstream: The project with the same network, so that weights are interchangeable; "" if there is none.
        maps_per_channel: Number of maps of each input channel that the first convolution reads, channel by channel.
        dense: Under a mask, runs dense kernels and masks their results instead of running visible patches only.
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...] = ()
    unmasked = ""
    upstream: Literal["", "nnunet", "monai"] = ""
    maps_per_channel = 1
    dense = False
    input_moments: Tensor
    _has_warned = False

    def set_input_moments(self, mean_std: Sequence["MeanAndStd"]) -> None:
        """Sets the mean and standard deviation of each input channel that `standardize` uses.

        Raises:
            BadInput: If there is not one pair for each channel, or one for all.
        """
        if len(mean_std) not in (0, 1, self.in_channels):
            raise BadInput(
                f"encoder.input_mean_std has {len(mean_std)} pairs for {self.in_channels} input channels; give one pair"
                " of mean and standard deviation for each channel, or one for all"
            )
        pairs = [*mean_std] * (self.in_channels if len(mean_std) == 1 else 1)
        moments = torch.tensor(pairs).T[:, None, :, None, None, None] if pairs else torch.empty(0)
        # Not part of the state dict, which has the tensors of the upstream network.
        self.register_buffer("input_moments", moments, persistent=False)

    def rename_for_channels(self, key: str, channels: Sequence[int]) -> str:
        """Returns the name of a tensor in a network that has some input channels only, or "" if it lacks the tensor.

        Args:
            key: The name in a network of this kind with all input channels.
            channels: The number of each of the remaining input channels.
        """
        return key

    def standardize(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Subtracts the mean of each input channel and divides by its standard deviation, if they are set."""
        if self.input_moments.numel() == 0:
            return x
        mean, std = self.input_moments.to(x)
        return (x - mean) / std

    @property
    def sparse(self) -> bool:
        """Whether all layers compute visible patches only."""
        return not self.unmasked

    @property
    def patch(self) -> Triple:
        """The patch size of the mask in voxels, which is the total stride: a patch is hidden or visible as a whole."""
        i, j, k = (math.prod(axis) for axis in zip(*self.strides, strict=True))
        return i, j, k

    def forward(self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"] | None = None) -> list[Tensor]:
        """Computes the features of each level, fine to coarse.

        Args:
            x: The input volume.
            visible: Which patches are visible; None is all. Hidden patches have no effect, and are zero at every level.
                A patch may be larger or smaller than the total stride; a voxel of a coarse level with several patches
                is visible if one of them is.

        Raises:
            BadInput: If the total stride does not divide the volume, or patches do not align with the levels.
        """
        executor = self.build_executor(x, visible)
        return [executor.to_dense(level) for level in self.features(x, executor)]

    def features(self, x: Float[Tensor, "b c i j k"], executor: Executor) -> list[Tensor]:
        """Computes the features of each level in the storage format of the executor."""
        raise NotImplementedError

    def build_executor(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"] | None, num_visible: int | None = None
    ) -> Executor:
        """Builds the executor that runs the layers for a volume and a mask; see `forward` and `VisibleBlocks`."""
        expected = (x.shape[0], 1, *count_patches(x, self.patch))
        _check_bf16_depth(x, expected[2])
        if visible is None:
            return Executor()
        if not self._is_aligned(x, visible):
            raise BadInput(
                f"the mask is {tuple(visible.shape)}, these crops with patches of {self.patch} voxels need {expected}"
            )
        has_whole_patches = all(n % m == 0 for n, m in zip(expected[2:], visible.shape[2:], strict=True))
        if self.unmasked and not self._has_warned:
            name = type(self).__name__
            log.warning(
                "%s: %s treat hidden patches as zeros; hidden voxels do not leak, but no computation is saved",
                name, self.unmasked,
            )  # fmt: skip
            self._has_warned = True
        is_dense = self.dense or not self.sparse or not has_whole_patches
        return MaskedExecutor(visible) if is_dense else VisibleBlocks(visible, num_visible)

    def _is_aligned(self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"]) -> bool:
        """Returns whether the patches of a mask tile the volume, and tile or are tiled by the voxels of each level."""
        if visible.shape[:2] != (len(x), 1):
            return False
        for voxels, patches, strides in zip(
            x.shape[2:], visible.shape[2:], zip(*self.strides, strict=True), strict=True
        ):
            side, remainder = divmod(voxels, patches)
            products = accumulate(strides, operator.mul)
            if remainder or side < 1 or any(side % step and step % side for step in products):
                return False
        return True


class BaseEncoderConfig(Settings):
    """The base class of the settings of an encoder; a run stores them to rebuild it."""

    name: str = Field(description="name of the encoder")

    def build(self, in_channels: int) -> Encoder:
        """Builds the encoder with fresh weights."""
        raise NotImplementedError


MeanAndStd = tuple[float, PositiveFloat]


class StandardizingConfig(BaseEncoderConfig):
    """The base class of the settings of an encoder that can standardize its input itself."""

    input_mean_std: tuple[MeanAndStd, ...] = Field(
        (),
        description="mean and standard deviation, in units of the intensities from 0 to 1, that standardize each input"
        " channel in front of the first layer, as imported weights expect it; one pair is for all channels, () is off",
    )


def as_triples(strides: Sequence[int | Triple]) -> tuple[Triple, ...]:
    """Expands each stride to one number for each axis."""
    return tuple((s, s, s) if isinstance(s, int) else s for s in strides)


def check_levels(
    channels: Sequence[int], strides: Sequence[int | Triple], blocks: int | Sequence[int]
) -> tuple[int, ...]:
    """Returns the number of blocks of each level, or raises ValueError if channels, strides and blocks disagree."""
    levels = len(channels)
    depths = (blocks,) * levels if isinstance(blocks, int) else tuple(blocks)
    if len(strides) != levels or len(depths) != levels:
        raise ValueError(
            f"channels has {levels} levels, strides {len(strides)}, blocks {len(depths)}; give one entry for each level"
        )
    if min(*channels, *depths, *(min(s) for s in as_triples(strides))) < 1:
        raise ValueError("channels, strides and blocks must be at least 1")
    return depths


def expand_kernels(kernels: Sequence[int | Triple], levels: int) -> tuple[Triple, ...]:
    """Returns the kernel of each level along each axis; () is 3 for all.

    Raises:
        ValueError: If there is not one odd kernel for each level.
    """
    expanded = as_triples(kernels or (3,) * levels)
    if len(expanded) != levels:
        raise ValueError(f"kernels has {len(expanded)} levels, channels {levels}; give one kernel for each level")
    if any(side < 1 or side % 2 == 0 for kernel in expanded for side in kernel):
        raise ValueError(f"kernels {tuple(kernels)}: sizes must be odd, so that a kernel has a centre")
    return expanded


def count_patches(x: Float[Tensor, "b c i j k"], patch: Triple) -> Triple:
    """Returns the number of patches along each axis, or raises BadInput if they do not tile the volume."""
    size = tuple(x.shape[2:])
    if any(n % c for n, c in zip(size, patch, strict=True)):
        divisible = tuple(-(-n // c) * c for n, c in zip(size, patch, strict=True))
        raise BadInput(
            f"crop {size} is not divisible by the network's total stride {patch}; use {divisible} or other strides"
        )
    return size[0] // patch[0], size[1] // patch[1], size[2] // patch[2]


def _check_bf16_depth(x: Float[Tensor, "b c i j k"], patches: int) -> None:
    """Refuses crops for which torch 2.13 computes gradients in bf16 on a CPU from uninitialised memory."""
    is_training = torch.is_grad_enabled() and torch.is_autocast_enabled("cpu") and x.device.type == "cpu"
    if is_training and patches < 3:
        raise BadInput(
            f"crop {tuple(x.shape[2:])}: torch computes wrong gradients in bf16 on a CPU with fewer than 3 patches "
            f"along the first axis; use a crop of {3 * x.shape[2] // patches} there, or train.precision=32"
        )
