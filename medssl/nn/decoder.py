"""Decoders: a pyramid of features becomes decoded maps, fine to coarse, and a head makes voxels of the finest."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.nn import norms
from medssl.nn.encoder import triples
from medssl.nn.executor import Triple


class UNetDecoder(nn.Module):
    """The downstream decoder: upsample, concatenate the skip, two convolutions; one map a level, of the level's width.

    Ronneberger et al., "U-Net" (2015), https://arxiv.org/abs/1505.04597. The coarsest map is the pyramid's own. A
    `linear` one leaves its finest map as the norm gave it, without the activation behind.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int | Triple],
        convs: int = 2,
        norm: norms.Norm = "instance",
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = triples(strides)
        fine, coarse, steps = self.channels[:-1], self.channels[1:], self.strides[1:]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(c, f, s, s) for f, c, s in zip(fine, coarse, steps, strict=True))
        self.merges = nn.ModuleList(_convs(2 * f, f, convs, norm, linear and n == 0) for n, f in enumerate(fine))

    def forward(self, pyramid: list[Tensor], finest: int = 0) -> list[Tensor]:
        """Decoded maps, fine to coarse, at the resolutions of the pyramid from level `finest` on."""
        maps = [pyramid[-1]]
        for n in reversed(range(finest, len(self.ups))):
            raised = self.ups[n](maps[0])
            maps.insert(0, self.merges[n](torch.cat([raised, pyramid[n]], 1)))
        return maps


class LightDecoder(nn.Module):
    """A decoder to be thrown away: upsample, add the skip, one convolution; `channels` are its own, narrow widths."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int | Triple], norm: norms.Norm = "instance") -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.strides = triples(strides)
        fine, coarse, steps = self.channels[:-1], self.channels[1:], self.strides[1:]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(c, f, s, s) for f, c, s in zip(fine, coarse, steps, strict=True))
        self.merges = nn.ModuleList(_convs(f, f, 1, norm) for f in fine)

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Decoded maps, fine to coarse, at the resolutions of the pyramid."""
        maps = [pyramid[-1]]
        for n in reversed(range(len(self.ups))):
            maps.insert(0, self.merges[n](self.ups[n](maps[0]) + pyramid[n]))
        return maps


class Head(nn.Module):
    """One number per output channel and voxel, at full resolution whatever the finest map's is."""

    def __init__(self, channels: int, out: int, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(channels, out, 1)

    def forward(self, x: Float[Tensor, "b c p q r"]) -> Float[Tensor, "b d i j k"]:
        """The map projected, and interpolated where the first level strides."""
        y = self.conv(x)
        if max(self.stride) == 1:
            return y
        size = [n * s for n, s in zip(y.shape[2:], self.stride, strict=True)]
        return F.interpolate(y, size, mode="trilinear", align_corners=False)


def light_widths(channels: Sequence[int]) -> tuple[int, ...]:
    """Widths that start at a quarter of the encoder's deepest one and halve at every finer level, never below 4."""
    levels = len(channels)
    return tuple(max(4, channels[-1] // 2 ** (levels + 1 - n)) for n in range(levels))


def _convs(inward: int, outward: int, convs: int, norm: norms.Norm, linear: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n in range(convs):
        layers += [
            nn.Conv3d(inward if n == 0 else outward, outward, 3, padding=1, bias=False),
            norms.make(norm, outward),
            nn.LeakyReLU(0.01),
        ]
    return nn.Sequential(*layers[: -1 if linear else None])
