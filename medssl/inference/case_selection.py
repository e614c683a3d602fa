"""Suggest: which unlabelled cases to annotate next, so that the labelled ones stand for all.

Facility location, greedily: Wei, Iyer and Bilmes, Submodularity in Data Subset Selection and Active Learning, 2015,
https://proceedings.mlr.press/v37/wei15.html. Where labels are few, cases typical of many others are worth more than odd
ones: Hacohen et al., Active Learning on a Budget, 2022, https://arxiv.org/abs/2202.02794. Here each case weighs as much
as a network is in doubt about it, where one is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medssl.errors import BadInput
from medssl.inference.ensemble import entropy
from medssl.inference.sliding_window import Size, slabs, windows

DOUBTFUL = 0.01  # of a case's voxels: those the network is most in doubt about tell for the case
Encode = Callable[[Float[Tensor, "b c i j k"]], Float[Tensor, "b d p q r"]]
Tell = Callable[[Float[Tensor, "b c i j k"]], Float[Tensor, "b n i j k"]]


@dataclass(frozen=True)
class Suggested:
    """A case to annotate, its rank from 1, and why in a line."""

    rank: int
    case: str
    coverage: float
    doubt: float | None
    reason: str


def suggest(
    features: Float[np.ndarray, "m d"],
    doubt: Float[np.ndarray, "m"] | None,
    names: Sequence[str],
    labelled: int,
    n: int,
) -> list[Suggested]:
    """The `n` cases that add most to how well the chosen ones stand for all; the first `labelled` rows are chosen.

    `coverage` is the weighted mean similarity of all cases to their nearest chosen one, with this one and those before.
    """
    if n > len(names) - labelled:
        raise BadInput(f"{n} cases asked for, {len(names) - labelled} have no label yet; lower --n")
    alike = similarity(features)
    weight = np.ones(len(names)) if doubt is None else doubt / doubt.mean()
    near = alike[:, :labelled].max(1, initial=0.0)
    told: list[Suggested] = []
    for rank in range(1, n + 1):
        taken = [names.index(one.case) for one in told]
        gain = (weight[:, None] * np.maximum(alike - near[:, None], 0)).mean(0)
        gain[[*range(labelled), *taken]] = -1
        at = int(gain.argmax())
        gained = int((alike[:, at] > near).sum()) - 1
        near = np.maximum(near, alike[:, at])
        reached = float((weight * near).sum() / weight.sum())
        unsure = None if doubt is None else float(doubt[at])
        told.append(Suggested(rank, names[at], reached, unsure, _reason(gained, len(names), reached, doubt, at)))
    return told


def similarity(features: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m m"]:
    """Of every pair of cases, from 1 (the same) down: a bell as wide as the median distance."""
    scaled = (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    length = np.square(scaled).sum(1)
    squared = (length[:, None] + length[None] - 2 * scaled @ scaled.T).clip(0)
    middle = np.median(squared[~np.eye(len(squared), dtype=bool)]) if len(squared) > 1 else 1.0
    return np.exp(-squared / max(float(middle), 1e-12))


def embedded(
    x: Float[np.ndarray, "c i j k"], encode: Encode, crop: Size, device: str = "cpu"
) -> Float[np.ndarray, "d"]:
    """A case as the mean and the spread of its coarsest features, over windows side by side."""
    with torch.no_grad():
        rows = [encode(seen.to(device)).float().flatten(2)[0].T.cpu() for _, seen in windows(x, crop, 0.0, 1)]
    cells = torch.cat(rows)
    return torch.cat([cells.mean(0), cells.std(0, correction=0)]).double().numpy()


def doubted(x: Float[np.ndarray, "c i j k"], tell: Tell, crop: Size, device: str = "cpu") -> float:
    """How far a network is in doubt about a case, 0 to 1: the mean entropy of its most doubtful voxels."""
    parts = [entropy(slab.cpu()) / np.log(len(slab)) for slab in slabs(x, tell, crop, 0.25, 2, device)]
    nats = torch.cat(parts).flatten()
    return float(nats.topk(max(1, round(DOUBTFUL * len(nats)))).values.mean())


def _reason(gained: int, cases: int, reached: float, doubt: Float[np.ndarray, "m"] | None, at: int) -> str:
    said = f"stands nearer to {gained} of {cases - 1} other cases than any labelled one; coverage then {reached:.2f}"
    if doubt is None:
        return said
    above = int((doubt < doubt[at]).sum())
    return f"{said}; the network is more in doubt about it than about {above} of {cases - 1}"
