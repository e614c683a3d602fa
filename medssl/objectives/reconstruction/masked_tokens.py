"""Masked tokens: the visible patches tell which words of a fixed vocabulary stand at the hidden places.

Lee et al., "SeiT++: masked token modeling improves storage-efficient training" (2023),
https://arxiv.org/abs/2312.10105, which trains on the tokens of a vector quantization. Deviations: the encoder reads
voxels, exactly masked, instead of embedded tokens; and words are cubes of voxels drawn from the first batch, as OBoW
draws them from features (https://arxiv.org/abs/2012.11552), so that nothing has to be trained before.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn import masks
from medssl.nn.collectives import all_gather_rows, count_processes, draw_rows
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.cell_predictor import CellPredictor
from medssl.nn.step import Step
from medssl.objectives.base import CellConfig, CellObjective, EncodedPatches


class Config(CellConfig):
    """Settings of masking, of the vocabulary and of the predictor."""

    name: Literal["masked_tokens"] = Field("masked_tokens", description="name of the objective")
    cell: PositiveInt = Field(2, description="side of the cube of voxels that is a word; it divides the patch")
    num_words: int = Field(64, ge=2, description="words of the vocabulary")


class MaskedTokens(CellObjective):
    """Predicts the word of each cell of the hidden patches, in each channel."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if any(side % config.cell for side in encoder.patch):
            raise BadInput(
                f"objective.cell={config.cell} does not divide the patch of {encoder.patch} voxels, the total stride of"
                " the encoder; choose a divisor"
            )
        i, j, k = self.cells = tuple(side // config.cell for side in encoder.patch)
        self.vocabulary = CellVocabulary(config.cell, config.num_words, config.seed)
        width, count = encoder.channels[-1], encoder.in_channels * i * j * k * config.num_words
        self.predictor = CellPredictor(width, config.width, config.depth, count)

    def step_encoded(self, crops: Crops, encoded: EncodedPatches) -> Step:
        """Computes the cross-entropy over the words of the hidden body patches."""
        visible, body = encoded.mask.visible, encoded.mask.body
        predicted = self.predict(encoded.coarsest_tokens(), visible, crops.affine)
        logits = predicted.unflatten(2, (-1, self.config.num_words)).float()
        target = crops.reconstruction_target()
        self.vocabulary.fill(target, body)
        words = self.find_words(target)
        error = F.cross_entropy(logits.movedim(3, 1), words, reduction="none").mean(2)
        hidden = (body & ~visible).flatten(1)
        is_right = (logits.argmax(3) == words).float().mean(2)
        logs = {"accuracy": masks.masked_mean(is_right, hidden), "kept": visible.float().mean()}
        return Step(masks.masked_mean(error, hidden), logs)

    def find_words(self, x: Float[Tensor, "b c i j k"]) -> Int[Tensor, "b n m"]:
        """Returns the words of each patch, channel by channel."""
        i, j, k = self.cells
        return rearrange(self.vocabulary(x), "b c (p i) (q j) (r k) -> b (p q r) (c i j k)", i=i, j=j, k=k)


class CellVocabulary(nn.Module):
    """Maps each cube of voxels to the most similar word; words are random cubes of the body in the first batch."""

    words: Tensor
    is_filled: Tensor

    def __init__(self, cell: int, num_words: int, seed: int) -> None:
        super().__init__()
        self.cell, self.seed = cell, seed
        self.register_buffer("words", torch.zeros(num_words, cell**3))
        self.register_buffer("is_filled", torch.tensor(False))

    @torch.no_grad()
    def fill(self, x: Float[Tensor, "b c i j k"], body: Bool[Tensor, "b 1 p q r"]) -> None:
        """Draws the words from the cubes of body patches of all processes; does nothing after the first time."""
        if self.is_filled:
            return
        cells = self.split(x)
        inside = F.interpolate(body.float(), cells.shape[2:5]).expand(cells.shape[:5]).flatten(1)
        keys = draw_rows(inside.shape, torch.Generator().manual_seed(self.seed)).to(x.device) + inside
        count = -(-len(self.words) // (len(x) * count_processes()))
        chosen = keys.topk(min(count, keys.shape[1])).indices[..., None].expand(-1, -1, cells.shape[-1])
        rows = all_gather_rows(cells.flatten(1, 4).gather(1, chosen)).flatten(0, 1)
        self.words.copy_(rows[torch.arange(len(self.words), device=x.device) % len(rows)])
        self.is_filled.fill_(True)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "b c i j k"]) -> Int[Tensor, "b c p q r"]:
        """Returns the nearest word of each cube."""
        with torch.autocast(x.device.type, enabled=False):
            return (self.split(x) @ self.words.mT - self.words.square().sum(1) / 2).argmax(-1)

    def split(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b c p q r s"]:
        """Returns the cubes of each channel, which is standardized over the crop first."""
        mean, std = x.float().mean((2, 3, 4), keepdim=True), x.float().std((2, 3, 4), keepdim=True)
        s = self.cell
        pattern = "b c (p i) (q j) (r k) -> b c p q r (i j k)"
        return rearrange((x.float() - mean) / std.clamp_min(1e-6), pattern, i=s, j=s, k=s)
