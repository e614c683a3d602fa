"""The kNN probe: weighted k nearest neighbours on frozen features.

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (2018),
https://arxiv.org/abs/1805.01978, with the settings of Caron et al., "Emerging properties in self-supervised vision
transformers" (2021), https://arxiv.org/abs/2104.14294. Deviations: voxels are classified instead of images; every level
of an encoder has the same weight, whatever its width and the length of its features; and all classes have equally many
neighbours to choose from, so that large structures do not outvote small ones.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.training.probes.voxel_features import flatten_labels, sample_levels, select_voxels
from medssl.training.representation_metrics import eval_mode

NUM_NEIGHBOURS, TEMPERATURE = 20, 0.07
CHUNK_ROWS = 1024


def score_classes(
    z: Float[Tensor, "n d"],
    reference: Float[Tensor, "m d"],
    label: Int[Tensor, "m"],
    num_classes: int,
    k: int = NUM_NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "n l"]:
    """Returns the fraction of the vote that each class gets from the k nearest references of each row.

    A reference votes for its class with the weight exp(cosine similarity / temperature).

    Args:
        z: Embeddings to classify.
        reference: Embeddings with known classes.
        label: The class of each reference, from 0.
        num_classes: The number of classes.
        k: The number of neighbours; all references if there are fewer.
        temperature: Divides the similarities.
    """
    keys, one_hot = F.normalize(reference.double(), dim=1), F.one_hot(label, num_classes).double()
    votes = []
    for rows in F.normalize(z.double(), dim=1).split(CHUNK_ROWS):
        cosine, index = (rows @ keys.mT).topk(min(k, len(keys)), dim=1)
        votes.append(((cosine / temperature).softmax(1)[..., None] * one_hot[index]).sum(1))
    return torch.cat(votes).float()


def dense_knn_accuracy(features: nn.Module, train: Crops, test: Crops, points: int = 1000) -> float:
    """Returns the accuracy of the kNN classification of voxels, as the mean over classes; chance is 1 / classes.

    Args:
        features: Computes feature maps of crops, fine to coarse; it is not trained.
        train: Labelled crops whose voxels are the neighbours.
        test: Labelled crops of other volumes whose voxels are classified.
        points: Largest number of voxels per class, of the neighbours and of those that are classified.

    Raises:
        BadInput: The crops have no labels.
    """
    y, test_y = flatten_labels(train), flatten_labels(test)
    classes = y.unique()
    index, test_index = (select_voxels(labels, classes, points) for labels in (y, test_y))
    if not len(test_index):
        return float("nan")
    with eval_mode(features), torch.autocast(y.device.type, enabled=False):
        z, test_z = (_embed_voxels(features, crops, rows) for crops, rows in ((train, index), (test, test_index)))
    label, test_label = (
        torch.searchsorted(classes, labels[tuple(rows.T)]) for labels, rows in ((y, index), (test_y, test_index))
    )
    is_correct = score_classes(test_z, z, label, len(classes)).argmax(1) == test_label
    recalls = [is_correct[test_label == n].double().mean() for n in test_label.unique()]
    return float(torch.stack(recalls).mean())


def _embed_voxels(features: nn.Module, crops: Crops, index: Int[Tensor, "m 4"]) -> Float[Tensor, "m d"]:
    """Returns the features of voxels, each level with length 1."""
    levels = sample_levels(features(crops.x.flatten(0, 1)), index, crops.x.shape[-3:])
    return torch.cat([F.normalize(level, dim=1) for level in levels], 1)
