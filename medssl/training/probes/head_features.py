"""Features before a projection head and after each of its layers.

Chen et al., "A simple framework for contrastive learning of visual representations" (2020),
https://arxiv.org/abs/2002.05709, section 4.2, and Bordes et al., "Guillotine regularization: why removing layers is
needed to improve generalization in self-supervised learning" (2022), https://arxiv.org/abs/2206.13378. Deviation: the
head is applied at each place of a map, so that voxels can be classified; one that reads the mean and the maximum of a
crop reads those of one cell.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl import config
from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.objectives.base import Objective, ProjectionHead
from medssl.run import Run
from medssl.settings import Settings


class HeadFeatures(nn.Module):
    """Computes the map that a projection head reads, and what its first layers make of it.

    Args:
        objective: The objective, whose weights are used.
        head: Its projection head.
        depth: The number of linear layers to apply, each with the norm and the activation that follow it.
    """

    def __init__(self, objective: Objective, head: ProjectionHead, depth: int) -> None:
        super().__init__()
        self.objective, self.head = objective, head
        self.layers = nn.Sequential(*split_layers(head.layers)[:depth])

    def forward(self, x: Float[Tensor, "b c i j k"]) -> list[Tensor]:
        """Returns one feature map "b d p q r" of crops."""
        maps = self.head.read(x)
        rows = self.layers(maps.flatten(2).mT)
        return [rows.mT.unflatten(2, maps.shape[2:])]


def split_layers(layers: nn.Sequential) -> list[nn.Sequential]:
    """Splits a head into its linear layers, each with the norm and the activation that follow it."""
    modules = list(layers)
    starts = [n for n, layer in enumerate(modules) if isinstance(layer, nn.Linear)]
    return [nn.Sequential(*modules[first:last]) for first, last in pairwise([*starts, len(modules)])]


def build_head_features(run: Run, seed: int | None = None) -> list[HeadFeatures]:
    """Returns the features of a run before its projection head and after each layer; empty if it has no head.

    Args:
        run: A finished run.
        seed: Seed of fresh weights for encoder and head; None loads those of the run.
    """
    if run.projection is None:
        return []
    settings = config.check(
        {"objective": run.read_settings()["objective"]}, _ObjectiveSettings, str(run.path / "config.yaml")
    ).objective
    with torch.random.fork_rng():
        torch.manual_seed(seed or 0)
        objective: Objective = config.class_for_config(settings)(settings, TrainedModel.from_run(run).build_encoder())
    head = objective.projection_head()
    assert head is not None, "a run with a projection file has an objective without a head; this is a bug"
    if seed is None:
        weight_transfer.load_parts(run.weights, objective.transferable())
        weight_transfer.load_parts(run.projection, {"projection": head.layers})
    return [HeadFeatures(objective.eval(), head, depth) for depth in range(len(split_layers(head.layers)) + 1)]


class _ObjectiveSettings(Settings):
    """The settings of a pretraining that its objective is built from."""

    objective: config.module_choice("medssl.objectives") = Field(  # type: ignore[valid-type]
        description="the objective and its settings"
    )
