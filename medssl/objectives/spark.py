"""SparK in 3D: hide cells of a volume from a CNN and let a thrown-away or downstream decoder rebuild them.

Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (2023),
https://arxiv.org/abs/2301.03580; in 3D: Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation"
(CVPR 2025), https://arxiv.org/abs/2410.23132. Deviation: the input is masked before the first convolution as well, so
that hidden voxels change nothing, where public 3D code masks features only.
"""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn import masks, norms
from medssl.nn.decoder import Head, LightDecoder, UNetDecoder, light_widths
from medssl.nn.encoder import Encoder, cells
from medssl.nn.executor import Layout, Triple, enlarge
from medssl.nn.masks import mean_where
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

LEAST_CELLS = 16
Ratio = Annotated[float, Field(gt=0, lt=1)]


class Config(Settings):
    """How much is hidden, and who rebuilds it."""

    name: Literal["spark"] = "spark"
    ratio: Ratio | tuple[Ratio, Ratio] = 0.75
    decoder: Literal["light", "unet"] = "unet"
    air: float = Field(masks.AIR, ge=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _low_to_high(self) -> "Config":
        if isinstance(self.ratio, tuple) and self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio {self.ratio}: a range runs from low to high")
        return self


class Spark(Objective):
    """Rebuilds hidden cells, each normalised to mean 0 and variance 1, from the visible ones."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        light = config.decoder == "light"
        widths = light_widths(encoder.channels) if light else encoder.channels
        kernels = [3] * (len(widths) - 1) + [1]
        levels = zip(encoder.channels, widths, kernels, strict=True)
        self.densify = nn.ModuleList(Densify(c, w, k) for c, w, k in levels)
        self.decoder = (LightDecoder if light else UNetDecoder)(widths, encoder.strides)
        self.head = Head(widths[0], encoder.in_channels, encoder.strides[0])
        self.draws = masks.Draws(config.seed)

    def step(self, crops: Crops) -> Step:
        """The squared error on hidden body cells; the error on visible ones is logged beside it."""
        x, target = crops.x.flatten(0, 1), crops.target()
        keep, body = self.mask(target)
        return self.score(self.rebuild(x, keep), target, keep, body)

    def fits(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Refuses crops of too few cells to hide some of them."""
        enough_cells(x, self.encoder)

    def mask(self, x: Float[Tensor, "b c i j k"]) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Which cells are visible, and which are body."""
        self.fits(x)
        body = masks.body(x, self.encoder.cell, self.config.air)
        return masks.draw(body, self.config.ratio, self.draws()), body

    def rebuild(self, x: Float[Tensor, "b c i j k"], keep: Bool[Tensor, "b 1 p q r"]) -> Float[Tensor, "b c i j k"]:
        """Every voxel from the visible cells, in units of its own cell's normalised intensities."""
        on = self.encoder.layout(x, keep)
        pyramid = self.encoder.features(x, on)
        filled = [densify(level, on) for densify, level in zip(self.densify, pyramid, strict=True)]
        return self.head(self.decoder(filled)[0])

    def score(
        self,
        rebuilt: Float[Tensor, "b c i j k"],
        x: Float[Tensor, "b c i j k"],
        keep: Bool[Tensor, "b 1 p q r"],
        body: Bool[Tensor, "b 1 p q r"],
    ) -> Step:
        """The loss, and what to hold it against: `flat` is the error of each cell's own mean."""
        target, _, _ = normalised(x, self.encoder.cell)
        error = by_cell((rebuilt.float() - target).square(), self.encoder.cell).mean(1, keepdim=True)
        flat = by_cell(target.square(), self.encoder.cell).mean(1, keepdim=True)
        hidden = body & ~keep
        loss = mean_where(error, hidden)
        seen = mean_where(error, body & keep).detach()
        share = keep.float().mean()
        return Step(loss, {"hidden": loss.detach(), "visible": seen, "flat": mean_where(flat, hidden), "kept": share})

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder, and the decoder where it is the downstream one."""
        return super().transferable() | ({"decoder": self.decoder} if self.config.decoder == "unet" else {})

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """The first crop, what of it was visible, and hidden cells rebuilt with their true mean and spread."""
        x = crops.x[:1, 0]
        keep, _ = self.mask(x)
        _, mean, std = normalised(x, self.encoder.cell)
        visible = enlarge(keep, (x.shape[2], x.shape[3], x.shape[4]))
        rebuilt = torch.where(visible, x, self.rebuild(x, keep).float() * std + mean)
        return {"input": x[0], "visible": torch.where(visible, x, 0)[0], "rebuilt": rebuilt[0]}


class Densify(nn.Module):
    """Fills hidden cells of one level with a learned token, and convolves."""

    def __init__(self, inward: int, outward: int, kernel: int) -> None:
        super().__init__()
        self.norm = norms.make("instance", inward)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(inward), std=0.02))
        self.conv = nn.Conv3d(inward, outward, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, on: Layout) -> Float[Tensor, "b d i j k"]:
        """A dense level: nothing but densified maps reaches the decoder."""
        return on.densify(self.conv, on.norm(self.norm, x), self.token)


def normalised(
    x: Float[Tensor, "b c i j k"], cell: Triple
) -> tuple[Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"]]:
    """Each cell with mean 0 and variance 1, and the mean and standard deviation taken from each voxel."""
    x = x.float()
    size = (x.shape[2], x.shape[3], x.shape[4])
    mean = _enlarged(by_cell(x, cell), size)
    std = _enlarged((by_cell((x - mean).square(), cell) + 1e-6).sqrt(), size)
    return (x - mean) / std, mean, std


def by_cell(x: Float[Tensor, "b c i j k"], cell: Triple) -> Float[Tensor, "b c p q r"]:
    """The mean of each cell."""
    return nn.functional.avg_pool3d(x, cell)


def enough_cells(x: Float[Tensor, "b c i j k"], encoder: Encoder) -> None:
    """Refuses crops of fewer than 16 cells, and says which crop or how many stages would do."""
    size, cell = (x.shape[2], x.shape[3], x.shape[4]), encoder.cell
    if math.prod(cells(x, cell)) >= LEAST_CELLS:
        return
    fits = list(size)
    while math.prod(n // c for n, c in zip(fits, cell, strict=True)) < LEAST_CELLS:
        axis = min(range(3), key=lambda a: fits[a] // cell[a])
        fits[axis] += cell[axis]
    stages = len(encoder.strides)
    while stages > 1 and _cells_of(size, encoder.strides[:stages]) < LEAST_CELLS:
        stages -= 1
    raise BadInput(
        f"crop {size} has {math.prod(cells(x, cell))} cells of {cell}, masking needs {LEAST_CELLS}: "
        f"use a crop of at least {tuple(fits)}, or {stages} of the encoder's {len(encoder.strides)} stages"
    )


def _cells_of(size: Triple, strides: tuple[Triple, ...]) -> int:
    return math.prod(n // math.prod(axis) for n, axis in zip(size, zip(*strides, strict=True), strict=True))


def _enlarged(x: Float[Tensor, "b c p q r"], size: Triple) -> Float[Tensor, "b c i j k"]:
    return nn.functional.interpolate(x, size, mode="nearest")
