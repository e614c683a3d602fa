"""Decoders that turn a feature pyramid into decoded maps, and the head that turns the finest map into voxels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.encoder import as_triples, expand_kernels
from medssl.nn.executor import Triple


class UNetDecoder(nn.Module):
    """The decoder of downstream tasks: each level upsamples, concatenates the skip connection and convolves.

    Ronneberger et al., "U-Net" (2015), https://arxiv.org/abs/1505.04597.

    Args:
        channels: Width of each level of the encoder, fine to coarse; the decoded maps have the same widths.
        strides: Stride of each level of the encoder.
        kernels: Kernel of each level of the encoder, which the decoder uses as well; () is 3 along each axis.
        convs: Number of convolutions of each level.
        norm: Norm behind each convolution.
        linear: Leaves out the last activation of the finest map.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int | Triple],
        kernels: Sequence[Triple] = (),
        convs: int = 2,
        norm: norms.Norm = "instance",
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = as_triples(strides)
        fine, coarse, steps = self.channels[:-1], self.channels[1:], self.strides[1:]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(c, f, s, s) for f, c, s in zip(fine, coarse, steps, strict=True))
        sides = expand_kernels(kernels, len(self.channels))
        self.merges = nn.ModuleList(
            _build_convs(2 * f, f, convs, norm, sides[n], linear and n == 0) for n, f in enumerate(fine)
        )

    def forward(self, pyramid: list[Tensor], finest: int = 0) -> list[Tensor]:
        """Decodes a pyramid.

        Args:
            pyramid: Features of each level, fine to coarse.
            finest: The finest level to decode.

        Returns:
            The decoded maps from level `finest` on, fine to coarse; the last one is the coarsest level of the pyramid.
        """
        maps = [pyramid[-1]]
        for n in reversed(range(finest, len(self.ups))):
            upsampled = self.ups[n](maps[0])
            maps.insert(0, self.merges[n](torch.cat([upsampled, pyramid[n]], 1)))
        return maps


class LightDecoder(nn.Module):
    """A narrow decoder for pretraining only: each level upsamples, adds the skip connection and convolves once.

    Args:
        channels: Width of each level of the decoder and of its input, fine to coarse.
        strides: Stride of each level of the encoder.
        kernels: Kernel of each level of the encoder, which the decoder uses as well; () is 3 along each axis.
        norm: Norm behind each convolution.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int | Triple],
        kernels: Sequence[Triple] = (),
        norm: norms.Norm = "instance",
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = as_triples(strides)
        fine, coarse, steps = self.channels[:-1], self.channels[1:], self.strides[1:]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(c, f, s, s) for f, c, s in zip(fine, coarse, steps, strict=True))
        sides = expand_kernels(kernels, len(self.channels))
        self.merges = nn.ModuleList(_build_convs(f, f, 1, norm, sides[n]) for n, f in enumerate(fine))

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Returns the decoded map of each level of a pyramid, fine to coarse."""
        maps = [pyramid[-1]]
        for n in reversed(range(len(self.ups))):
            maps.insert(0, self.merges[n](self.ups[n](maps[0]) + pyramid[n]))
        return maps


class SegmentationHead(nn.Module):
    """Projects the finest decoded map to output channels at full resolution.

    Args:
        channels: Number of channels of the map.
        out: Number of output channels.
        stride: Stride of the first level of the encoder.
    """

    def __init__(self, channels: int, out: int, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(channels, out, 1)

    def forward(self, x: Float[Tensor, "b c p q r"]) -> Float[Tensor, "b d i j k"]:
        """Projects a map, and interpolates it if the first level has a stride."""
        y = self.conv(x)
        if max(self.stride) == 1:
            return y
        size = [n * s for n, s in zip(y.shape[2:], self.stride, strict=True)]
        return F.interpolate(y, size, mode="trilinear", align_corners=False)


def build_deep_heads(channels: Sequence[int], strides: Sequence[Triple], out: int, levels: int) -> nn.ModuleList:
    """Builds the heads of deep supervision: one for each of the finest decoded maps, fine to coarse.

    Args:
        channels: Width of each level of the encoder, fine to coarse.
        strides: Stride of each level of the encoder; the finest head interpolates over that of the first level.
        out: Number of output channels.
        levels: Number of maps with a head.
    """
    finest = SegmentationHead(channels[0], out, strides[0])
    return nn.ModuleList([finest, *(SegmentationHead(width, out) for width in channels[1:levels])])


def choose_light_widths(channels: Sequence[int]) -> tuple[int, ...]:
    """Returns the widths of a `LightDecoder`, which halve from coarse to fine and are at least 4.

    The coarsest width is a quarter of the width of the deepest level of the encoder.

    Args:
        channels: Width of each level of the encoder, fine to coarse.
    """
    levels = len(channels)
    return tuple(max(4, channels[-1] // 2 ** (levels + 1 - n)) for n in range(levels))


def _build_convs(
    in_channels: int, out_channels: int, convs: int, norm: norms.Norm, kernel: Triple, linear: bool = False
) -> nn.Sequential:
    """Builds blocks of convolution, norm and activation; `linear` leaves out the last activation."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    layers: list[nn.Module] = []
    for n in range(convs):
        layers += [
            nn.Conv3d(in_channels if n == 0 else out_channels, out_channels, kernel, 1, padding, bias=False),
            norms.build_norm(norm, out_channels),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers[: -1 if linear else None])
