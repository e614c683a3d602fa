"""The linear probe: Dice of a linear head on frozen features."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.training.probes.voxel_features import flatten_labels, sample_levels, select_voxels
from medssl.training.representation_metrics import eval_mode


def dense_probe_dice(features: nn.Module, train: Crops, test: Crops, points: int = 2000, ridge: float = 1e-3) -> float:
    """Fits a 1x1x1 head on frozen features of all levels and returns its mean Dice on other crops.

    The head is a ridge regression onto the classes in closed form, on equally many voxels of each class. Weights are
    the square root of the class frequency: a compromise between a head that misses small structures and one that
    predicts them everywhere.

    Args:
        features: Computes feature maps of crops, fine to coarse, such as an encoder; it is not trained.
        train: Labelled crops to fit the head on.
        test: Labelled crops to score the head on.
        points: Largest number of voxels per class.
        ridge: Strength of the regularization.
    """
    with eval_mode(features), torch.autocast(train.x.device.type, enabled=False):
        x, y = train.x.flatten(0, 1), flatten_labels(train)
        classes = y.unique()
        index = select_voxels(y, classes, points)
        rows, label = torch.cat(sample_levels(features(x), index, y.shape[1:]), 1), y[tuple(index.T)]
        target, weight = (label[:, None] == classes).float(), _weigh_rows(label, y, classes)
        mean, std = rows.mean(0), rows.std(0).clamp(min=1e-6)
        inputs = torch.cat([(rows - mean) / std, torch.ones_like(rows[:, :1])], 1).double()
        weighted = inputs.mT * weight
        system = weighted @ inputs + ridge * weight.sum() * torch.eye(inputs.shape[1], device=x.device)
        solution = torch.linalg.solve(system, weighted @ target.double()).float()
        slope = solution[:-1] / std[:, None]
        logits = _project_and_upsample(features(test.x.flatten(0, 1)), slope, test.x.shape[-3:])
        predicted = classes[(logits + (solution[-1] - mean @ slope)[:, None, None, None]).argmax(1)]
        return _mean_dice(predicted, flatten_labels(test), classes[classes > 0])


def _weigh_rows(label: Int[Tensor, "m"], y: Int[Tensor, "n i j k"], classes: Int[Tensor, "l"]) -> Float[Tensor, "m"]:
    """Returns a weight for each sampled voxel, whose sum over a class is the square root of the size of the class."""
    weight = torch.zeros(len(label), dtype=torch.double, device=y.device)
    for value in classes:
        is_sample = label == value
        weight[is_sample] = math.sqrt(int((y == value).sum())) / int(is_sample.sum())
    return weight


def _project_and_upsample(
    pyramid: list[Tensor], slope: Float[Tensor, "d l"], shape: tuple[int, ...]
) -> Float[Tensor, "n l i j k"]:
    """Applies the head, then upsamples: both are linear, and there are fewer classes than features."""
    slopes = slope.split([level.shape[1] for level in pyramid])
    logits = (torch.einsum("ncpqr,cl->nlpqr", level, part) for level, part in zip(pyramid, slopes, strict=True))
    return torch.stack([F.interpolate(x, shape, mode="trilinear", align_corners=False) for x in logits]).sum(0)


def _mean_dice(
    predicted: Int[Tensor, "n i j k"], reference: Int[Tensor, "n i j k"], classes: Int[Tensor, "l"]
) -> float:
    scores = [
        2 * ((predicted == n) & (reference == n)).sum() / ((predicted == n).sum() + (reference == n).sum())
        for n in classes
    ]
    return float(torch.stack(scores).nanmean()) if scores else math.nan
