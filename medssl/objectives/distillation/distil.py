"""Self-distillation: the features of a training that goes on with other data stay near those that it began with.

Lee et al., "Self-distillation for further pre-training of transformers" (2022), https://arxiv.org/abs/2210.02871. The
pretraining needs `start_from`, and a `sum` weighs this loss against the objective that goes on: the encoder of the
start is the teacher, and never changes. Deviations: the student starts from the teacher's weights instead of earlier
ones; and it sees crops whose intensities are changed, so that it learns from the teacher even while it equals it.
"""

from typing import Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.self_supervision.teacher import copy_as_teacher
from medssl.nn.self_supervision.tokens import to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """Settings of the student's crops."""

    name: Literal["distil"] = Field("distil", description="name of the objective")
    strength: float = Field(1.0, ge=0, le=1, description="strength of the random intensity change of a crop; 0 is none")
    seed: int = Field(0, ge=0, description="seed of the intensity changes")


class Distil(Objective):
    """Computes the distance of the coarsest features from those of the encoder that the training began with."""

    config: Config
    needs_start = True
    is_contrastive = True  # embeddings are compared, so they can collapse

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.teacher = copy_as_teacher(encoder)
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the mean squared distance of the features, each normalised over its channels."""
        x, generator = crops.x.flatten(0, 1), self.draws()
        with torch.no_grad():
            taught = to_tokens(self.teacher(x)[-1]).float()
        changed = perturb_intensity(x, split_generator(generator, len(x)), self.config.strength)
        tokens = to_tokens(self.encoder(changed)[-1]).float()
        size = tokens.shape[-1:]
        loss = (F.layer_norm(tokens, size) - F.layer_norm(taught, size)).square().mean()
        return Step(loss, {}, (tokens.mean(1).detach(), taught.mean(1)))
