"""The losses equal MONAI's where MONAI has one, and ignored voxels count nowhere."""

import pytest
import torch
from monai.losses import DiceCELoss

from medssl.nn.losses import IGNORE, deeply, dice_ce


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 7, 8), torch.randint(0, 3, (2, 6, 7, 8))


def test_dice_ce_equals_monai(batch):
    logits, label = batch
    theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert torch.allclose(dice_ce(logits, label), theirs(logits, label[:, None]), atol=1e-6)


def test_ignored_voxels_change_nothing(batch):
    logits, label = batch
    label = label.clone()
    label[:, :3] = IGNORE
    other = logits.clone()
    other[:, :, :3] = torch.randn_like(other[:, :, :3]) * 10
    assert torch.equal(dice_ce(logits, label), dice_ce(other, label))
    assert torch.allclose(dice_ce(logits, label), dice_ce(logits[:, :, 3:], label[:, 3:]))


def test_a_batch_with_nothing_known_has_a_finite_loss(batch):
    logits, label = batch
    assert torch.isfinite(dice_ce(logits, torch.full_like(label, IGNORE)))


def test_a_perfect_answer_has_no_loss(batch):
    _, label = batch
    sure = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float() * 100
    assert dice_ce(sure, label) < 1e-4


def test_deep_weights_sum_to_one(batch):
    logits, label = batch
    total, finest = deeply([logits, logits, logits], label)
    assert torch.allclose(total, dice_ce(logits, label)) and torch.allclose(finest, total)


def test_a_coarse_map_is_held_against_a_shrunk_label(batch):
    _, label = batch
    blocks = label.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    sure = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float() * 100
    fine = torch.nn.functional.one_hot(blocks, 3).movedim(-1, 1).float() * 100
    total, _ = deeply([fine, sure], blocks)
    assert total < 1e-4
