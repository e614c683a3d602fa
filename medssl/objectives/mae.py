"""Masked reconstruction with a plain CNN: hidden patches are zeros in the input, and the U-Net reconstructs them.

He et al., "Masked autoencoders are scalable vision learners" (2022), https://arxiv.org/abs/2111.06377; with a dense CNN
in 3D: Wald et al., "An OpenMind for 3D medical vision self-supervised learning" (2025),
https://arxiv.org/abs/2412.17041. Deviation from the latter: each patch of the target is normalised, as in the former.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn import masks
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.executor import Triple, upsample_mask
from medssl.nn.masks import masked_mean
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.objectives.spark import check_masked_crop, choose_mask_patch, normalize_patches
from medssl.settings import Settings


class Config(Settings):
    """Settings of masking."""

    name: Literal["mae"] = Field("mae", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.75, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    patch_mm: float | None = Field(
        None,
        gt=0,
        description="side of a masked patch in mm, rounded along each axis to a size that fits the encoder's levels;"
        " null is the encoder's total stride",
    )
    seed: int = Field(0, ge=0, description="seed of the masks")


class Mae(Objective):
    """Reconstructs hidden patches, each normalised to mean 0 and variance 1, with a dense U-Net."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(encoder.channels[0], encoder.in_channels, encoder.strides[0])
        self.draws = masks.SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on hidden body voxels; predicting the mean of each patch has a loss of 1."""
        x, whole = crops.x.flatten(0, 1), crops.reconstruction_target()
        spacing_mm = crops.spacing_mm()
        visible, body = self.sample_mask(whole, spacing_mm)
        target, _, _ = normalize_patches(whole, self.choose_patch(whole, spacing_mm))
        error = (self.reconstruct(x, visible).float() - target).square().mean(1, keepdim=True)
        loss = masked_mean(error, body & ~visible)
        visible_error = masked_mean(error, body & visible).detach()
        return Step(loss, {"hidden": loss.detach(), "visible": visible_error, "kept": visible.float().mean()})

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        check_masked_crop(x, self.encoder, self.config.patch_mm)

    def choose_patch(self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float]) -> Triple:
        """Returns the size of a patch in voxels for crops with a voxel spacing."""
        return choose_mask_patch(x, self.encoder, self.config.patch_mm, spacing_mm)

    def sample_mask(
        self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Bool[Tensor, "b 1 i j k"], Bool[Tensor, "b 1 i j k"]]:
        """Returns which voxels are visible, and which lie in patches that hold body.

        Args:
            x: Crops without mask.
            spacing_mm: Their voxel spacing, which `patch_mm` refers to.
        """
        self.check_crop(x)
        size, patch = (x.shape[2], x.shape[3], x.shape[4]), self.choose_patch(x, spacing_mm)
        body = masks.find_body_patches(x, patch, self.config.air_threshold)
        visible = masks.sample_visible(body, self.config.mask_ratio, self.draws())
        return upsample_mask(visible, size), upsample_mask(body, size)

    def reconstruct(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 i j k"]
    ) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels from the visible ones, as intensities normalised within each patch."""
        return self.head(self.decoder(self.encoder(torch.where(visible, x, 0)))[0])

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its visible voxels, and its reconstruction with the true mean of each patch."""
        x = crops.x[:1, 0]
        visible, _ = self.sample_mask(x, crops.spacing_mm())
        _, mean, std = normalize_patches(x, self.choose_patch(x, crops.spacing_mm()))
        rebuilt = torch.where(visible, x, self.reconstruct(x, visible).float() * std + mean)
        return {"input": x[0], "visible": torch.where(visible, x, 0)[0], "rebuilt": rebuilt[0]}
