"""SparK in 3D: hides patches of a volume from a CNN and trains it to reconstruct them.

Tian et al., "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling" (2023),
https://arxiv.org/abs/2301.03580; in 3D: Wald et al., "Revisiting MAE pre-training for 3D medical image segmentation"
(CVPR 2025), https://arxiv.org/abs/2410.23132. Deviation: the input is masked before the first convolution as well, so
that hidden voxels have no effect; public 3D code masks features only.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn import masks, norms
from medssl.nn.decoder import LightDecoder, SegmentationHead, UNetDecoder, choose_light_widths
from medssl.nn.encoder import Encoder, count_patches, expand_kernels
from medssl.nn.executor import Executor, Triple, upsample_mask
from medssl.nn.masks import masked_mean
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

MIN_PATCHES = 16


class Config(Settings):
    """Settings of masking and reconstruction."""

    name: Literal["spark"] = Field("spark", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.75, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    decoder: Literal["light", "unet"] = Field(
        "unet", description="unet: the decoder of finetuning; light: a narrow one, which is discarded"
    )
    densify: Literal["convolution", "token"] = Field(
        "convolution",
        description="what fills hidden patches in front of the decoder. convolution: norm, token and convolution, as in"
        " SparK; the encoder alone is transferred. token: the token alone, so that the decoder reads the maps of"
        " finetuning; with decoder=unet it is transferred as well",
    )
    show_air: bool = Field(
        False, description="show all air instead of hiding it; finetuning always shows it, but it costs time here"
    )
    patch_mm: float | None = Field(
        None,
        gt=0,
        description="side of a masked patch in mm, rounded along each axis to a size that fits the encoder's levels;"
        " null is the encoder's total stride. Smaller patches than that run dense kernels, at the cost of speed",
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    seed: int = Field(0, ge=0, description="seed of the masks")

    @model_validator(mode="after")
    def _check_densify(self) -> "Config":
        if (self.decoder, self.densify) == ("light", "token"):
            raise ValueError("densify=token: a light decoder is narrower than the encoder's maps; give decoder=unet")
        return self


class Spark(Objective):
    """Reconstructs hidden patches, each normalised to mean 0 and variance 1, from the visible patches."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        light = config.decoder == "light"
        widths = choose_light_widths(encoder.channels) if light else encoder.channels
        if config.densify == "token":
            self.densify: nn.ModuleList = nn.ModuleList(TokenFill(c) for c in encoder.channels)
        else:
            kernels = [*expand_kernels(encoder.kernels, len(widths))[:-1], (1, 1, 1)]
            levels = zip(encoder.channels, widths, kernels, strict=True)
            self.densify = nn.ModuleList(Densify(c, width, kernel) for c, width, kernel in levels)
        self.decoder = (LightDecoder if light else UNetDecoder)(widths, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(widths[0], encoder.in_channels, encoder.strides[0])
        self.draws = masks.SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on hidden body patches; the error on visible ones is logged only."""
        x, target = crops.x.flatten(0, 1), crops.reconstruction_target()
        visible, body = self.sample_mask(target, crops.spacing_mm())
        return self.compute_loss(self.reconstruct(x, visible), target, visible, body)

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        check_masked_crop(x, self.encoder, self.config.patch_mm)

    def sample_mask(
        self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Returns which patches are visible, and which hold body.

        Args:
            x: Crops without mask.
            spacing_mm: Their voxel spacing, which `patch_mm` refers to.
        """
        self.check_crop(x)
        patch = choose_mask_patch(x, self.encoder, self.config.patch_mm, spacing_mm)
        body = masks.find_body_patches(x, patch, self.config.air_threshold)
        return masks.sample_visible(body, self.config.mask_ratio, self.draws(), self.config.show_air), body

    def reconstruct(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"]
    ) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels from the visible patches, as intensities normalised within each patch."""
        executor = self.encoder.build_executor(x, visible)
        pyramid = self.encoder.features(x, executor)
        dense = [densify(level, executor) for densify, level in zip(self.densify, pyramid, strict=True)]
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
        target, _, _ = normalize_patches(x, patch)
        squared_error = (reconstruction.float() - target).square()
        error = average_patches(squared_error, patch).mean(1, keepdim=True)
        flat = average_patches(target.square(), patch).mean(1, keepdim=True)
        hidden = body & ~visible
        loss = masked_mean(error, hidden)
        logs = {
            "hidden": loss.detach(),
            "visible": masked_mean(error, body & visible).detach(),
            "flat": masked_mean(flat, hidden),
            "kept": visible.float().mean(),
        }
        return Step(loss, logs)

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
        x = crops.x[:1, 0]
        visible, _ = self.sample_mask(x, crops.spacing_mm())
        _, mean, std = normalize_patches(x, patch_size_of(visible, x))
        mask = upsample_mask(visible, (x.shape[2], x.shape[3], x.shape[4]))
        rebuilt = torch.where(mask, x, self.reconstruct(x, visible).float() * std + mean)
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


def patch_size_of(visible: Bool[Tensor, "b 1 p q r"], x: Float[Tensor, "b c i j k"]) -> Triple:
    """Returns the size in voxels of the patches of a mask."""
    i, j, k = (voxels // patches for voxels, patches in zip(x.shape[2:], visible.shape[2:], strict=True))
    return i, j, k


def normalize_patches(
    x: Float[Tensor, "b c i j k"], patch: Triple
) -> tuple[Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"], Float[Tensor, "b c i j k"]]:
    """Normalises each patch to mean 0 and variance 1; also returns the mean and standard deviation at each voxel."""
    x = x.float()
    size = (x.shape[2], x.shape[3], x.shape[4])
    mean = _upsample(average_patches(x, patch), size)
    std = _upsample((average_patches((x - mean).square(), patch) + 1e-6).sqrt(), size)
    return (x - mean) / std, mean, std


def average_patches(x: Float[Tensor, "b c i j k"], patch: Triple) -> Float[Tensor, "b c p q r"]:
    """Returns the mean of each patch."""
    return nn.functional.avg_pool3d(x, patch)


def check_masked_crop(x: Float[Tensor, "b c i j k"], encoder: Encoder, patch_mm: float | None) -> None:
    """Raises BadInput if crops do not fit the encoder; without `patch_mm`, also if they have too few patches."""
    if patch_mm:
        count_patches(x, encoder.patch)
    else:
        require_enough_patches(x, encoder.patch, encoder.strides)


def choose_mask_patch(
    x: Float[Tensor, "b c i j k"], encoder: Encoder, patch_mm: float | None, spacing_mm: tuple[float, float, float]
) -> Triple:
    """Returns the size of a mask's patch in voxels, see `masks.choose_patch`; raises BadInput if a crop has too few."""
    patch = masks.choose_patch(patch_mm, spacing_mm, encoder.strides, (x.shape[2], x.shape[3], x.shape[4]))
    require_enough_patches(x, patch, encoder.strides)
    return patch


def require_enough_patches(x: Float[Tensor, "b c i j k"], patch: Triple, strides: tuple[Triple, ...]) -> None:
    """Raises BadInput if crops have fewer than 16 patches; the message names a crop or stages that are sufficient.

    Args:
        x: Crops, of which only the shape is used.
        patch: Size of a patch in voxels.
        strides: Stride of each level of the encoder.
    """
    size = (x.shape[2], x.shape[3], x.shape[4])
    if math.prod(count_patches(x, patch)) >= MIN_PATCHES:
        return
    sufficient = list(size)
    while math.prod(n // c for n, c in zip(sufficient, patch, strict=True)) < MIN_PATCHES:
        axis = min(range(3), key=lambda a: sufficient[a] // patch[a])
        sufficient[axis] += patch[axis]
    stages = len(strides)
    while stages > 1 and _count_patches_of_stages(size, strides[:stages]) < MIN_PATCHES:
        stages -= 1
    raise BadInput(
        f"crop {size} has {math.prod(count_patches(x, patch))} patches of {patch} voxels, masking needs {MIN_PATCHES}: "
        f"use a crop of at least {tuple(sufficient)}, or {stages} of the encoder's {len(strides)} stages"
    )


def _count_patches_of_stages(size: Triple, strides: tuple[Triple, ...]) -> int:
    return math.prod(n // math.prod(axis) for n, axis in zip(size, zip(*strides, strict=True), strict=True))


def _upsample(x: Float[Tensor, "b c p q r"], size: Triple) -> Float[Tensor, "b c i j k"]:
    return nn.functional.interpolate(x, size, mode="nearest")
