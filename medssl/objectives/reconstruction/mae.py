"""Masked reconstruction with a plain CNN: hidden patches are zeros in the input, and the U-Net reconstructs them.

He et al., "Masked autoencoders are scalable vision learners" (2022), https://arxiv.org/abs/2111.06377; with a dense CNN
in 3D: Wald et al., "An OpenMind for 3D medical vision self-supervised learning" (2025),
https://arxiv.org/abs/2412.17041. Deviation from the latter: each patch of the target is normalised by default, as in
the former.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.executor import upsample_mask
from medssl.nn.masks import masked_mean
from medssl.nn.patches import patch_size_of
from medssl.nn.step import Step
from medssl.objectives.reconstruction.base import MaskConfig, ReconstructionObjective


class Config(MaskConfig):
    """Settings of masking."""

    name: Literal["mae"] = Field("mae", description="name of the objective")


class Mae(ReconstructionObjective):
    """Reconstructs hidden patches with a dense U-Net."""

    config: Config
    reads_patches = False  # the network is dense

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(encoder.channels[0], encoder.in_channels, encoder.strides[0])

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on hidden body voxels."""
        x, whole = crops.x.flatten(0, 1), crops.reconstruction_target()
        size, mask = (x.shape[2], x.shape[3], x.shape[4]), self.require_mask(crops)
        visible, body = upsample_mask(mask.visible, size), upsample_mask(mask.body, size)
        target = self.build_target(whole, patch_size_of(mask.visible, whole))
        reconstruction = self.reconstruct(x, visible).float()
        error = (reconstruction - target).square()
        where = self.find_target_voxels(whole)
        if where is not None:
            error, body = error * where, body & where.any(1, keepdim=True)
        error = error.mean(1, keepdim=True)
        loss = masked_mean(error, body & ~visible)
        visible_error = masked_mean(error, body & visible).detach()
        step = Step(loss, {"hidden": loss.detach(), "visible": visible_error, "kept": visible.float().mean()})
        return self.add_spectral_error(step, reconstruction, target, mask.body & ~mask.visible, where)

    def reconstruct(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 i j k"]
    ) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels from the visible ones, as values of the target."""
        return self.head(self.decoder(self.encoder(torch.where(visible, x, 0)))[0])

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its visible voxels, and its reconstruction with the true mean of each patch."""
        x = crops.x[:1, 0]
        patches, _ = self.sample_mask(x, crops.spacing_mm())
        visible = upsample_mask(patches, (x.shape[2], x.shape[3], x.shape[4]))
        rebuilt = self.to_intensities(self.reconstruct(x, visible), x, patch_size_of(patches, x))
        rebuilt = torch.where(visible, x, rebuilt)
        return {"input": x[0], "visible": torch.where(visible, x, 0)[0], "rebuilt": rebuilt[0]}
