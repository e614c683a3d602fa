"""JEPA: predicts the features that a teacher has of hidden patches, from the visible patches and their positions.

Assran et al., "Self-supervised learning from images with a joint-embedding predictive architecture" (2023),
https://arxiv.org/abs/2301.08243. Nothing is learnt about noise, which features do not hold. Deviations: a hierarchical
encoder, exactly masked as in SparK, instead of a vision transformer; single patches are hidden instead of blocks, and
air is no target.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.nn import masks
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.self_supervision.tokens import average_tokens, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import CellConfig, CellObjective, EncodedPatches


class Config(CellConfig):
    """Settings of masking, the predictor and the teacher."""

    name: Literal["jepa"] = Field("jepa", description="name of the objective")
    momentum: float = Field(0.99, ge=0, le=1, description="EMA decay of the teacher")


class Jepa(CellObjective):
    """Predicts the coarsest features of hidden patches as the teacher computes them from the whole crop."""

    config: Config
    is_contrastive = True  # embeddings are compared, so they can collapse

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.teacher = copy_as_teacher(encoder)

    def step_encoded(self, crops: Crops, encoded: EncodedPatches) -> Step:
        """Computes the smooth L1 distance of predicted and true features, each normalised over its channels."""
        visible, tokens = encoded.mask.visible, encoded.coarsest_tokens()
        target = self.compute_target(crops.x.flatten(0, 1))
        predicted = self.predict(tokens, visible, crops.affine)
        error = F.smooth_l1_loss(predicted.float(), target, reduction="none").mean(-1)
        loss = masks.masked_mean(error, (encoded.mask.body & ~visible).flatten(1))
        logs = {"spread": target.std((0, 1)).mean(), "kept": visible.float().mean()}
        return Step(loss, logs, (average_tokens(tokens, visible.flatten(1)), target.mean(1)))

    def compute_target(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n d"]:
        """Returns the teacher's coarsest features of the whole crop, with mean 0 and variance 1 over the channels."""
        with torch.no_grad():
            tokens = to_tokens(self.teacher(x)[-1]).float()
        return F.layer_norm(tokens, tokens.shape[-1:])

    def after_step(self) -> None:
        """Lets the teacher follow the encoder."""
        follow(self.teacher, self.encoder, self.config.momentum)
