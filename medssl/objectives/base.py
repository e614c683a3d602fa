"""The base classes of self-supervised objectives, which compute a loss from unlabelled crops."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops, median_spacing_mm
from medssl.data.transforms.patch_mask import PatchMask
from medssl.errors import BadInput
from medssl.nn import masks
from medssl.nn.collectives import all_gather_rows
from medssl.nn.encoder import Encoder, count_patches
from medssl.nn.executor import Executor, Triple
from medssl.nn.self_supervision.cell_predictor import NUM_HEADS, CellPredictor
from medssl.nn.self_supervision.tokens import cell_positions_mm, to_tokens
from medssl.nn.step import Step
from medssl.settings import Settings

MIN_PATCHES = 16


@dataclass(frozen=True)
class ProjectionHead:
    """The layers that a loss compares embeddings behind, and that a finetuning does not take over.

    Attributes:
        layers: The layers, which map the last axis.
        read: Returns what the layers read at each place of crops, as maps "b d p q r".
    """

    layers: nn.Sequential
    read: Callable[[Tensor], Tensor]


class Objective(nn.Module):
    """Computes a loss from unlabelled crops to train an encoder.

    Attributes:
        views: Number of crops of each volume.
        is_contrastive: Whether the objective compares embeddings; if so, each step returns positive pairs.
        allows_spatial_augmentation: Whether crops may be rotated and scaled. False if the objective compares positions
            by patient coordinates, so that crops have to keep the geometry they were cut with.
        learns_from_labels: Whether crops may carry labels, which the objective then learns from.
        needs_start: Whether it compares with the encoder that the training starts from.
        min_spread_fraction: Spread of the embeddings, as a fraction of that of the untrained network, below which a
            training counts as collapsed.
    """

    views: int = 1
    is_contrastive: bool = False
    allows_spatial_augmentation: bool = True
    learns_from_labels: bool = False
    needs_start: bool = False
    min_spread_fraction: float = 0.4

    def __init__(self, config: Settings, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops of this shape cannot be trained on; only the shape is used."""
        count_patches(x, self.encoder.patch)

    def read_cases(self, cases: Sequence[str]) -> None:
        """Reads what the objective knows of the cases that crops are cut from; nothing by default.

        Args:
            cases: The id of each volume, in the order of `crops.volume`.
        """

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

    def projection_head(self) -> ProjectionHead | None:
        """Returns the projection head; None if there is none, as by default."""
        return None

    def read_cells(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """Returns the coarsest features twice, which are the mean and the maximum of each cell by itself.

        A projection head for the mean and the maximum of a crop reads them as crops of one cell.
        """
        return torch.cat([self.encoder(x)[-1]] * 2, 1)

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns named volumes of the first crop that illustrate the objective; none by default."""
        return {}


class MaskSettings(Settings):
    """Settings of masking."""

    mask_ratio: masks.MaskRatio = Field(
        0.75, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    seed: int = Field(0, ge=0, description="seed of the masks")


@dataclass(frozen=True)
class EncodedPatches:
    """The pyramid of the visible patches of a batch, in the storage format of its executor."""

    mask: PatchMask
    pyramid: list[Tensor]
    executor: Executor

    def coarsest_tokens(self) -> Float[Tensor, "b n d"]:
        """Returns the coarsest features as tokens, 0 where a patch is hidden."""
        return to_tokens(self.executor.to_dense(self.pyramid[-1]))


class MaskedObjective(Objective):
    """The base class of objectives that hide patches; by default a patch is a cell of the coarsest map.

    Attributes:
        reads_patches: Whether `step_encoded` computes the loss from the encoded visible patches, so that objectives
            with equal masks can share them.
    """

    config: MaskSettings
    reads_patches: bool = True

    def __init__(self, config: MaskSettings, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.draws = masks.SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the loss of a batch."""
        return self.step_encoded(crops, self.encode(crops))

    def step_encoded(self, crops: Crops, encoded: EncodedPatches) -> Step:
        """Computes the loss of a batch whose visible patches are encoded."""
        raise NotImplementedError

    def encode(self, crops: Crops) -> EncodedPatches:
        """Encodes the visible patches of a batch."""
        x, mask = crops.x.flatten(0, 1), self.require_mask(crops)
        executor = self.encoder.build_executor(x, mask.visible, mask.num_visible)
        return EncodedPatches(mask, self.encoder.features(x, executor), executor)

    def describe_masks(self) -> dict[str, Any]:
        """Returns the settings that masks follow from; objectives with equal ones draw equal masks."""
        return self.config.model_dump(include=set(MaskSettings.model_fields))

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        require_enough_patches(x, self.encoder.patch, self.encoder.strides)

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
            spacing_mm: Their voxel spacing.
        """
        self.check_crop(x)
        body = masks.find_body_patches(x, self.choose_patch(x, spacing_mm), self.config.air_threshold)
        return masks.sample_visible(body, self.config.mask_ratio, self.draws(), self.shows_air), body

    @property
    def shows_air(self) -> bool:
        """Whether all air is visible."""
        return False

    def choose_patch(self, x: Float[Tensor, "b c i j k"], spacing_mm: tuple[float, float, float]) -> Triple:
        """Returns the size of a patch in voxels for crops with a voxel spacing."""
        return self.encoder.patch


class CellConfig(MaskSettings):
    """Settings of masking, and of the predictor of hidden patches."""

    width: int = Field(96, ge=6, multiple_of=NUM_HEADS, description="dimensions within the predictor")
    depth: int = Field(2, ge=1, description="attention blocks of the predictor")


class CellObjective(MaskedObjective):
    """The base class of objectives that predict coarsest features of hidden patches from those of the visible ones."""

    config: CellConfig

    def __init__(self, config: CellConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.predictor = CellPredictor(encoder.channels[-1], config.width, config.depth)

    def predict(
        self, tokens: Float[Tensor, "b n d"], visible: Bool[Tensor, "b 1 p q r"], affine: Float[Tensor, "a v 4 4"]
    ) -> Float[Tensor, "b n e"]:
        """Returns the predictions of all patches.

        Args:
            tokens: Coarsest features; those of hidden patches are not read.
            visible: Which patches are visible.
            affine: Voxel index of a crop -> mm.
        """
        p, q, r = visible.shape[2:]
        spacing_mm = median_spacing_mm(all_gather_rows(affine))
        positions_mm = cell_positions_mm((p, q, r), self.encoder.patch, spacing_mm, tokens)
        return self.predictor(tokens, visible.flatten(1), positions_mm)


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
