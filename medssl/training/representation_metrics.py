"""Monitors: whether a pretraining learns something, told without labels or with few.

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
from medssl.data.transforms.intensity import vary
from medssl.errors import BadInput
from medssl.nn.encoder import Encoder
from medssl.nn.regions import sample
from medssl.nn.ring_buffer import Ring
from medssl.objectives.base import Objective

SEVERAL = 8


def rank_me(z: Float[Tensor, "n d"]) -> float:
    """Exp of the entropy of the normalised singular values: how many dimensions the embeddings use, 1 to min(n, d)."""
    values = torch.linalg.svdvals(z.double())
    share = values / values.sum().clamp(min=1e-12) + 1e-12
    return float(torch.exp(-(share * share.log()).sum()))


def spread(z: Float[Tensor, "n d"]) -> float:
    """The mean standard deviation of L2-normalised embeddings times the root of d: 1 on a whole sphere, 0 collapsed."""
    return float(F.normalize(z.double(), dim=1).std(0).mean()) * math.sqrt(z.shape[1])


def alignment(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> float:
    """The mean squared distance of true pairs, L2-normalised: 0 where both looks give the same."""
    return float((F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(1).mean())


def uniformity(z: Float[Tensor, "n d"]) -> float:
    """The log of the mean Gaussian potential of all pairs, L2-normalised: 0 collapsed, near -4 on a whole sphere."""
    distance = torch.pdist(F.normalize(z.double(), dim=1)).square()
    return float(torch.logsumexp(-2 * distance, 0)) - math.log(len(distance))


def knn_accuracy(z: Float[Tensor, "n d"], label: Int[Tensor, "n"], group: Int[Tensor, "n"], k: int = 5) -> float:
    """The share of rows named rightly by the `k` nearest rows of other groups (volumes, patients); nan without."""
    z = F.normalize(z.double(), dim=1)
    other = group[:, None] != group
    cosine, index = (z @ z.mT).masked_fill(~other, -torch.inf).topk(min(k, len(z) - 1), dim=1)
    # Nearer rows count a little more, which also decides between as many votes.
    votes = F.one_hot(label[index], int(label.max()) + 1) * (cosine + 3).clamp(min=0)[..., None]
    return float((votes.sum(1).argmax(1) == label)[other.any(1)].double().mean())


@contextmanager
def observed(learner: nn.Module) -> Iterator[None]:
    """Within: evaluation mode and no gradients; afterwards all is as it was, torch's random state as well."""
    training = [module for module in learner.modules() if module.training]
    with torch.no_grad(), torch.random.fork_rng():
        learner.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def embedded(objective: Objective, crops: Crops, seed: int = 0) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """True pairs for an objective that compares nothing: the pooled coarsest features of every crop and of itself with
    its intensities changed as `seed` draws it.
    """
    with observed(objective):
        x = crops.x.flatten(0, 1)
        looks = torch.cat([x, vary(x, torch.Generator().manual_seed(seed), 1.0)])
        a, b = objective.encoder(looks)[-1].float().mean((2, 3, 4)).chunk(2)
        return a, b


class Memory(Ring):
    """The embeddings of the last crops seen, the volume each was cut from and the part of the body it shows.

    A batch alone holds too few volumes. Older rows are of an older network: only the last `SEVERAL` tell the present.
    """

    def __init__(self, rows: int, width: int) -> None:
        none = torch.tensor(-1)
        super().__init__(rows, a=torch.zeros(width), b=torch.zeros(width), volume=none, part=none)

    def recent(self) -> dict[str, float]:
        """Spread, uniformity and alignment of the latest rows, once there are several, of several volumes."""
        held = self.filled()
        at = (int(self.pushed) - 1 - torch.arange(min(SEVERAL, len(held["a"])))) % max(1, self.rows)
        a, b, volume = (held[name][at] for name in ("a", "b", "volume"))
        if len(a) < SEVERAL or len(volume.unique()) < 2:
            return {}
        return {"spread": spread(a), "uniformity": uniformity(a), "alignment": alignment(a, b)}

    def measure(self, labels: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, float]:
        """What is recent; the rank once all rows are filled; how well neighbours in other volumes name what is known.

        That is the part of the body, and the `labels` by name, of which each gives one word a volume; a volume whose
        word is "" is left out. `knn_chance` is the share of the commonest: what a guess that never looks would reach.
        """
        measured, held = self.recent(), self.filled()
        if measured and len(held["a"]) == self.rows:
            measured["rank"] = rank_me(held["a"])
        known = {"knn": held["part"]} | {f"knn_{name}": _told(words, held["volume"]) for name, words in labels.items()}
        for name, label in known.items() if measured else ():
            rows = label >= 0
            if len(label[rows].unique()) > 1:
                measured[name] = knn_accuracy(held["a"][rows], label[rows], held["volume"][rows])
                measured[f"{name}_chance"] = float(label[rows].bincount().max() / rows.sum())
        return measured


def _told(words: Sequence[str], volume: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The number of each row's word, -1 where it has none."""
    names = sorted(set(words) - {""})
    return torch.tensor([names.index(word) if word else -1 for word in words], device=volume.device)[volume]


class Alarm:
    """Rings when the embeddings of different volumes draw together, below a share of the first measurement.

    No fixed bound would do: embeddings of an untrained network share a large mean, and start with a small spread.
    """

    def __init__(self, fall: float = 0.4) -> None:
        self.fall = fall
        self.first: dict[str, float] = {}

    def look(self, measured: dict[str, float]) -> str | None:
        """What is wrong, in a line; None while all is well, or not known yet."""
        self.first = measured | self.first
        for name, least in (("spread", 0.0), ("rank", 1.0)):
            if name in measured and measured[name] - least < self.fall * (self.first[name] - least):
                return f"the embeddings collapse: their {name} fell from {self.first[name]:.2g} to {measured[name]:.2g}"
        return None


def dense_probe(encoder: Encoder, shown: Crops, held: Crops, points: int = 2000, ridge: float = 1e-3) -> float:
    """The mean Dice on `held` of a 1x1x1 head on frozen features of all levels, fitted on `shown` in closed form.

    Ridge regression onto the classes, on as many voxels of each class as of the next, weighted by the root of how
    frequent the class is: between a head that overlooks small structures and one that sees them everywhere.
    """
    with observed(encoder), torch.autocast(shown.x.device.type, enabled=False):
        x, y = shown.x.flatten(0, 1), _labels(shown)
        names = y.unique()
        rows, target, weight = _drawn(encoder(x), y, names, points)
        mean, std = rows.mean(0), rows.std(0).clamp(min=1e-6)
        inputs = torch.cat([(rows - mean) / std, torch.ones_like(rows[:, :1])], 1).double()
        weighed = inputs.mT * weight
        system = weighed @ inputs + ridge * weight.sum() * torch.eye(inputs.shape[1], device=x.device)
        solution = torch.linalg.solve(system, weighed @ target.double()).float()
        slope = solution[:-1] / std[:, None]
        logits = _upsampled(encoder(held.x.flatten(0, 1)), slope, held.x.shape[-3:])
        said = names[(logits + (solution[-1] - mean @ slope)[:, None, None, None]).argmax(1)]
        return _dice(said, _labels(held), names[names > 0])


def _labels(crops: Crops) -> Int[Tensor, "n i j k"]:
    if crops.label is None:
        raise BadInput("the dense probe needs labelled crops; give it a manifest with labels, or none at all")
    return crops.label.flatten(0, 1)


def _drawn(
    pyramid: list[Tensor], y: Int[Tensor, "n i j k"], names: Int[Tensor, "l"], points: int
) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m l"], Float[Tensor, "m"]]:
    """Features of up to `points` voxels a class, evenly taken, with their classes and weights."""
    where, weight = [], []
    for name in names:
        voxels = (y == name).nonzero()
        taken = voxels[torch.linspace(0, len(voxels) - 1, min(points, len(voxels)), device=y.device).long()]
        where.append(taken)
        weight += [math.sqrt(len(voxels)) / len(taken)] * len(taken)
    at = torch.cat(where)
    rows = torch.cat([_rows(pyramid, at[at[:, 0] == n, 1:].float(), n, y.shape[1:]) for n in range(len(y))])
    order = at[:, 0].argsort(stable=True)
    label = y[tuple(at[order].T)]
    return rows, (label[:, None] == names).float(), torch.tensor(weight, device=y.device, dtype=torch.double)[order]


def _rows(pyramid: list[Tensor], at: Float[Tensor, "m 3"], crop: int, shape: tuple[int, ...]) -> Float[Tensor, "m d"]:
    return torch.cat([sample(level[crop : crop + 1], at[None], shape)[0] for level in pyramid], 1)


def _upsampled(
    pyramid: list[Tensor], slope: Float[Tensor, "d l"], shape: tuple[int, ...]
) -> Float[Tensor, "n l i j k"]:
    """The head on upsampled features; projected first, since both are linear and the classes are few."""
    parts = slope.split([level.shape[1] for level in pyramid])
    each = (torch.einsum("ncpqr,cl->nlpqr", level, part) for level, part in zip(pyramid, parts, strict=True))
    return torch.stack([F.interpolate(e, shape, mode="trilinear", align_corners=False) for e in each]).sum(0)


def _dice(said: Int[Tensor, "n i j k"], truth: Int[Tensor, "n i j k"], names: Int[Tensor, "l"]) -> float:
    shares = [2 * ((said == n) & (truth == n)).sum() / ((said == n).sum() + (truth == n).sum()) for n in names]
    return float(torch.stack(shares).nanmean()) if shares else math.nan
