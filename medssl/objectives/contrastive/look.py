"""LOOK: a cell of a scan is to be near some cells of its class, not near all of them.

Feng et al., "Rethinking supervised pre-training for better downstream transferring" (2022),
https://arxiv.org/abs/2110.06014: each sample is classified by its nearest neighbours among the others. Cross-entropy
draws all samples of a class to one point, and so forgets in what they differ; here a class keeps its modes. Classes are
those of `labels`, or without labels parcels of similar intensity. Deviations: samples are cells of crops; each class
has the same weight in the mean, since most cells are background; and where no neighbour has the class of a cell, the
nearest cell that has it counts as one more, so that the loss is finite.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import all_gather_rows, divide_sums, draw_rows, get_rank, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.norms import LayerNorm
from medssl.nn.ring_buffer import RingBuffer
from medssl.nn.self_supervision.parcels import cluster_intensities
from medssl.nn.self_supervision.tokens import to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective, ProjectionHead
from medssl.settings import Settings

UNKNOWN = -1


class Config(Settings):
    """Settings of the classes and of the neighbours."""

    name: Literal["look"] = Field("look", description="name of the objective")
    num_classes: int | None = Field(
        None,
        ge=2,
        description="classes, with background; null: those of `labels`, or without labels 8 parcels",
    )
    num_cells: int = Field(128, ge=2, description="most cells of each crop that are compared, all of them different")
    num_neighbours: int = Field(32, ge=1, description="nearest cells that classify a cell; several for each class")
    memory: int = Field(4096, ge=0, description="cells of earlier steps among the possible neighbours")
    width: int = Field(128, ge=2, description="dimensions of an embedding")
    temperature: float = Field(0.1, gt=0, description="temperature of the votes of the neighbours")
    strength: float = Field(0.5, ge=0, le=1, description="strength of the random intensity change; 0 is none")
    seed: int = Field(0, ge=0, description="seed of cells and intensity changes")


class Look(Objective):
    """Classifies cells of the coarsest map by their nearest neighbours in the batch and in a memory."""

    config: Config
    learns_from_labels = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        width = config.width
        self.num_classes = config.num_classes or 8
        self.project = nn.Sequential(
            nn.Linear(encoder.channels[-1], width), LayerNorm(width), nn.GELU(), nn.Linear(width, width)
        )
        self.memory = RingBuffer(config.memory, embedding=torch.zeros(width), value=torch.tensor(UNKNOWN))
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the cross-entropy of the votes of the neighbours."""
        config, x, generator = self.config, crops.x.flatten(0, 1), self.draws()
        changed = perturb_intensity(x, split_generator(generator, len(x)), config.strength)
        coarsest = self.encoder(changed)[-1]
        values = self.find_cell_classes(crops, coarsest.shape[2:])
        chosen = draw_rows(values.shape, generator).argsort(1)[:, : config.num_cells].to(x.device)
        rows = torch.arange(len(x), device=x.device)[:, None]
        embeddings = F.normalize(self.project(to_tokens(coarsest)[rows, chosen]).float(), dim=-1).flatten(0, 1)
        own_values = values[rows, chosen].flatten()
        keys, key_values = all_gather_rows(embeddings), all_gather_rows(own_values)
        earlier = self.memory.valid_rows()
        number = (len(embeddings) * get_rank() + torch.arange(len(embeddings), device=x.device))[:, None]
        loss, votes = classify_by_neighbours(
            embeddings,
            own_values,
            torch.cat([keys, earlier["embedding"]]),
            torch.cat([key_values, earlier["value"]]),
            number,
            config.num_neighbours,
            config.temperature,
        )
        if self.training:
            self.memory.push(embedding=keys.detach(), value=key_values)
        counts = (own_values[:, None] == key_values).sum(1)  # cells of the same class, in all processes
        weights = (own_values != UNKNOWN) / counts.clamp_min(1)
        mean = divide_sums((loss * weights).sum(), weights.sum(), 1)
        return Step(mean, {"vote": ((votes * weights).sum() / weights.sum().clamp_min(1)).detach()})

    def projection_head(self) -> ProjectionHead:
        """Returns the layers that project features of cells to embeddings."""
        return ProjectionHead(self.project, lambda x: self.encoder(x)[-1])

    @torch.no_grad()
    def find_cell_classes(self, crops: Crops, grid: torch.Size) -> Int[Tensor, "b n"]:
        """Returns the most frequent class of each cell, or `UNKNOWN` where no voxel has a known one."""
        label = crops.label
        if label is None:
            means = crops.x.flatten(0, 1).float().mean(1).cpu()
            parcels = [cluster_intensities(scan.flatten(), self.num_classes).view(scan.shape) for scan in means]
            classes = torch.stack(parcels).to(crops.x.device)
        else:
            classes = label.flatten(0, 1)
        shares = F.one_hot(classes.clamp(0, self.num_classes - 1), self.num_classes).movedim(-1, 1).float()
        shares = F.adaptive_avg_pool3d(shares * (classes >= 0)[:, None], (grid[0], grid[1], grid[2]))
        largest, value = shares.flatten(2).max(1)
        return torch.where(largest > 0, value, UNKNOWN)


def classify_by_neighbours(
    queries: Float[Tensor, "m d"],
    values: Int[Tensor, "m"],
    keys: Float[Tensor, "n d"],
    key_values: Int[Tensor, "n"],
    own_key: Int[Tensor, "m 1"],
    num_neighbours: int,
    temperature: float,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Classifies each row by its nearest keys, of which its own is left out.

    Args:
        queries: Rows of unit length.
        values: Class of each row.
        keys: Rows of unit length that vote.
        key_values: Class of each key; keys without a known class do not vote.
        own_key: Number of the key that a row is itself.
        num_neighbours: Number of nearest keys that vote.
        temperature: Temperature of the votes.

    Returns:
        The negative logarithm of the votes for the class of each row, or 0 if there is no other row of the class; and
        the share of these votes.
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarity = (queries @ keys.mT / temperature).scatter(1, own_key, -torch.inf)
    similarity = similarity.masked_fill(key_values == UNKNOWN, -torch.inf)
    same = similarity.masked_fill(values[:, None] != key_values, -torch.inf)
    nearest = similarity.detach().topk(min(num_neighbours, similarity.shape[1])).indices
    best = same.detach().argmax(1, keepdim=True)
    votes = torch.zeros_like(similarity, dtype=torch.bool).scatter(1, nearest, True).scatter(1, best, True)
    total = similarity.masked_fill(~votes, -torch.inf).logsumexp(1)
    right = same.masked_fill(~votes, -torch.inf).logsumexp(1)
    has_peer = same.isfinite().any(1)
    loss = torch.where(has_peer, total, 0) - torch.where(has_peer, right, 0)
    return loss, torch.where(has_peer, (-loss).exp(), 0).detach()
