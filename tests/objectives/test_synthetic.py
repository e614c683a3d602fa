"""Painted crops show the regions of their map, with contrasts of their own; labels decide what is segmented."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.data.transforms.augmentation import AugmentConfig
from medssl.nn.encoder import ResEncoder
from medssl.nn.self_supervision.parcels import cluster_intensities
from medssl.objectives.synthesis.synthetic import Config, Synthetic
from tests.helpers.toy_training import make_batch

PLAIN = AugmentConfig(probability=0, flip=(False, False, False))
SHAPE = (12, 32, 12)


def make_objective(**changes) -> Synthetic:
    torch.manual_seed(0)
    settings = Config(**{"appearance": PLAIN, "texture": 0.0, "bias": 0.0, "num_classes": 3, **changes})
    return Synthetic(settings, ResEncoder((4, 8, 8), (1, 2, 2)))


def make_scan():
    """Two labelled slabs on a background of two intensities; each slab has an intensity of its own."""
    x = torch.full((2, 1, 1, *SHAPE), 0.2)
    x[..., 16:, :] = 0.4
    label = torch.zeros(2, 1, *SHAPE, dtype=torch.int64)
    for value, rows in ((1, slice(4, 12)), (2, slice(20, 28))):
        x[..., rows, :] = 0.5 + 0.2 * value
        label[..., rows, :] = value
    return replace(make_batch(0), x=x, label=label)


def correlation(a, b) -> float:
    return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])


def test_clusters_follow_the_modes_of_the_intensities():
    g = torch.Generator().manual_seed(0)
    modes = torch.tensor([0.1, 0.5, 0.9])
    truth = torch.randint(3, (5000,), generator=g)
    clusters = cluster_intensities(modes[truth] + 0.02 * torch.randn(5000, generator=g), 3)
    assert torch.equal(clusters, truth)
    assert not cluster_intensities(torch.full((9,), 0.3), 4).any()


def test_parcels_never_cross_the_border_of_a_label():
    scan = make_scan()
    x = scan.x[0, 0] + 0.05 * torch.rand(scan.x[0, 0].shape, generator=torch.Generator().manual_seed(1))
    parcels = make_objective(num_parcels=4, num_label_parcels=3).divide(x, scan.label[0, 0])
    label_of = {(int(p), int(v)) for p, v in zip(parcels.flatten(), scan.label[0, 0].flatten(), strict=True)}
    assert len(label_of) == int(parcels.max()) + 1 == 4 + 2 * 3


def test_a_map_without_image_is_painted_by_its_labels_alone():
    scan = make_scan()
    blank = replace(scan, x=torch.zeros_like(scan.x))
    painted, target = make_objective(real_contrast_fraction=1.0).paint_batch(blank)
    assert torch.equal(target, scan.label[:, 0])
    inner = [painted[0, 0, :, rows] for rows in (slice(6, 10), slice(22, 26), slice(14, 18))]
    assert all(part.std() < 1e-6 for part in inner)
    assert len({round(float(part.mean()), 4) for part in inner}) == 3


def test_contrasts_are_random_or_near_the_scan():
    scan = make_scan()
    real = [correlation(image[0], scan.x[0, 0, 0]) for _ in range(3) for image in _paint(scan, 1.0)]
    free = [correlation(image[0], scan.x[0, 0, 0]) for _ in range(3) for image in _paint(scan, 0.0)]
    assert min(real) > 0.9
    assert min(free) < 0.5 < max(real) and np.std(free) > 5 * np.std(real)


def _paint(scan, fraction):
    objective = make_objective(real_contrast_fraction=fraction)
    return [image for _ in range(4) for image in objective.paint_batch(scan)[0]]


def test_two_steps_paint_one_map_differently_and_evaluation_repeats():
    objective, scan = make_objective(), make_scan()
    first, second = (objective.paint_batch(scan)[0] for _ in range(2))
    assert not torch.equal(first, second)
    objective.eval()
    assert torch.equal(objective.paint_batch(scan)[0], objective.paint_batch(scan)[0])


def test_regions_that_are_no_class_are_background_and_unknown_voxels_stay_unknown():
    scan = make_scan()
    label = scan.label.clone()
    label[..., :4, :], label[..., 28:, :] = -1, 7
    painted, target = make_objective().paint_batch(replace(scan, label=label))
    assert target[:, :, 28:].eq(0).all() and target[:, :, :4].eq(-1).all() and target[:, :, 4:12].eq(1).all()
    assert painted[0, 0, :, 30].mean() != painted[0, 0, :, 14].mean()


def test_a_class_that_is_not_annotated_costs_nothing():
    objective, scan = make_objective(), make_scan()
    unlabelled = torch.where(scan.label == 2, 0, scan.label)
    losses = []
    for annotated in ([True, True, True], [True, True, False]):
        objective.eval()
        torch.nn.init.constant_(objective.heads[0].conv.bias, 0.0)
        objective.heads[0].conv.bias.data[2] = 20.0
        crops = replace(scan, label=unlabelled, annotated=torch.tensor([annotated, annotated]))
        losses.append(objective.step(crops).logs["finest"].item())
    assert losses[1] < losses[0] - 5


def test_without_labels_the_classes_are_the_parcels_of_the_scan():
    scan = replace(make_scan(), label=None)
    objective = make_objective(num_classes=None, num_parcels=4)
    _, target = objective.paint_batch(scan)
    assert objective.num_classes == 4
    means = [scan.x[:, 0, 0][target == n].mean() for n in range(4)]
    assert means == sorted(means) and target.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_network_that_saw_no_scan_segments_one():
    scan = make_scan()
    objective = make_objective(real_contrast_fraction=0.0, texture=0.05)
    blank = replace(scan, x=torch.zeros_like(scan.x))
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        objective.step(blank).loss.backward()
        optimizer.step()
    objective.eval()
    predicted = objective.heads[0](objective.decoder(objective.encoder(scan.x[:, 0]))[0]).argmax(1)
    assert (predicted == scan.label[:, 0]).float().mean() > 0.9
