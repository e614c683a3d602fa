"""The base classes of objectives that reconstruct hidden patches, and of those that restore whole crops."""

from typing import Any, Literal

from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from medssl.nn import masks
from medssl.nn.decoder import SegmentationHead, UNetDecoder
from medssl.nn.encoder import Encoder, count_patches
from medssl.nn.executor import Triple
from medssl.nn.patches import average_patches, compare_spectra, normalize_patches, patch_size_of
from medssl.nn.step import Step
from medssl.objectives.base import MaskedObjective, MaskSettings, Objective, require_enough_patches
from medssl.settings import Settings

MIN_TARGET_FRACTION = 0.1  # of the voxels of a patch that must be targets


class MaskConfig(MaskSettings):
    """Settings of masking, and of what is reconstructed."""

    patch_strides: PositiveInt = Field(
        1, description="side of a masked patch as a multiple of the encoder's total stride"
    )
    patch_mm: float | None = Field(
        None,
        gt=0,
        description="side of a masked patch in mm, rounded along each axis to a size that fits the encoder's levels;"
        " null takes patch_strides. In spark, patches smaller than the total stride run dense kernels, which is slower",
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

    spectral_weight: float = Field(
        0,
        ge=0,
        description="weight of the error of the amplitude spectrum of each hidden patch, which asks for texture"
        " wherever it lies; 0 leaves it out",
    )

    @model_validator(mode="after")
    def _check_patches_and_target(self) -> "MaskConfig":
        if self.patch_mm is not None and self.patch_strides > 1:
            raise ValueError("patch_strides and patch_mm both set the size of a patch: give one of them")
        if self.target_range is not None and self.target_range[0] >= self.target_range[1]:
            raise ValueError(f"target_range {list(self.target_range)} must go from low to high, for example [0, 1]")
        return self


class ReconstructionObjective(MaskedObjective):
    """The base class of objectives that reconstruct hidden patches."""

    config: MaskConfig

    def describe_masks(self) -> dict[str, Any]:
        """Returns the settings that masks follow from, with the size of a patch unless it is the default."""
        patch = self.config.model_dump(include={"patch_strides", "patch_mm"})
        has_own_patch = self.config.patch_strides > 1 or self.config.patch_mm
        air = {"show_air": True} if self.shows_air else {}
        return super().describe_masks() | (patch if has_own_patch else {}) | air

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        count_patches(x, self.encoder.patch)
        if not self.config.patch_mm:
            require_enough_patches(x, self._multiply_stride(), self.encoder.strides)

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

    def add_spectral_error(
        self,
        step: Step,
        reconstruction: Float[Tensor, "b c i j k"],
        target: Float[Tensor, "b c i j k"],
        hidden: Bool[Tensor, "b 1 p q r"],
        voxels: Bool[Tensor, "b c i j k"] | None,
    ) -> Step:
        """Adds the weighted error of the amplitude spectra of hidden patches to a step, if it has a weight.

        It is a form of the spectral loss that Ergün et al., "Masked and predictive self-supervised foundation models
        for 3D brain MRI" (2026), https://arxiv.org/abs/2606.13315, add to a masked autoencoder. Here each patch has a
        spectrum of its own, so that hidden patches alone are compared.

        Args:
            step: Loss and logs without it.
            reconstruction: What was predicted, as values of the target.
            target: What is reconstructed.
            hidden: The patches to compare.
            voxels: Which voxels are targets, the others being 0 in the comparison; None if all are.
        """
        if not self.config.spectral_weight:
            return step
        if voxels is not None:
            reconstruction, target = reconstruction * voxels, target * voxels
        errors = compare_spectra(reconstruction, target, patch_size_of(hidden, target)).mean(1, keepdim=True)
        error = masks.masked_mean(errors, hidden)
        return Step(step.loss + self.config.spectral_weight * error, step.logs | {"spectral": error.detach()})

    def _multiply_stride(self) -> Triple:
        i, j, k = (self.config.patch_strides * side for side in self.encoder.patch)
        return i, j, k


class RestorationObjective(Objective):
    """The base class of objectives that restore damaged crops with a U-Net.

    Args:
        config: Settings of the objective.
        encoder: Encoder to train.
        seed: Seed of the damage.
    """

    def __init__(self, config: Settings, encoder: Encoder, seed: int) -> None:
        super().__init__(config, encoder)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
        self.head = SegmentationHead(encoder.channels[0], encoder.in_channels, encoder.strides[0])
        self.draws = masks.SeededGenerators(seed)

    def restore(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c i j k"]:
        """Predicts the original crops."""
        return self.head(self.decoder(self.encoder(x))[0])

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}
