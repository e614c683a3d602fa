"""Patch selection: the context at a hidden patch picks its own content among all hidden patches of the same crop.

Trinh et al., "Selfie: self-supervised pretraining for image embedding" (2019), https://arxiv.org/abs/1906.02940. In a
sum with `spark` it resembles SSAST: Gong et al., "SSAST: self-supervised audio spectrogram transformer" (2021),
https://arxiv.org/abs/2110.09784. Deviations: a hierarchical encoder, exactly masked as in SparK, sees the visible
patches for the context and the hidden ones for the candidates, so that no voxel is on both sides.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops, median_spacing_mm
from medssl.nn import masks
from medssl.nn.collectives import all_gather_rows
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.cell_predictor import NUM_HEADS, CellPredictor
from medssl.nn.self_supervision.tokens import average_tokens, cell_positions_mm, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective, require_enough_patches
from medssl.settings import Settings


class Config(Settings):
    """Settings of masking, the predictor and the loss."""

    name: Literal["select_patch"] = Field("select_patch", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.6, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    air_threshold: float = Field(
        masks.AIR_THRESHOLD, ge=0, lt=1, description="patches with no brighter voxel are air; intensities are 0 to 1"
    )
    width: int = Field(96, ge=6, multiple_of=NUM_HEADS, description="dimensions within the predictor")
    depth: int = Field(2, ge=1, description="attention blocks of the predictor")
    temperature: float = Field(0.2, gt=0, description="temperature of the choice")
    seed: int = Field(0, ge=0, description="seed of the masks")


class SelectPatch(Objective):
    """Finds the content of each hidden patch among the hidden patches of its crop, by cosine similarity."""

    config: Config
    is_contrastive = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.predictor = CellPredictor(encoder.channels[-1], config.width, config.depth)
        self.project = nn.Linear(encoder.channels[-1], encoder.channels[-1])
        self.draws = masks.SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the cross-entropy of the choice among the hidden body patches of each crop."""
        x = crops.x.flatten(0, 1)
        visible, hidden = self.sample_mask(x)
        context = self.encode(x, visible)
        spacing_mm = median_spacing_mm(all_gather_rows(crops.affine))
        (p, q, r), is_hidden = visible.shape[2:], hidden.flatten(1)
        positions_mm = cell_positions_mm((p, q, r), self.encoder.patch, spacing_mm, x)
        query = self.predictor(context, visible.flatten(1), positions_mm).float()
        content = self.encode(x, hidden)
        logits = self.compare(query, self.project(content).float(), is_hidden)
        correct = torch.arange(logits.shape[1], device=x.device).expand(len(x), -1)
        error = F.cross_entropy(logits.mT, correct, reduction="none")
        accuracy = masks.masked_mean((logits.argmax(2) == correct).float(), is_hidden)
        pairs = (average_tokens(context, visible.flatten(1)), average_tokens(content, is_hidden))
        return Step(masks.masked_mean(error, is_hidden), {"accuracy": accuracy}, pairs)

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        require_enough_patches(x, self.encoder.patch, self.encoder.strides)

    def sample_mask(self, x: Float[Tensor, "b c i j k"]) -> tuple[Bool[Tensor, "b 1 p q r"], Bool[Tensor, "b 1 p q r"]]:
        """Returns which patches are visible, and which are hidden and hold body; air is neither."""
        self.check_crop(x)
        body = masks.find_body_patches(x, self.encoder.patch, self.config.air_threshold)
        visible = masks.sample_visible(body, self.config.mask_ratio, self.draws())
        is_empty = ~(body & ~visible).flatten(1).any(1)
        return visible, (body | is_empty[:, None, None, None, None]) & ~visible

    def encode(self, x: Float[Tensor, "b c i j k"], visible: Bool[Tensor, "b 1 p q r"]) -> Float[Tensor, "b n d"]:
        """Returns the coarsest features of some patches as tokens, 0 elsewhere; other patches are not read."""
        executor = self.encoder.build_executor(x, visible)
        return to_tokens(executor.to_dense(self.encoder.features(x, executor)[-1]))

    def compare(
        self, query: Float[Tensor, "b n d"], candidates: Float[Tensor, "b n d"], is_hidden: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n n"]:
        """Returns the logit of each candidate for each query; only hidden patches are candidates."""
        similarity = F.normalize(query, dim=-1) @ F.normalize(candidates, dim=-1).mT
        logits = (similarity / self.config.temperature).masked_fill(~is_hidden[:, None], float("-inf"))
        return logits.masked_fill(~is_hidden[..., None], 0)
