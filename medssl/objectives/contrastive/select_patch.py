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

from medssl.data.crops import Crops
from medssl.data.transforms.patch_mask import PatchMask
from medssl.nn import masks
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.tokens import average_tokens, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import CellConfig, CellObjective, EncodedPatches, ProjectionHead


class Config(CellConfig):
    """Settings of masking, the predictor and the loss."""

    name: Literal["select_patch"] = Field("select_patch", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.6, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    temperature: float = Field(0.2, gt=0, description="temperature of the choice")


class SelectPatch(CellObjective):
    """Finds the content of each hidden patch among the hidden patches of its crop, by cosine similarity."""

    config: Config
    is_contrastive = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.project = nn.Linear(encoder.channels[-1], encoder.channels[-1])

    def step_encoded(self, crops: Crops, encoded: EncodedPatches) -> Step:
        """Computes the cross-entropy of the choice among the hidden body patches of each crop."""
        visible, hidden = encoded.mask.visible, find_candidates(encoded.mask)
        is_hidden, context = hidden.flatten(1), encoded.coarsest_tokens()
        query = self.predict(context, visible, crops.affine).float()
        content = self.encode_candidates(crops.x.flatten(0, 1), hidden)
        logits = self.compare(query, self.project(content).float(), is_hidden)
        correct = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        error = F.cross_entropy(logits.mT, correct, reduction="none")
        accuracy = masks.masked_mean((logits.argmax(2) == correct).float(), is_hidden)
        pairs = (average_tokens(context, visible.flatten(1)), average_tokens(content, is_hidden))
        return Step(masks.masked_mean(error, is_hidden), {"accuracy": accuracy}, pairs)

    def projection_head(self) -> ProjectionHead:
        """Returns the layer behind which candidates are compared."""
        return ProjectionHead(nn.Sequential(self.project), lambda x: self.encoder(x)[-1])

    def encode_candidates(
        self, x: Float[Tensor, "b c i j k"], hidden: Bool[Tensor, "b 1 p q r"]
    ) -> Float[Tensor, "b n d"]:
        """Returns the coarsest features of the hidden patches as tokens, 0 elsewhere; other patches are not read."""
        executor = self.encoder.build_executor(x, hidden)
        return to_tokens(executor.to_dense(self.encoder.features(x, executor)[-1]))

    def compare(
        self, query: Float[Tensor, "b n d"], candidates: Float[Tensor, "b n d"], is_hidden: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n n"]:
        """Returns the logit of each candidate for each query; only hidden patches are candidates."""
        similarity = F.normalize(query, dim=-1) @ F.normalize(candidates, dim=-1).mT
        logits = (similarity / self.config.temperature).masked_fill(~is_hidden[:, None], float("-inf"))
        return logits.masked_fill(~is_hidden[..., None], 0)


def find_candidates(mask: PatchMask) -> Bool[Tensor, "b 1 p q r"]:
    """Returns which patches are hidden and hold body; air is a candidate only in a crop without hidden body."""
    is_empty = ~(mask.body & ~mask.visible).flatten(1).any(1)
    return (mask.body | is_empty[:, None, None, None, None]) & ~mask.visible
