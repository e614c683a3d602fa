"""SparK in 3D: hides patches of a volume from a CNN and trains it to reconstruct them.

Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (2023),
https://arxiv.org/abs/2301.03580; in 3D: Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation"
(CVPR 2025), https://arxiv.org/abs/2410.23132. Deviation: the input is masked before the first convolution as well, so
that hidden voxels have no effect; public 3D code masks features only.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn import norms
from medssl.nn.decoder import LightDecoder, SegmentationHead, UNetDecoder, choose_light_widths
from medssl.nn.encoder import Encoder, expand_kernels
from medssl.nn.executor import Executor, Triple, upsample_mask
from medssl.nn.masks import masked_mean
from medssl.nn.patches import average_patches, patch_size_of
from medssl.nn.step import Step
from medssl.objectives.base import EncodedPatches
from medssl.objectives.reconstruction.base import MaskConfig, ReconstructionObjective


class Config(MaskConfig):
    """Settings of masking and reconstruction."""

    name: Literal["spark"] = Field("spark", description="name of the objective")
    decoder: Literal["light", "unet"] | None = Field(
        None,
        description="light: a narrow decoder with one convolution a level, which is discarded; unet: the decoder of"
        " finetuning, which costs more than the encoder; null is light, and unet with densify=token",
    )
    densify: Literal["convolution", "token"] = Field(
        "convolution",
        description="what fills hidden patches in front of the decoder. convolution: norm, token and convolution, as in"
        " SparK; the encoder alone is transferred. token: the token alone, so that the decoder reads the maps of"
        " finetuning and is transferred as well",
    )
    show_air: bool = Field(
        False, description="show all air instead of hiding it; finetuning always shows it, but it costs time here"
    )

    @model_validator(mode="after")
    def _check_densify(self) -> "Config":
        if (self.decoder, self.densify) == ("light", "token"):
            raise ValueError("densify=token: a light decoder is narrower than the encoder's maps; give decoder=unet")
        return self

    @property
    def has_light_decoder(self) -> bool:
        """Whether the decoder is the narrow one."""
        return self.decoder == "light" or (self.decoder is None and self.densify == "convolution")


class Spark(ReconstructionObjective):
    """Reconstructs hidden patches from the visible patches."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        is_light = config.has_light_decoder
        widths = choose_light_widths(encoder.channels) if is_light else encoder.channels
        if config.densify == "token":
            self.densify: nn.ModuleList = nn.ModuleList(TokenFill(c) for c in encoder.channels)
        else:
            kernels = [*expand_kernels(encoder.kernels, len(widths))[:-1], (1, 1, 1)]
            levels = zip(encoder.channels, widths, kernels, strict=True)
            self.densify = nn.ModuleList(Densify(c, width, kernel) for c, width, kernel in levels)
        self.decoder = (LightDecoder if is_light else UNetDecoder)(widths, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(widths[0], encoder.in_channels, encoder.strides[0])

    @property
    def shows_air(self) -> bool:
        """Whether all air is visible."""
        return self.config.show_air

    def step_encoded(self, crops: Crops, encoded: EncodedPatches) -> Step:
        """Computes the squared error on hidden body patches; the error on visible ones is logged only."""
        reconstruction = self.decode(self.densify_levels(encoded.pyramid, encoded.executor))
        return self.compute_loss(reconstruction, crops.reconstruction_target(), encoded.mask.visible, encoded.mask.body)

    def reconstruct(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"], num_visible: int | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels from the visible patches, as values of the target."""
        executor = self.encoder.build_executor(x, visible, num_visible)
        return self.decode(self.densify_levels(self.encoder.features(x, executor), executor))

    def densify_levels(self, pyramid: list[Tensor], executor: Executor) -> list[Tensor]:
        """Fills the hidden patches of each level of a pyramid, which is in the storage format of an executor."""
        return [densify(level, executor) for densify, level in zip(self.densify, pyramid, strict=True)]

    def decode(self, dense: list[Tensor]) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels from a dense pyramid."""
        return self.head(self.decoder(dense)[0])

    def compute_loss(
        self,
        reconstruction: Float[Tensor, "b c i j k"],
        x: Float[Tensor, "b c i j k"],
        visible: Bool[Tensor, "b 1 p q r"],
        body: Bool[Tensor, "b 1 p q r"],
    ) -> Step:
        """Computes the loss on hidden body patches; `flat` in the logs is the error of predicting each patch's mean."""
        patch = patch_size_of(visible, x)
        target, where, patches = (
            self.build_target(x, patch),
            self.find_target_voxels(x),
            self.find_target_patches(x, patch),
        )
        squared_error = (reconstruction.float() - target).square()
        error = average_patches(squared_error, patch, where).mean(1, keepdim=True)
        flat = average_patches(target.square(), patch, where) - average_patches(target, patch, where).square()
        flat = flat.mean(1, keepdim=True)
        body = body if patches is None else body & patches
        hidden = body & ~visible
        loss = masked_mean(error, hidden)
        logs = {
            "hidden": loss.detach(),
            "visible": masked_mean(error, body & visible).detach(),
            "flat": masked_mean(flat, hidden),
            "kept": visible.float().mean(),
        }
        return self.add_spectral_error(Step(loss, logs), reconstruction, target, hidden, where)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder, and the decoder if it has read the maps of the encoder as finetuning feeds them to it.

        A decoder behind densifying convolutions has not: fed with the encoder's own maps it reconstructs worse than a
        constant.
        """
        has_read_maps = self.config.densify == "token"
        return super().transferable() | ({"decoder": self.decoder} if has_read_maps else {})

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, its visible voxels, and its reconstruction with the true mean of each patch."""
        visible, _ = self.sample_mask(crops.x[:1, 0], crops.spacing_mm())
        return self.preview_mask(crops, visible)

    @torch.no_grad()
    def preview_mask(self, crops: Crops, visible: Bool[Tensor, "a 1 p q r"]) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the first crop, what a mask shows of it, and its reconstruction."""
        x, visible = crops.x[:1, 0], visible[:1]
        mask = upsample_mask(visible, (x.shape[2], x.shape[3], x.shape[4]))
        rebuilt = self.to_intensities(self.reconstruct(x, visible), x, patch_size_of(visible, x))
        rebuilt = torch.where(mask, x, rebuilt)
        return {"input": x[0], "visible": torch.where(mask, x, 0)[0], "rebuilt": rebuilt[0]}


class Densify(nn.Module):
    """Fills the hidden patches of one level with a learned token, and convolves."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple) -> None:
        super().__init__()
        self.norm = norms.build_norm("instance", in_channels)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(in_channels), std=0.02))
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        )

    def forward(self, x: Tensor, executor: Executor) -> Float[Tensor, "b d i j k"]:
        """Returns a dense feature map for the decoder."""
        return executor.densify(self.conv, executor.norm(self.norm, x), self.token)


class TokenFill(nn.Module):
    """Fills the hidden patches of one level with a learned token, and leaves the visible ones as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02))

    def forward(self, x: Tensor, executor: Executor) -> Float[Tensor, "b c i j k"]:
        """Returns a dense feature map for the decoder."""
        return executor.to_dense(x, self.token)
