"""Alignment with radiology reports: a crop lies near the report of its own scan, and far from those of others.

Zhai et al., "Sigmoid loss for language image pre-training" (2023), https://arxiv.org/abs/2303.15343; Radford et al.,
"Learning transferable visual models from natural language supervision" (2021), https://arxiv.org/abs/2103.00020.
Deviations: the text encoder is frozen and its sentences are encoded before, so that training needs neither texts nor
the encoder; a report is augmented by taking the mean of some of its sentences; reports of other scans that are nearly
the same, as normal ones are, are no negatives; and the bias starts at 0, since batches are small.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.data.reports.embeddings import ReportEmbeddings
from medssl.data.transforms.intensity import perturb_intensity
from medssl.errors import BadInput
from medssl.nn.collectives import all_gather_rows, divide_sums, get_rank, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.self_supervision.global_head import GlobalHead
from medssl.nn.step import Step
from medssl.objectives.base import Objective, ProjectionHead
from medssl.settings import Settings


class Config(Settings):
    """Settings of the reports and of the loss."""

    name: Literal["report_align"] = Field("report_align", description="name of the objective")
    reports: Path | None = Field(None, description="file of `medssl encode-reports` with the reports of the scans")
    width: int = Field(384, ge=1, description="dimensions of the text encoder, which `medssl encode-reports` prints")
    keep: float = Field(0.5, gt=0, le=1, description="probability of each sentence to be kept; at least one is")
    max_similarity: float = Field(
        0.95, gt=-1, le=1, description="reports whose cosine similarity is larger are no negatives of each other"
    )
    strength: float = Field(0.5, ge=0, le=1, description="strength of the random intensity change; 0 is none")
    seed: int = Field(0, ge=0, description="seed of sentences and intensity changes")


class ReportAlign(Objective):
    """Distinguishes the report of a scan from those of other scans, by cosine similarity with a crop of the scan."""

    config: Config
    is_contrastive = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.head = GlobalHead(encoder.channels[-1], config.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.draws = SeededGenerators(config.seed)
        self.reports: list[Float[Tensor, "_ d"]] = []

    def read_cases(self, cases: Sequence[str]) -> None:
        """Reads the reports of the cases; raises BadInput if there are too few, or of another text encoder."""
        path, width = self.config.reports, self.config.width
        if path is None:
            raise BadInput("objective report_align: give objective.reports=FILE, which `medssl encode-reports` writes")
        embeddings = ReportEmbeddings.read(path)
        if embeddings.width != width:
            raise BadInput(f"{path}: its text encoder has {embeddings.width} dimensions; give objective.width to it")
        rows = embeddings.select(cases)
        count = sum(len(part) > 0 for part in rows)
        if count < 2:
            raise BadInput(f"{path}: has the reports of {count} of the {len(cases)} cases; at least 2 are needed")
        self.set_reports([torch.from_numpy(np.array(part)) for part in rows])

    def set_reports(self, reports: Sequence[Float[Tensor, "_ d"]]) -> None:
        """Sets the sentences of each volume, in the order of `crops.volume`, as rows of length 1."""
        self.reports = list(reports)

    def step(self, crops: Crops) -> Step:
        """Computes the sigmoid loss over all pairs of a crop and a report of the batch."""
        generator = self.draws()
        generators = split_generator(generator, len(crops.x))
        x = perturb_intensity(crops.x.flatten(0, 1), generators, self.config.strength)
        image = F.normalize(self.head(self.encoder(x)[-1]).float(), dim=-1)
        text, whole = (rows.to(x.device) for rows in self._draw_reports(crops.volume.tolist(), generators))
        texts, wholes = all_gather_rows(text), all_gather_rows(whole)
        volumes = all_gather_rows(crops.volume)
        positions = torch.arange(len(image), device=x.device) + len(image) * get_rank()
        same = crops.volume[:, None] == volumes
        other = whole @ wholes.mT <= self.config.max_similarity
        counted = (same | other) & has_report(whole)[:, None] & has_report(wholes)
        similarity = image @ texts.mT
        loss = align_pairs(similarity * self.log_scale.exp() + self.bias, same, counted)
        is_known = has_report(whole)
        mean = divide_sums((loss * is_known).sum(), is_known.sum(), 1)
        is_best = similarity.masked_fill(~counted, -torch.inf).argmax(1) == positions
        match = (is_best & is_known).sum() / is_known.sum().clamp_min(1)
        return Step(mean, {"match": match.float(), "scale": self.log_scale.detach().exp()}, (image.detach(), text))

    def projection_head(self) -> ProjectionHead:
        """Returns the layers that map features of a crop to the space of the text encoder."""
        return ProjectionHead(self.head.mlp, self.read_cells)

    def _draw_reports(
        self, volumes: Sequence[int], generators: Sequence[torch.Generator]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Returns the mean of some sentences of each volume, and of all, with length 1; 0 where there is none."""
        some, whole = [], []
        for volume, generator in zip(volumes, generators, strict=True):
            rows = self.reports[volume]
            weights = torch.rand(len(rows), generator=generator)
            is_kept = (weights < self.config.keep) | (weights == weights.min() if len(rows) else False)
            some.append(F.normalize(rows[is_kept].sum(0), dim=0))
            whole.append(F.normalize(rows.sum(0), dim=0))
        return torch.stack(some), torch.stack(whole)


def has_report(rows: Float[Tensor, "n d"]) -> Bool[Tensor, "n"]:
    """Returns which rows are not 0."""
    return (rows != 0).any(1)


def align_pairs(
    logits: Float[Tensor, "m n"], same: Bool[Tensor, "m n"], counted: Bool[Tensor, "m n"]
) -> Float[Tensor, "m"]:
    """Returns the sum over pairs of -log sigmoid(logit) for a crop and its own report, of -log sigmoid(-logit) else.

    Args:
        logits: Scaled similarities of crops and reports.
        same: Which report is of the scan of which crop.
        counted: Which pairs count.
    """
    signs = torch.where(same, 1.0, -1.0)
    return (F.softplus(-signs * logits) * counted).sum(1)
