"""JEPA: predicts the features that a teacher has of hidden patches, from the visible patches and their positions.

Assran et al., "Self-supervised learning from images with a joint-embedding predictive architecture" (2023),
https://arxiv.org/abs/2301.08243. Nothing is learnt about noise, which features do not hold. Deviations: a hierarchical
encoder, exactly masked as in SparK, instead of a vision transformer; single patches are hidden instead of blocks, and
air is no target.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.data.crops import Crops, median_spacing_mm
from medssl.nn import masks
from medssl.nn.collectives import all_gather_rows
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.cell_predictor import NUM_HEADS, CellPredictor
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.self_supervision.tokens import average_tokens, cell_positions_mm, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective, require_enough_patches
from medssl.settings import Settings


class Config(Settings):
    """Settings of masking, the predictor and the teacher."""

    name: Literal["jepa"] = Field("jepa", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.75, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    width: int = Field(96, ge=6, multiple_of=NUM_HEADS, description="dimensions within the predictor")
    depth: int = Field(2, ge=1, description="attention blocks of the predictor")
    momentum: float = Field(0.99, ge=0, le=1, description="EMA decay of the teacher")
    seed: int = Field(0, ge=0, description="seed of the masks")


class Jepa(Objective):
    """Predicts the coarsest features of hidden patches as the teacher computes them from the whole crop."""

    config: Config
    is_contrastive = True  # embeddings are compared, so they can collapse

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.predictor = CellPredictor(encoder.channels[-1], config.width, config.depth)
        self.teacher = copy_as_teacher(encoder)
        self.draws = masks.SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the smooth L1 distance of predicted and true features, each normalised over its channels."""
        x = crops.x.flatten(0, 1)
        visible, body = self.sample_mask(x)
        target = self.compute_target(x)
        tokens, predicted = self.predict(x, visible, median_spacing_mm(all_gather_rows(crops.affine)))
        error = F.smooth_l1_loss(predicted.float(), target, reduction="none").mean(-1)
        hidden = (body & ~visible).flatten(1)
        loss = masks.masked_mean(error, hidden)
        logs = {"spread": target.std((0, 1)).mean(), "kept": visible.float().mean()}
        return Step(loss, logs, (average_tokens(tokens, visible.flatten(1)), target.mean(1)))

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        require_enough_patches(x, self.encoder.patch, self.encoder.strides)

    def sample_mask(self, x: Float[Tensor, "b c i j k"]) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Returns which patches are visible, and which hold body; a patch is a cell of the coarsest map."""
        self.check_crop(x)
        body = masks.find_body_patches(x, self.encoder.patch, self.config.air_threshold)
        return masks.sample_visible(body, self.config.mask_ratio, self.draws()), body

    def compute_target(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n d"]:
        """Returns the teacher's coarsest features of the whole crop, with mean 0 and variance 1 over the channels."""
        with torch.no_grad():
            tokens = to_tokens(self.teacher(x)[-1]).float()
        return F.layer_norm(tokens, tokens.shape[-1:])

    def predict(
        self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"], spacing_mm: tuple[float, float, float]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Returns the coarsest features of the visible patches, 0 where hidden, and the predictions of all patches."""
        executor = self.encoder.build_executor(x, visible)
        coarsest = executor.to_dense(self.encoder.features(x, executor)[-1])
        tokens, (p, q, r) = to_tokens(coarsest), coarsest.shape[2:]
        positions_mm = cell_positions_mm((p, q, r), self.encoder.patch, spacing_mm, x)
        return tokens, self.predictor(tokens, visible.flatten(1), positions_mm)

    def after_step(self) -> None:
        """Lets the teacher follow the encoder."""
        follow(self.teacher, self.encoder, self.config.momentum)
