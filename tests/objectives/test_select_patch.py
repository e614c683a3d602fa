"""Context and candidates share no voxel, only hidden patches compete, and places decide."""

import math

import torch

from medssl.nn.encoder import ResEncoder
from medssl.objectives.contrastive.select_patch import Config, SelectPatch, find_candidates
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return SelectPatch(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def upsample(mask, patch):
    for axis, side in enumerate(patch):
        mask = mask.repeat_interleave(side, axis + 2)
    return mask


def test_context_and_candidates_share_no_voxel():
    selector, batch = objective(), objective().prepare(crops(1))
    x, visible, hidden = batch.x.flatten(0, 1), batch.mask.visible, find_candidates(batch.mask)
    assert not (visible & hidden).any() and hidden.flatten(1).any(1).all()
    for mask in (visible, hidden):
        changed = torch.where(upsample(mask, selector.encoder.patch), x, x.flip(2))
        torch.testing.assert_close(
            selector.encode_candidates(changed, mask), selector.encode_candidates(x, mask), rtol=0, atol=1e-6
        )


def test_only_hidden_patches_are_candidates_and_the_own_one_is_best():
    is_hidden = torch.tensor([[True, False, True, True]])
    tokens = torch.eye(4)[None]
    logits = objective(temperature=0.1).compare(tokens, tokens, is_hidden)
    assert (logits[0, is_hidden[0]].argmax(1) == torch.tensor([0, 2, 3])).all()
    assert (logits[0, is_hidden[0]][:, 1] == float("-inf")).all() and (logits[0, 1] == 0).all()


def test_equal_queries_stay_at_chance():
    selector, batch = objective(), crops(1)
    with torch.no_grad():
        for weight in selector.predictor.parameters():
            weight.zero_()
    hidden = find_candidates(objective().prepare(batch).mask)
    chance = torch.tensor([math.log(int(row.sum())) for row in hidden.flatten(1)])
    weights = hidden.flatten(1).sum(1)
    torch.testing.assert_close(selector.step(batch).loss.detach(), (chance * weights).sum() / weights.sum())
