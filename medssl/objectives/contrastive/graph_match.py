"""Graph matching: points of a crop, joined with their neighbours, are to find themselves in another view of the scan.

Nguyen et al., "LVM-Med: learning large-scale self-supervised vision models for medical imaging via second-order graph
matching" (2023), https://arxiv.org/abs/2306.11925. Deviations: the nodes are points of a crop instead of the crops of a
batch, so that a small batch suffices and neighbours are near in mm; and Sinkhorn's algorithm relaxes the matching.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from medssl.data.crops import Crops
from medssl.nn.encoder import Encoder
from medssl.nn.regions import apply_affine
from medssl.nn.self_supervision.graph_matching import join_neighbours, match_graphs
from medssl.nn.step import Step
from medssl.objectives.contrastive.base import PointConfig, PointObjective


class Config(PointConfig):
    """Settings of the graphs and of the matching."""

    name: Literal["graph_match"] = Field("graph_match", description="name of the objective")
    num_points: int = Field(16, ge=3, le=64, description="points of each crop, which are the nodes of its graph")
    num_neighbours: int = Field(4, ge=1, description="nearest points in mm that each point has an edge to")
    edge_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the edges relative to the nodes; with 0, points match by their embeddings alone",
    )
    temperature: float = Field(0.1, gt=0, description="temperature of the matching")

    @model_validator(mode="after")
    def _check_neighbours(self) -> "Config":
        if self.num_neighbours >= self.num_points:
            raise ValueError(
                f"num_neighbours {self.num_neighbours}: a point of {self.num_points} has at most {self.num_points - 1}"
                " neighbours; use fewer, or more num_points"
            )
        return self


class GraphMatch(PointObjective):
    """Matches the graph of a crop's points with that of the same points in another view."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder, encoder.channels[-1])

    def step(self, crops: Crops) -> Step:
        """Computes the Hamming distance of the matching to the identity, as a fraction of the points."""
        config = self.config
        a, b, points = self.embed_points(crops)
        edges = join_neighbours(apply_affine(points, crops.affine.flatten(0, 1)), config.num_neighbours)
        match = match_graphs(a, b, edges, edges, config.edge_weight, config.temperature)
        correct = torch.arange(config.num_points, device=match.device)
        accuracy = (match.argmax(2) == correct).float().mean()
        loss = 1 - match.diagonal(dim1=1, dim2=2).mean()
        return Step(loss, {"accuracy": accuracy}, (a[:, 0].detach(), b[:, 0].detach()))

    def compute_maps(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b d p q r"]:
        """Returns the coarsest maps; those of a decoder would tell the place of a point by their padding."""
        return self.encoder(x)[-1]
