"""In-context segmentation: segments what examples show, so that new examples need no training.

Butoi et al., "UniverSeg: universal medical image segmentation" (2023), https://arxiv.org/abs/2304.06131: each step is
an episode, in which the crops of a batch are examples for each other. Deviations: cells of the crops are compared by
attention instead of by convolutions at equal places, since crops of volumes are not aligned; and a learned answer
competes with the examples, which is the prior if there are none.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.collectives import all_gather_rows, draw_rows, get_rank
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.losses import dice_ce
from medssl.nn.masks import SeededGenerators
from medssl.nn.ring_buffer import RingBuffer
from medssl.nn.self_supervision.tokens import to_tokens
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.tasks.segment import score_volume

MAX_CELLS = 1024  # of a crop at the finest level that is compared; the cost grows with its square


class Config(Settings):
    """Settings of the in-context segmentation."""

    name: Literal["in_context"] = Field("in_context", description="name of the task")
    num_examples: PositiveInt = Field(16, description="number of labelled crops that predictions follow")
    width: PositiveInt = Field(32, description="dimensions in which cells are compared")
    drop_fraction: float = Field(
        0.1, ge=0, lt=1, description="fraction of the training crops without examples, from which the prior is learnt"
    )
    seed: int = Field(0, ge=0, description="seed of the class of each step")


class InContextTask(Task):
    """A U-Net of one answer, whose coarse levels read in the examples what their most similar cells hold.

    Each step asks for one class. The run keeps the embeddings of the latest labelled crops, not their voxels, as the
    examples of its predictions; `show` replaces them.
    """

    config: Config

    def __init__(self, config: Config, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, num_classes, patch_size)
        sizes, cells = [], patch_size
        for stride in encoder.strides:
            i, j, k = (n // s for n, s in zip(cells, stride, strict=True))
            cells = (i, j, k)
            sizes.append(math.prod(cells))
        self.levels = [n for n, size in enumerate(sizes) if size <= MAX_CELLS or n == len(sizes) - 1]
        self.matches = nn.ModuleList(CellMatch(encoder.channels[n], config.width) for n in self.levels)
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels, linear=True)
        self.head = nn.Conv3d(encoder.channels[0], 1, 1)
        blank = {"annotated": torch.zeros(num_classes, dtype=torch.bool)}
        for n in self.levels:
            blank |= {f"key{n}": torch.zeros(sizes[n], config.width), f"share{n}": torch.zeros(num_classes, sizes[n])}
        self.examples = RingBuffer(config.num_examples, **blank)
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Returns the loss of one class, of which the other crops of the batch are the examples."""
        generator, label = self.draws(), crops.require_label().flatten(0, 1)
        value = int(torch.randint(1, self.num_classes, (), generator=generator))
        pyramid, annotated = self.encoder(crops.x.flatten(0, 1)), self._find_annotated(crops)
        examples = {k: all_gather_rows(v) for k, v in self.describe_examples(pyramid, label, annotated).items()}
        rows, columns = (torch.arange(n, device=label.device) for n in (len(label), len(examples["annotated"])))
        is_other = (rows + get_rank() * len(rows))[:, None] != columns
        has_examples = draw_rows((len(rows), 1), generator).to(label.device) >= self.config.drop_fraction
        logits = self.compare(pyramid, examples, value, is_other & has_examples)
        target = torch.where(label < 0, label, (label == value).long())
        loss = dice_ce(torch.cat([torch.zeros_like(logits), logits], 1), target, annotated[:, [0, value]])
        if self.training:
            self.examples.push(**{name: column.detach() for name, column in examples.items()})
        return Step(loss, {"examples": (is_other & has_examples).float().sum(1).mean()})

    def describe_examples(
        self, pyramid: list[Tensor], label: Int[Tensor, "b i j k"], annotated: Bool[Tensor, "b n"]
    ) -> dict[str, Tensor]:
        """Returns the keys of the cells of labelled crops at each level, and the share of each class in each cell.

        The share is -1 in a cell without known voxels.
        """
        is_known = (label >= 0)[:, None].float()
        one_hot = F.one_hot(label.clamp_min(0), self.num_classes).movedim(-1, 1) * is_known
        columns = {"annotated": annotated}
        for n, match in zip(self.levels, self.matches, strict=True):
            assert isinstance(match, CellMatch)
            p, q, r = pyramid[n].shape[2:]
            weight, share = (F.adaptive_avg_pool3d(x, (p, q, r)).flatten(2) for x in (is_known, one_hot))
            columns[f"key{n}"] = match.embed_cells(pyramid[n])
            columns[f"share{n}"] = (share / weight).masked_fill(weight == 0, -1)
        return columns

    def compare(
        self, pyramid: list[Tensor], examples: Mapping[str, Tensor], value: int, where: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b 1 i j k"]:
        """Returns the logit of one class.

        Args:
            pyramid: Features of crops.
            examples: Examples, see `describe_examples`.
            value: Class of the examples to segment.
            where: Which of m examples each crop follows; those that are not annotated for the class are left out.
        """
        where, answered = where & examples["annotated"][:, value], list(pyramid)
        for n, match in zip(self.levels, self.matches, strict=True):
            answered[n] = match(pyramid[n], examples[f"key{n}"], examples[f"share{n}"][:, value], where)
        logits: Tensor = self.head(self.decoder(answered)[0]).float()
        return logits

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the class probabilities by the examples of the task, background first."""
        pyramid, examples = self.encoder(x), self.examples.valid_rows()
        where = torch.ones(len(x), len(examples["annotated"]), dtype=torch.bool, device=x.device)
        logits = [self.compare(pyramid, examples, value, where) for value in range(1, self.num_classes)]
        return torch.cat([torch.zeros_like(logits[0]), *logits], 1).softmax(1)

    def show(self, crops: Crops) -> None:
        """Replaces the examples by labelled crops; see `add_examples`."""
        self._require_fitting(crops)
        self.examples.pushed.zero_()
        self.add_examples(crops)

    @torch.no_grad()
    def add_examples(self, crops: Crops) -> None:
        """Adds labelled crops to the examples; their classes may mean something else than in training.

        Raises:
            BadInput: The crops have another size than the patch size, or more classes than the task.
        """
        self._require_fitting(crops)
        pyramid, label = self.encoder(crops.x.flatten(0, 1)), crops.require_label().flatten(0, 1)
        self.examples.push(**self.describe_examples(pyramid, label, self._find_annotated(crops)))

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the Dice of every annotated class in one volume, and their mean, as a segmentation does."""
        return score_volume(self, crops)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the network, and the examples that its predictions follow."""
        parts = {"encoder": self.encoder, "decoder": self.decoder, "head": self.head}
        return parts | {"matches": self.matches, "examples": self.examples}

    def _require_fitting(self, crops: Crops) -> None:
        shape, last = crops.x.shape[-3:], int(crops.require_label().max())
        if shape != self.patch_size or last >= self.num_classes:
            raise BadInput(
                f"examples: crops of {tuple(shape)} voxels with classes up to {last}; give crops of {self.patch_size}"
                f" voxels with classes 1 to {self.num_classes - 1}"
            )

    def _find_annotated(self, crops: Crops) -> Bool[Tensor, "m n"]:
        annotated = crops.annotated_per_view()
        shape = (crops.x.shape[0] * crops.x.shape[1], self.num_classes)
        return torch.ones(shape, dtype=torch.bool, device=crops.x.device) if annotated is None else annotated


class CellMatch(nn.Module):
    """Adds to the features of each cell what the most similar cells of the examples hold.

    Args:
        channels: Channels of the features.
        width: Dimensions in which cells are compared.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project, self.enter = nn.Linear(channels, width, bias=False), nn.Conv3d(1, channels, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.prior = nn.Parameter(torch.zeros(2))  # similarity and answer that compete with those of the examples

    def embed_cells(self, features: Float[Tensor, "b c p q r"]) -> Float[Tensor, "b n d"]:
        """Returns a key of length 1 for each cell."""
        return F.normalize(self.project(to_tokens(features)).float(), dim=-1)

    def forward(
        self,
        features: Float[Tensor, "b c p q r"],
        keys: Float[Tensor, "m n d"],
        share: Float[Tensor, "m n"],
        where: Bool[Tensor, "b m"],
    ) -> Float[Tensor, "b c p q r"]:
        """Returns the features with the share of the class in the cells of m examples; each crop follows some."""
        similarity = torch.einsum("bqd,mnd->bqmn", self.embed_cells(features), keys) * self.log_scale.exp()
        is_read = where[:, None, :, None] & (share >= 0)
        similarity = similarity.masked_fill(~is_read, -torch.inf).flatten(2)
        prior, answer = self.prior[0].expand(*similarity.shape[:2], 1), self.prior[1].sigmoid()[None]
        weights = torch.cat([similarity, prior], 2).softmax(2)
        answers = weights @ torch.cat([share.flatten(), answer])
        added: Tensor = self.enter(answers.unflatten(1, features.shape[2:])[:, None].to(features.dtype))
        return features + added
