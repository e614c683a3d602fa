"""Tests that losses equal those of MONAI, and ignore unknown voxels and classes that are not annotated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceCELoss

from medssl.nn.losses import deep_supervision, dice_ce, regions_ce

UNKNOWN = -1


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 7, 8), torch.randint(0, 3, (2, 6, 7, 8))


def test_dice_ce_equals_monai(batch):
    logits, label = batch
    expected_loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert torch.allclose(dice_ce(logits, label), expected_loss(logits, label[:, None]), atol=1e-6)


def test_ignored_voxels_change_nothing(batch):
    logits, label = batch
    label = label.clone()
    label[:, :3] = UNKNOWN
    other = logits.clone()
    other[:, :, :3] = torch.randn_like(other[:, :, :3]) * 10
    assert torch.equal(dice_ce(logits, label), dice_ce(other, label))
    assert torch.allclose(dice_ce(logits, label), dice_ce(logits[:, :, 3:], label[:, 3:]))


def test_a_batch_of_unknown_voxels_has_a_finite_loss(batch):
    logits, label = batch
    assert torch.isfinite(dice_ce(logits, torch.full_like(label, UNKNOWN)))


def test_a_perfect_prediction_has_no_loss(batch):
    _, label = batch
    sure = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float() * 100
    assert dice_ce(sure, label) < 1e-4


def test_a_map_weighs_half_of_the_next_finer_one():
    maps = [torch.full((1, 2, n, n, n), float(value)) for n, value in ((8, 1), (4, 2), (2, 4))]
    total, finest = deep_supervision(
        maps, torch.zeros(1, 8, 8, 8, dtype=torch.long), lambda logits, label: logits.mean()
    )
    assert (total, finest) == (pytest.approx((4 * 1 + 2 * 2 + 1 * 4) / 7), 1)


def test_deep_weights_sum_to_one(batch):
    logits, label = batch
    total, finest = deep_supervision([logits, logits, logits], label)
    assert torch.allclose(total, dice_ce(logits, label)) and torch.allclose(finest, total)


def test_a_coarse_map_is_compared_with_a_downsampled_label(batch):
    _, label = batch
    blocks = label.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    sure = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float() * 100
    fine = torch.nn.functional.one_hot(blocks, 3).movedim(-1, 1).float() * 100
    total, _ = deep_supervision([fine, sure], blocks)
    assert total < 1e-4


def sure(label: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(label, classes).movedim(-1, 1).float() * 100


ALL = torch.ones(2, 4, dtype=torch.bool)


def without(*rows: tuple[int, int]) -> torch.Tensor:
    annotated = ALL.clone()
    for crop, n in rows:
        annotated[crop, n] = False
    return annotated


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), hidden=st.sets(st.integers(1, 3), max_size=2))
def test_hidden_classes_cost_the_same_as_their_sum_with_the_background(seed, hidden):
    """Compares with a network whose hidden classes are merged into the background."""
    g = torch.Generator().manual_seed(seed)
    logits, label = torch.randn(2, 4, 5, 6, 7, generator=g), torch.randint(0, 4, (2, 5, 6, 7), generator=g)
    visible_label = torch.where(torch.isin(label, torch.tensor(sorted(hidden), dtype=torch.long)), 0, label)
    remaining = [n for n in range(1, 4) if n not in hidden]
    p = logits.softmax(1)
    merged = torch.cat([1 - p[:, remaining].sum(1, keepdim=True), p[:, remaining]], 1).log()
    number = torch.tensor([0, *[remaining.index(n) + 1 if n in remaining else 0 for n in range(1, 4)]])
    annotated = without(*[(crop, n) for crop in range(2) for n in hidden])
    assert torch.allclose(dice_ce(logits, visible_label, annotated), dice_ce(merged, number[visible_label]), atol=1e-4)


def test_a_class_that_is_not_annotated_costs_nothing_there_and_counts_elsewhere(batch):
    truth = torch.randint(1, 4, (2, 6, 7, 8))
    visible_label = truth.clone()
    visible_label[0][truth[0] == 2] = 0
    assert dice_ce(sure(truth, 4), visible_label, without((0, 2))) < 1e-3
    assert dice_ce(sure(truth, 4), visible_label, ALL) > 0.5
    assert dice_ce(sure(truth, 4), visible_label, without((1, 2))) > 0.5


def test_the_loss_of_fully_annotated_volumes_is_the_ordinary_loss(batch):
    logits, label = batch
    assert torch.equal(dice_ce(logits, label), dice_ce(logits, label, ALL[:, :3]))


def test_balanced_cross_entropy_is_the_mean_over_classes(batch):
    logits, label = batch
    label[torch.rand(label.shape) < 0.8] = 0
    each = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    means = torch.stack([each[label == n].mean() for n in range(3)])
    dice_part = dice_ce(logits, label) - each.mean()
    assert torch.allclose(dice_ce(logits, label, class_balance=1.0) - dice_part, means.mean(), atol=1e-5)
    half = dice_ce(logits, label, class_balance=0.5)
    assert min(dice_ce(logits, label), dice_ce(logits, label, class_balance=1.0)) < half


NESTED = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)


def test_regions_are_binary_tasks_of_their_own(batch):
    """Compares with sigmoid cross-entropy and soft Dice of each region, averaged."""
    _, label = batch
    label, logits = (label + torch.randint(0, 2, label.shape)), torch.randn(2, 3, 6, 7, 8)
    want = torch.zeros(())
    for r in range(3):
        y, p = NESTED[:, r][label].float(), logits[:, r].sigmoid()
        bce = torch.nn.functional.binary_cross_entropy(p, y)
        want = want + (bce + 1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)) / 3
    assert torch.allclose(regions_ce(logits, label, NESTED), want, atol=1e-5)


def test_background_is_ignored_for_a_region_with_a_class_that_is_not_annotated(batch):
    _, label = batch
    logits = torch.randn(2, 3, 6, 7, 8)
    other = logits.clone()
    other[0][:, label[0] == 0] += torch.randn_like(other[0][:, label[0] == 0])
    hidden = without((0, 3))
    assert torch.allclose(regions_ce(logits, label, NESTED, hidden), regions_ce(other, label, NESTED, hidden))
    assert not torch.allclose(regions_ce(logits, label, NESTED), regions_ce(other, label, NESTED))


def test_unknown_voxels_of_regions_change_nothing(batch):
    _, label = batch
    logits = torch.randn(2, 3, 6, 7, 8)
    label[:, :3] = UNKNOWN
    other = logits.clone()
    other[:, :, :3] *= -5
    assert torch.equal(regions_ce(logits, label, NESTED), regions_ce(other, label, NESTED))
