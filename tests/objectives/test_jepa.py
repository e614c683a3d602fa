"""JEPA: predictions follow from visible voxels and positions alone, and the teacher's features are the target."""

from dataclasses import replace

import pytest
import torch

from medssl.nn.encoder import ResEncoder
from medssl.nn.self_supervision.cell_predictor import CellPredictor
from medssl.nn.self_supervision.tokens import cell_positions_mm, embed_positions, to_tokens
from medssl.objectives.distillation.jepa import Config, Jepa
from tests.objectives.test_contract import crops

SPACING_MM = (1.0, 1.0, 2.0)


def objective(**settings):
    torch.manual_seed(0)
    return Jepa(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_hidden_voxels_change_no_prediction_but_the_target():
    jepa, batch = objective(), objective().prepare(crops(1))
    x, mask = batch.x.flatten(0, 1), batch.mask.visible
    for axis, side in enumerate(jepa.encoder.patch):
        mask = mask.repeat_interleave(side, axis + 2)
    other = torch.where(mask, x, x.flip(2))
    predicted, again = (
        jepa.predict(jepa.encode(read).coarsest_tokens(), batch.mask.visible, batch.affine)
        for read in (batch, replace(batch, x=other[:, None]))
    )
    torch.testing.assert_close(again, predicted, rtol=0, atol=1e-6)
    assert (jepa.compute_target(other) - jepa.compute_target(x)).abs().max() > 0.1


def test_a_prediction_depends_on_its_place_and_on_visible_tokens_only():
    torch.manual_seed(0)
    predictor = CellPredictor(12, 24, 2)
    tokens = torch.randn(2, 8, 12)
    visible = torch.tensor([[True, True, False, False] * 2, [False, True, False, True] * 2])
    positions_mm = cell_positions_mm((2, 2, 2), (8, 8, 8), SPACING_MM, tokens)
    predicted = predictor(tokens, visible, positions_mm)
    assert torch.equal(predictor(tokens.masked_fill(~visible[..., None], 9.0), visible, positions_mm), predicted)
    assert (
        predictor(tokens.masked_fill(visible[..., None], 9.0), visible, positions_mm) - predicted
    ).abs().max() > 0.01
    assert (predicted[:, 0] - predicted[:, 7]).abs().max() > 0.001
    in_one_place = predictor(tokens, visible, torch.zeros_like(positions_mm))
    torch.testing.assert_close(in_one_place[:, 0], in_one_place[:, 7])


def test_positions_are_in_mm_whatever_the_grid():
    like = torch.zeros(())
    fine = cell_positions_mm((4, 4, 4), (8, 8, 8), (1.0, 1.0, 1.0), like)
    coarse = cell_positions_mm((4, 4, 4), (4, 4, 8), (2.0, 2.0, 1.0), like)
    assert torch.equal(fine, coarse) and fine.mean(0).abs().max() == 0
    volume = fine.view(4, 4, 4, 3).movedim(-1, 0)[None]
    assert torch.equal(to_tokens(volume)[0], fine)
    embedded = embed_positions(fine, 24)
    assert embedded.shape == (64, 24) and len(embedded.unique(dim=0)) == 64


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_teacher_follows_by_its_momentum(momentum):
    jepa = objective(momentum=momentum)
    before = [weight.clone() for weight in jepa.teacher.parameters()]
    with torch.no_grad():
        for weight in jepa.encoder.parameters():
            weight += 0.5
    jepa.after_step()
    for old, taught, weight in zip(before, jepa.teacher.parameters(), jepa.encoder.parameters(), strict=True):
        torch.testing.assert_close(taught, old if momentum else weight)
    assert not any(weight.requires_grad for weight in jepa.teacher.parameters())


def test_equal_features_everywhere_give_no_loss_and_no_spread():
    jepa = objective()
    with torch.no_grad():
        for network in (jepa.teacher, jepa.predictor.leave[1]):
            for weight in network.parameters():
                weight.zero_()
    step = jepa.step(crops(1))
    assert step.loss == 0 and step.logs["spread"] == 0
