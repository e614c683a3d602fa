"""The base classes of self-supervised objectives, which compute a loss from unlabelled crops."""

import math
from dataclasses import replace
from typing import Literal

from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from medssl.data.crops import Crops, median_spacing_mm
from medssl.data.transforms.patch_mask import PatchMask
from medssl.errors import BadInput
from medssl.nn import masks
from medssl.nn.collectives import all_gather_rows
from medssl.nn.encoder import Encoder, count_patches
from medssl.nn.executor import Triple
from medssl.nn.patches import average_patches, normalize_patches
from medssl.nn.step import Step
from medssl.settings import Settings

MIN_PATCHES = 16
MIN_TARGET_FRACTION = 0.1  # of the voxels of a patch that must be targets


class Objective(nn.Module):
    """Computes a loss from unlabelled crops to train an encoder.

    Attributes:
        views: Number of crops of each volume.
        is_contrastive: Whether the objective compares embeddings; if so, each step returns positive pairs.
        allows_spatial_augmentation: Whether crops may be rotated and scaled. False if the objective compares positions
            by patient coordinates, so that crops have to keep the geometry they were cut with.
        learns_from_labels: Whether crops may carry labels, which the objective then learns from.
        min_spread_fraction: Spread of the embeddings, as a fraction of that of the untrained network, below which a
            training counts as collapsed.
    """

    views: int = 1
    is_contrastive: bool = False
    allows_spatial_augmentation: bool = True
    learns_from_labels: bool = False
    min_spread_fraction: float = 0.4

    def __init__(self, config: Settings, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops of this shape cannot be trained on; only the shape is used."""
        count_patches(x, self.encoder.patch)

    def prepare(self, crops: Crops) -> Crops:
        """Adds what can be drawn before a batch moves to the device, so that a step need not wait for the device."""
        return crops

    def step(self, crops: Crops) -> Step:
        """Computes the loss of a batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Runs after each optimizer step, for example to update an EMA of the weights; does nothing by default."""

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the modules that finetuning can start from: always the encoder, and a decoder of the same type."""
        return {"encoder": self.encoder}

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns named volumes of the first crop that illustrate the objective; none by default."""
        return {}


class MaskConfig(Settings):
    """Settings of masking, and of what is reconstructed."""

    mask_ratio: masks.MaskRatio = Field(
        0.75, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    patch_strides: PositiveInt = Field(
        1, description="side of a masked patch as a multiple of the encoder's total stride"
    )
    patch_mm: float | None = Field(
        None,
        gt=0,
        description="side of a masked patch in mm, rounded along each axis to a size that fits the encoder's levels;"
        " null takes patch_strides. In spark, patches smaller than the total stride run dense kernels, which is slower",
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    target: Literal["normalized", "raw"] = Field(
        "normalized",
        description="what is reconstructed: intensities normalized to mean 0 and variance 1 within each patch, or raw"
        " intensities, which differ between patches as well",
    )
    target_range: tuple[float, float] | None = Field(
        None,
        description="only voxels with an intensity strictly between these are targets; [0, 1] leaves out padding, air"
        " and removed faces (0) and metal (1). null takes all voxels of a body patch",
    )
    seed: int = Field(0, ge=0, description="seed of the masks")

    @model_validator(mode="after")
    def _check_patches_and_target(self) -> "MaskConfig":
        if self.patch_mm is not None and self.patch_strides > 1:
            raise ValueError("patch_strides and patch_mm both set the size of a patch: give one of them")
        if self.target_range is not None and self.target_range[0] >= self.target_range[1]:
            raise ValueError(f"target_range {list(self.target_range)} must go from low to high, for example [0, 1]")
        return self


class MaskedObjective(Objective):
    """The base class of objectives that reconstruct hidden patches."""

    config: MaskConfig

    def __init__(self, config: MaskConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.draws = masks.SeededGenerators(config.seed)

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        count_patches(x, self.encoder.patch)
        if not self.config.patch_mm:
            require_enough_patches(x, self._multiply_stride(), self.encoder.strides)

    def prepare(self, crops: Crops) -> Crops:
        """Draws the mask of a batch; drawn on the host, its number of visible patches is known without a device."""
        spacing_mm = median_spacing_mm(all_gather_rows(crops.affine))
        visible, body = self.sample_mask(crops.reconstruction_target(), spacing_mm)
        return replace(crops, mask=PatchMask(visible, body, int(visible.sum())))

    def require_mask(self, crops: Crops) -> PatchMask:
        """Returns the mask of a batch, and draws it if there is none yet."""
        return crops.mask or self.require_mask(self.prepare(crops))

    def sample_mask(
        self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Returns which patches are visible, and which hold body.

        Args:
            x: Crops without mask.
            spacing_mm: Their voxel spacing, which `patch_mm` refers to.
        """
        self.check_crop(x)
        body = masks.find_body_patches(x, self.choose_patch(x, spacing_mm), self.config.air_threshold)
        return masks.sample_visible(body, self.config.mask_ratio, self.draws(), self.shows_air), body

    @property
    def shows_air(self) -> bool:
        """Whether all air is visible."""
        return False

    def choose_patch(self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float]) -> Triple:
        """Returns the size of a patch in voxels for crops with a voxel spacing; refuses crops with too few patches."""
        patch = self._multiply_stride()
        if self.config.patch_mm:
            size = (x.shape[2], x.shape[3], x.shape[4])
            patch = masks.choose_patch(self.config.patch_mm, spacing_mm, self.encoder.strides, size)
        require_enough_patches(x, patch, self.encoder.strides)
        return patch

    def build_target(self, x: Float[Tensor, "b c i j k"], patch: Triple) -> Float[Tensor, "b c i j k"]:
        """Returns what is reconstructed, for crops without mask and the size of a patch in voxels."""
        if self.config.target == "raw":
            return x.float()
        return normalize_patches(x, patch, self.find_target_voxels(x))[0]

    def to_intensities(
        self, reconstruction: Float[Tensor, "b c i j k"], x: Float[Tensor, "b c i j k"], patch: Triple
    ) -> Float[Tensor, "b c i j k"]:
        """Returns a reconstruction as intensities; a normalized one gets the true mean and deviation of each patch."""
        if self.config.target == "raw":
            return reconstruction.float()
        _, mean, std = normalize_patches(x, patch, self.find_target_voxels(x))
        return reconstruction.float() * std + mean

    def find_target_voxels(self, x: Float[Tensor, "b c i j k"]) -> Bool[Tensor, "b c i j k"] | None:
        """Returns which voxels of crops are targets; None if all are."""
        if self.config.target_range is None:
            return None
        low, high = self.config.target_range
        return (x > low) & (x < high)

    def find_target_patches(self, x: Float[Tensor, "b c i j k"], patch: Triple) -> Bool[Tensor, "b 1 p q r"] | None:
        """Returns which patches have a tenth of their voxels as targets at least; None if all have."""
        voxels = self.find_target_voxels(x)
        if voxels is None:
            return None
        return average_patches(voxels.float(), patch).mean(1, keepdim=True) >= MIN_TARGET_FRACTION

    def _multiply_stride(self) -> Triple:
        i, j, k = (self.config.patch_strides * side for side in self.encoder.patch)
        return i, j, k


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
