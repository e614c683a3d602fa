"""Bags of words: a student predicts which words of a vocabulary a teacher finds in another crop of the scan, how often.

Gidaris et al., "OBoW: online bag-of-visual-words generation for self-supervised learning" (2021),
https://arxiv.org/abs/2012.11552. The words are features that the teacher had of random patches, a queue of them, so the
vocabulary follows the teacher. Deviation: the crops are two parts of a scan instead of crops of one image, without
further local crops; `min_view_overlap` of the pretraining makes them share a part.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import all_gather_rows, draw_rows, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.ring_buffer import RingBuffer
from medssl.nn.self_supervision.prototypes import compute_divergence
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.self_supervision.tokens import swap_views, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective, ProjectionHead
from medssl.settings import Settings

NUM_LEVELS = 2  # the coarsest ones, each with a vocabulary of its own


class Config(Settings):
    """Settings of the vocabulary, the comparison and the teacher."""

    name: Literal["bag_of_words"] = Field("bag_of_words", description="name of the objective")
    num_words: int = Field(256, ge=2, description="words of a vocabulary that are kept from earlier steps")
    num_new_words: PositiveInt = Field(4, description="random patches of each crop that become words in a step")
    width: int = Field(96, ge=2, description="dimensions in which a crop and the words are compared")
    sharpness: float = Field(
        10.0, gt=0, description="how sharply a patch is assigned to its nearest word; at infinity, to that word alone"
    )
    temperature: float = Field(0.1, gt=0, description="temperature of the predicted frequencies of words")
    momentum: float = Field(0.99, ge=0, le=1, description="EMA decay of the teacher")
    strength: float = Field(1.0, ge=0, le=1, description="strength of the random intensity change of a crop; 0 is none")
    seed: int = Field(0, ge=0, description="seed of the words and of intensity changes")


class BagOfWords(Objective):
    """Predicts the frequencies of words in the other crop of the scan from the pooled features of a crop."""

    config: Config
    views = 2
    is_contrastive = True  # embeddings are compared, so they can collapse

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels, pooled, width = encoder.channels[-NUM_LEVELS:], 2 * encoder.channels[-1], config.width
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(pooled, pooled), nn.GELU(), nn.Linear(pooled, width)) for _ in channels
        )
        self.word_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.GELU(), nn.Linear(width, width)) for c in channels
        )
        self.words = nn.ModuleList(RingBuffer(config.num_words, word=torch.zeros(c)) for c in channels)
        self.teacher = copy_as_teacher(encoder)
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes the mean divergence of predicted from true frequencies over both levels."""
        config, x, generator = self.config, crops.x.flatten(0, 1), self.draws()
        with torch.no_grad():
            levels = [F.layer_norm(t, t.shape[-1:]) for t in map(to_tokens, self.teacher(x)[-NUM_LEVELS:])]
        coarsest = self.encoder(perturb_intensity(x, split_generator(generator, len(x)), config.strength))[-1]
        embedding = torch.cat([coarsest.mean((2, 3, 4)), coarsest.amax((2, 3, 4))], 1)
        errors, logs = [], {}
        for n, tokens in enumerate(levels):
            vocabulary = self.choose_words(n, tokens.float(), generator)
            target = count_words(tokens.float(), vocabulary, config.sharpness)
            similarity = self.compare(n, embedding, vocabulary)
            errors.append(compute_divergence(swap_views(target), similarity, config.temperature).mean())
            logs[f"words_{n}"] = torch.special.entr(target.mean(0)).sum().exp()
        taught = levels[-1].float()
        pairs = embedding.detach(), torch.cat([taught.mean(1), taught.amax(1)], 1)
        return Step(torch.stack(errors).mean(), logs, pairs)

    def choose_words(
        self, level: int, tokens: Float[Tensor, "b n d"], generator: torch.Generator
    ) -> Float[Tensor, "m d"]:
        """Returns the vocabulary of a level: words of earlier steps, and the tokens of random patches of this step."""
        chosen = (draw_rows((len(tokens), self.config.num_new_words), generator) * tokens.shape[1]).long()
        rows = torch.arange(len(tokens))[:, None]
        fresh = all_gather_rows(tokens[rows, chosen]).flatten(0, 1)
        buffer = self.words[level]
        assert isinstance(buffer, RingBuffer)
        vocabulary = torch.cat([buffer.valid_rows()["word"], fresh])
        if self.training:
            buffer.push(word=fresh)
        return vocabulary

    def compare(
        self, level: int, embedding: Float[Tensor, "b e"], vocabulary: Float[Tensor, "m d"]
    ) -> Float[Tensor, "b m"]:
        """Returns the cosine similarity of each crop and each word, both mapped to the space of comparison."""
        query, keys = self.heads[level](embedding).float(), self.word_heads[level](vocabulary).float()
        with torch.autocast(query.device.type, enabled=False):
            return F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).mT

    def projection_head(self) -> ProjectionHead:
        """Returns the head that is compared with the words of the coarsest level."""
        layers = self.heads[-1]
        assert isinstance(layers, nn.Sequential)
        return ProjectionHead(layers, self.read_cells)

    def after_step(self) -> None:
        """Lets the teacher follow the encoder."""
        follow(self.teacher, self.encoder, self.config.momentum)


@torch.no_grad()
def count_words(
    tokens: Float[Tensor, "b n d"], vocabulary: Float[Tensor, "m d"], sharpness: float
) -> Float[Tensor, "b m"]:
    """Returns the relative frequency of each word in each crop: of its best match over all patches, as in OBoW.

    A patch is assigned to words by its squared distance to them, relative to the mean distance of the crop's patches to
    their nearest word.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        distance = torch.cdist(tokens.float(), vocabulary.float().expand(len(tokens), -1, -1)).square()
    nearest = distance.amin(2).mean(1)[:, None, None].clamp_min(1e-6)
    strongest = (-sharpness * distance / nearest).softmax(2).amax(1)
    return strongest / strongest.sum(1, keepdim=True)
