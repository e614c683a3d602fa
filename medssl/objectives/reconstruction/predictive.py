"""Prediction of the next slab: the network sees a crop up to a plane, and reconstructs the patches behind it.

Predictive coding in the order of the slices: Lotter et al., "Deep predictive coding networks for video prediction and
unsupervised learning" (2016), https://arxiv.org/abs/1605.08104, predict the next frame of a video. Deviations: encoder,
masking and decoder are those of SparK, so that nothing behind the plane is read; and half of the crops are predicted
against the order of the slices.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from medssl.data.crops import Crops
from medssl.data.transforms.patch_mask import PatchMask
from medssl.errors import BadInput
from medssl.nn import masks
from medssl.nn.collectives import draw_rows
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.objectives.reconstruction.spark import Config as SparkConfig
from medssl.objectives.reconstruction.spark import Spark
from medssl.settings import Settings

AXES = ("i", "j", "k")


class Config(Settings):
    """Settings of the slabs, and of what is reconstructed."""

    name: Literal["predictive"] = Field("predictive", description="name of the objective")
    axis: Literal["i", "j", "k"] = Field("k", description="axis of the stored volume along which slabs follow")
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    target: Literal["normalized", "raw"] = Field(
        "raw",
        description="what is reconstructed: raw intensities, or intensities normalized to mean 0 and variance 1 within"
        " each patch, which leave texture alone to be predicted",
    )
    seed: int = Field(0, ge=0, description="seed of the planes and of the directions")


class Predictive(Objective):
    """Reconstructs the body patches of the slab behind a random plane from the body patches before it."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        shared = config.model_dump(include={"air_threshold", "target", "seed"})
        self.spark = Spark(SparkConfig(**shared), encoder)

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on the body patches of the next slab."""
        return self.spark.step(crops if crops.mask else self.prepare(crops))

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches, or fewer than two slabs along the axis."""
        self.spark.check_crop(x)
        axis = AXES.index(self.config.axis)
        if x.shape[axis + 2] < 2 * self.encoder.patch[axis]:
            raise BadInput(
                f"crop has {x.shape[axis + 2]} voxels along {self.config.axis}, two slabs need"
                f" {2 * self.encoder.patch[axis]}; use a larger crop, another objective.axis or fewer stages"
            )

    def prepare(self, crops: Crops) -> Crops:
        """Draws the planes of a batch, and hides what is behind them."""
        x = crops.reconstruction_target()
        self.check_crop(x)
        body = masks.find_body_patches(x, self.encoder.patch, self.config.air_threshold)
        visible, target = self.divide(body, self.spark.draws())
        return replace(crops, mask=PatchMask(visible, visible | target, int(visible.sum())))

    def divide(
        self, body: Bool[Tensor, "b 1 p q r"], generator: torch.Generator
    ) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Returns which patches are visible, and which are to be reconstructed: those of the slab behind the plane.

        A crop without body before the plane, or in the slab, is taken as a whole.
        """
        dim = AXES.index(self.config.axis) + 2
        count = body.shape[dim]
        draws = draw_rows((len(body), 2), generator).to(body.device)
        plane = 1 + (draws[:, 0] * (count - 1)).long()
        index = torch.arange(count, device=body.device).expand(len(body), -1)
        index = torch.where(draws[:, 1:] < 0.5, index, count - 1 - index)
        shape = [len(body), 1, 1, 1, 1]
        shape[dim] = count
        before, slab = (where.view(shape) for where in (index < plane[:, None], index == plane[:, None]))
        is_empty = ~((body & before).flatten(1).any(1) & (body & slab).flatten(1).any(1))
        body = body | is_empty[:, None, None, None, None]
        return body & before, body & slab

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, what is visible of it, and the reconstruction of all that is not."""
        mask = self.prepare(crops).mask
        assert mask is not None
        return self.spark.preview_mask(crops, mask.visible)
