"""The kNN probe agrees with a computation by hand, and knows features with information from those without."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.training.probes.neighbours import dense_knn_accuracy, score_classes


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def score_by_hand(z, reference, label, num_classes, k, temperature):
    """One row and one neighbour at a time, in plain Python."""
    rows = []
    for a in z.double().tolist():
        similarities = []
        for b, value in zip(reference.double().tolist(), label.tolist(), strict=True):
            dot = sum(p * q for p, q in zip(a, b, strict=True))
            similarities.append((dot / math.hypot(*a) / math.hypot(*b), value))
        nearest = sorted(similarities, reverse=True)[:k]
        weights = [sum(math.exp(s / temperature) for s, v in nearest if v == n) for n in range(num_classes)]
        rows.append([weight / sum(weights) for weight in weights])
    return np.array(rows)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (99, 0.2)])
def test_votes_are_those_of_a_computation_by_hand(k, temperature):
    z, reference, label = normal(17, 6), normal(40, 6, 1), torch.arange(40) % 3
    expected = score_by_hand(z, reference, label, 3, k, temperature)
    np.testing.assert_allclose(score_classes(z, reference, label, 3, k, temperature), expected, atol=1e-6)


def test_a_near_neighbour_outvotes_two_that_are_farther():
    reference = torch.tensor([[1.0, 0.1], [0.6, 0.8], [0.6, 0.8]])
    votes = score_classes(torch.tensor([[1.0, 0.0]]), reference, torch.tensor([0, 1, 1]), 2, 3)
    assert votes.argmax() == 0
    assert score_classes(torch.tensor([[1.0, 0.0]]), reference, torch.tensor([0, 1, 1]), 2, 3, 100.0).argmax() == 1


def test_neither_the_order_nor_the_length_of_rows_matters():
    z, reference, label = normal(3000, 5), normal(50, 5, 1), torch.arange(50) % 4
    order, order_of_rows = torch.randperm(50), torch.randperm(3000)
    votes = score_classes(z, reference, label, 4)
    shuffled = score_classes(3 * z[order_of_rows], 0.2 * reference[order], label[order], 4)
    torch.testing.assert_close(shuffled, votes[order_of_rows])


def make_crops(seed, label=True):
    """Crops of four scans with two kinds of tissue, which differ by their texture only."""
    g = torch.Generator().manual_seed(seed)
    y = torch.zeros(4, 1, 16, 16, 16, dtype=torch.long)
    y[:, :, 8:] = 1
    y[::2] = y[::2].flip(2)
    x = (0.5 + (0.05 + 0.15 * y) * torch.randn(y.shape, generator=g))[:, :, None]
    geometry = torch.zeros(4, 1, 3, dtype=torch.long), torch.full((4, 3), 16), torch.eye(4).expand(4, 1, 4, 4)
    return Crops(x, *geometry, torch.arange(4), y if label else None)


class Texture(nn.Module):
    """The local standard deviation in two steps of resolution, or nothing."""

    def __init__(self, blank=False):
        super().__init__()
        self.blank = blank

    def forward(self, x):
        mean, square = (nn.functional.avg_pool3d(v, 5, 1, 2, count_include_pad=False) for v in (x, x.square()))
        deviation = (square - mean.square()).clamp_min(0).sqrt() * (not self.blank)
        fine = torch.cat([deviation, torch.full_like(x, 0.1)], 1)
        return [fine, nn.functional.avg_pool3d(fine, 2)]


def test_features_with_information_are_far_above_chance_and_blank_ones_are_at_chance():
    assert dense_knn_accuracy(Texture(), make_crops(0), make_crops(1)) > 0.9
    assert dense_knn_accuracy(Texture(blank=True), make_crops(0), make_crops(1)) == 0.5


def test_the_order_of_the_batch_has_no_influence():
    train, test = make_crops(0), make_crops(1)
    reversed_test = Crops(test.x.flip(0), test.corner, test.size, test.affine, test.volume, test.label.flip(0))
    assert dense_knn_accuracy(Texture(), train, test, 4096) == pytest.approx(
        dense_knn_accuracy(Texture(), train, reversed_test, 4096), abs=1e-3
    )


def test_a_class_without_voxels_in_other_crops_is_left_out():
    train, test = make_crops(0), make_crops(1)
    train.label[:, :, 0] = 7
    assert dense_knn_accuracy(Texture(), train, test) > 0.8
    unknown = Crops(test.x, test.corner, test.size, test.affine, test.volume, torch.full_like(test.label, 9))
    assert math.isnan(dense_knn_accuracy(Texture(), train, unknown))


def test_crops_without_labels_are_refused():
    with pytest.raises(BadInput, match="needs labelled crops"):
        dense_knn_accuracy(Texture(), make_crops(0, label=False), make_crops(1))
