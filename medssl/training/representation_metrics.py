"""Metrics of pretrained representations, computed without annotation.

RankMe: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised representations by
their rank" (2023), https://arxiv.org/abs/2210.02885. Alignment and uniformity: Wang and Isola, "Understanding
contrastive representation learning through alignment and uniformity on the hypersphere" (2020),
https://arxiv.org/abs/2005.10242.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import split_generator
from medssl.nn.ring_buffer import RingBuffer
from medssl.objectives.base import Objective

RANK_ROWS = 64  # the rank of fewer rows says little; always of as many, so that it can be compared over a training
MIN_ROWS = 8  # fewest embeddings to measure, and the number of rows that describe the current state


def rank_me(z: Float[Tensor, "n d"]) -> float:
    """Returns RankMe, the effective number of dimensions that embeddings use, from 1 to min(n, d).

    It is the exponential of the entropy of the normalized singular values.
    """
    singular_values = torch.linalg.svdvals(z.double())
    p = singular_values / singular_values.sum().clamp(min=1e-12) + 1e-12
    return float(torch.exp(-(p * p.log()).sum()))


def spread(z: Float[Tensor, "n d"]) -> float:
    """Returns the mean standard deviation of L2-normalized embeddings times sqrt(d): 1 on a sphere, 0 if collapsed."""
    return float(F.normalize(z.double(), dim=1).std(0).mean()) * math.sqrt(z.shape[1])


def alignment(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """Returns the mean squared distance of L2-normalized positive pairs: 0 if both views have the same embedding."""
    return float((F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(1).mean())


def uniformity(z: Float[Tensor, "n d"]) -> float:
    """Returns the log mean Gaussian potential of L2-normalized embeddings: 0 if collapsed, near -4 on a sphere."""
    distance = torch.pdist(F.normalize(z.double(), dim=1)).square()
    return float(torch.logsumexp(-2 * distance, 0)) - math.log(len(distance))


def knn_accuracy(z: Float[Tensor, "n d"], label: Int[Tensor, "n"], group: Int[Tensor, "n"], k: int = 5) -> float:
    """Returns the accuracy of k-nearest-neighbour classification with neighbours from other groups only.

    Args:
        z: Embeddings.
        label: Class of each row.
        group: Volume or patient of each row.
        k: Number of neighbours.

    Returns:
        The fraction of correct rows among the rows that have neighbours; nan if there is only one group.
    """
    z = F.normalize(z.double(), dim=1)
    other = group[:, None] != group
    cosine, index = (z @ z.mT).masked_fill(~other, -torch.inf).topk(min(k, len(z) - 1), dim=1)
    # Nearer rows have slightly more weight, which also breaks ties.
    votes = F.one_hot(label[index], int(label.max()) + 1) * (cosine + 3).clamp(min=0)[..., None]
    return float((votes.sum(1).argmax(1) == label)[other.any(1)].double().mean())


@contextmanager
def eval_mode(learner: nn.Module) -> Iterator[None]:
    """Sets evaluation mode and disables gradients inside the context; restores modes and random state afterwards."""
    training = [module for module in learner.modules() if module.training]
    with torch.no_grad(), torch.random.fork_rng():
        learner.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def paired_embeddings(
    objective: Objective, crops: Crops, seed: int = 0
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Returns positive pairs for an objective without embeddings of its own.

    A pair is the average-pooled coarsest features of a crop, and those of the same crop with perturbed intensities.

    Args:
        objective: Its encoder embeds the crops.
        crops: Crops to embed.
        seed: Seed of the perturbation.
    """
    with eval_mode(objective):
        x = crops.x.flatten(0, 1)
        views = torch.cat([x, perturb_intensity(x, split_generator(torch.Generator().manual_seed(seed), len(x)), 1.0)])
        a, b = objective.encoder(views)[-1].float().mean((2, 3, 4)).chunk(2)
        return a, b


class EmbeddingBuffer(RingBuffer):
    """The embeddings of the last crops, with the volume and the body part that each crop comes from.

    One batch has too few volumes to measure. Older rows come from an older network, so only the last `MIN_ROWS` rows
    describe the current state.
    """

    def __init__(self, rows: int, width: int) -> None:
        empty = torch.tensor(-1)
        super().__init__(rows, a=torch.zeros(width), b=torch.zeros(width), volume=empty, part=empty)

    def latest(self, name: str, count: int) -> Tensor:
        """Returns the last `count` rows of a column, or as many as there are, the newest first."""
        column = self.valid_rows()[name]
        index = (int(self.pushed) - 1 - torch.arange(min(count, len(column)), device=column.device)) % max(1, self.rows)
        return column[index]

    def measure_recent(self) -> dict[str, float]:
        """Returns spread, uniformity and alignment of the last rows; empty with too few rows or only one volume."""
        a, b, volume = (self.latest(name, MIN_ROWS) for name in ("a", "b", "volume"))
        if len(a) < MIN_ROWS or len(volume.unique()) < 2:
            return {}
        return {"spread": spread(a), "uniformity": uniformity(a), "alignment": alignment(a, b)}

    def measure(self, labels: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, float]:
        """Returns the recent metrics, the rank of the last 64 rows once there are as many, and kNN accuracies.

        The kNN classification predicts the body part and every entry of `labels`. Each accuracy has a second metric
        with the suffix `_chance`: the fraction of the most frequent class, which a constant guess would reach.

        Args:
            labels: For each label name one word per volume number; a volume with the word "" is left out.
        """
        metrics, columns = self.measure_recent(), self.valid_rows()
        num_rows = min(RANK_ROWS, self.rows)
        if metrics and len(columns["a"]) >= num_rows:
            metrics["rank"] = rank_me(self.latest("a", num_rows))
        classes = {"knn": columns["part"]}
        classes |= {f"knn_{name}": _encode_words(words, columns["volume"]) for name, words in labels.items()}
        for name, label in classes.items() if metrics else ():
            rows = label >= 0
            if len(label[rows].unique()) > 1:
                metrics[name] = knn_accuracy(columns["a"][rows], label[rows], columns["volume"][rows])
                metrics[f"{name}_chance"] = float(label[rows].bincount().max() / rows.sum())
        return metrics


def _encode_words(words: Sequence[str], volume: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Returns the number of each row's word, -1 for an empty word."""
    names = sorted(set(words) - {""})
    return torch.tensor([names.index(word) if word else -1 for word in words], device=volume.device)[volume]


class CollapseAlarm:
    """Detects that the embeddings of different volumes become alike, relative to the first measurement.

    A fixed bound would not work: embeddings of an untrained network have a large common mean and a small spread.

    Args:
        min_ratio: Smallest accepted ratio to the first measurement, for spread and for rank - 1.
    """

    def __init__(self, min_ratio: float = 0.4) -> None:
        self.min_ratio = min_ratio
        self.baseline: dict[str, float] = {}

    def check(self, metrics: dict[str, float]) -> str | None:
        """Returns a one-line description of a collapse, or None."""
        self.baseline = metrics | self.baseline
        for name, minimum in (("spread", 0.0), ("rank", 1.0)):
            if name in metrics and metrics[name] - minimum < self.min_ratio * (self.baseline[name] - minimum):
                return (
                    f"the embeddings collapse: their {name} fell from {self.baseline[name]:.2g} to {metrics[name]:.2g}"
                )
        return None
