"""Tests the losses of lesion voxels against direct computations."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssl.nn.detection.boxes import find_lesions
from medssl.nn.detection.mining import MIN_NEGATIVES, find_kth_largest, focal_loss, hard_negative_ce


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 12, 12, 12, generator=source)
    label = torch.zeros(2, 12, 12, 12, dtype=torch.long)
    label[0, 1:3, 1:3, 1:3], label[0, 6:10, 6:10, 6:10], label[1, 4, 4, 4] = 1, 2, 1
    return logits, label


@pytest.mark.parametrize("seed", range(5))
def test_the_kth_largest_is_that_of_a_sort(seed):
    random = np.random.default_rng(seed)
    values = (10.0 ** random.uniform(-30, 30, 300)).astype(np.float32)
    values[::7], values[::11] = values[0], 0
    for k in (1, 2, 44, 150, 300):
        assert float(find_kth_largest(torch.from_numpy(values), k)) == np.sort(values)[-k]


def terms(logits, label):
    return F.cross_entropy(logits, label, reduction="none")


def test_every_lesion_counts_alike_and_the_worst_negatives_with_them(batch):
    logits, label = batch
    ce = terms(logits, label)
    each = [ce[0, 1:3, 1:3, 1:3].mean(), ce[0, 6:10, 6:10, 6:10].mean(), ce[1, 4, 4, 4]]
    negatives = ce[label == 0].sort(descending=True).values
    count = 3 * int((label > 0).sum()) + 2 * MIN_NEGATIVES
    expected = torch.stack(each).mean() + negatives[:count].mean()
    assert torch.allclose(hard_negative_ce(logits, label, find_lesions(label)[0], 3.0), expected)


def test_a_batch_without_lesions_is_learnt_from_its_worst_voxels(batch):
    logits, label = batch[0], torch.zeros_like(batch[1])
    expected = terms(logits, label).flatten().topk(2 * MIN_NEGATIVES).values.mean()
    assert torch.allclose(hard_negative_ce(logits, label, label, 3.0), expected)


def test_focal_weighs_each_voxel_by_how_wrong_it_is(batch):
    logits, label = batch
    p = logits.softmax(1).gather(1, label[:, None])[:, 0]
    expected = (-((1 - p) ** 2) * p.log()).sum() / max(MIN_NEGATIVES, int((label > 0).sum()))
    assert torch.allclose(focal_loss(logits, label, 2.0), expected, rtol=1e-4)


@pytest.mark.parametrize("loss", ["mined", "focal"])
def test_unknown_voxels_change_nothing(batch, loss):
    logits, label = batch
    label = label.clone()
    label[:, :, 10:] = -1
    other = logits.clone()
    other[:, :, :, 10:] = 9 * torch.randn_like(other[:, :, :, 10:])
    number = find_lesions(label)[0]
    losses = [
        hard_negative_ce(x, label, number, 3.0) if loss == "mined" else focal_loss(x, label, 2.0)
        for x in (logits, other)
    ]
    assert torch.equal(*losses)
    assert np.isfinite(losses[0].item())
