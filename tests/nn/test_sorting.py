"""The sorting loss is that of an exact sort, is 0 only where all positives are nearer, and falls as they near."""

import pytest
import torch

from medssl import config
from medssl.errors import BadInput
from medssl.nn.self_supervision.sorting import compute_group_probability, sorting_loss
from medssl.objectives.contrastive.global_local import Config

STEEP = 1e7


def random_values(rows=6, count=9):
    return torch.rand(rows, count, generator=torch.Generator().manual_seed(0))


def test_a_steep_sort_is_the_exact_one():
    values, count = random_values(), torch.tensor([1, 2, 3, 4, 8, 9])
    exact = values.argsort(1).argsort(1) < count[:, None]
    torch.testing.assert_close(compute_group_probability(values, count, STEEP), exact.float(), rtol=0, atol=1e-3)


def test_the_group_receives_as_much_as_it_has_places():
    values, count = random_values(), torch.tensor([1, 2, 3, 4, 8, 9])
    for steepness in (1.0, 30.0):
        group = compute_group_probability(values, count, steepness)
        torch.testing.assert_close(group.sum(1), count.float())
        assert ((group >= 0) & (group <= 1 + 1e-5)).all()


def unit(*degrees):
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_loss_vanishes_only_where_all_positives_are_nearer():
    keys = unit(10.0, 25.0, 60.0, 90.0)
    positive, ignore = torch.tensor([[True, True, False, False]]), torch.zeros(1, 4, dtype=torch.bool)
    assert sorting_loss(unit(0.0), keys, positive, ignore, STEEP) < 1e-3
    assert sorting_loss(unit(0.0), keys, positive.flip(1), ignore, STEEP) > 5
    one_behind = torch.tensor([[True, False, True, False]])
    assert sorting_loss(unit(0.0), keys, one_behind, ignore, STEEP) > 2
    ignored = torch.tensor([[False, True, False, False]])
    assert sorting_loss(unit(0.0), keys, one_behind, ignored, STEEP) < 1e-3
    assert sorting_loss(unit(0.0), keys, one_behind, one_behind, STEEP) == 0  # ignored pairs are no positives


def test_a_value_leaves_the_group_as_it_grows():
    values, count = random_values(3, 8), torch.tensor([3])
    for row in values:
        for steepness in (1.0, 8.0, 30.0):
            jacobian = torch.autograd.functional.jacobian(
                lambda x, steep=steepness: compute_group_probability(x[None], count, steep)[0], row
            )
            assert (jacobian.diagonal() < 0).all()


def test_the_loss_falls_as_the_positive_nears():
    positive, ignore = torch.tensor([[True, False, False, False]]), torch.zeros(1, 4, dtype=torch.bool)
    losses = [
        sorting_loss(unit(0.0), unit(float(angle), 30.0, 60.0, 90.0), positive, ignore, 8.0).item()
        for angle in range(5, 175, 10)
    ]
    assert losses == sorted(losses) and losses[-1] > 3 * losses[0]


def test_without_positives_there_is_no_loss():
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert sorting_loss(unit(0.0), unit(5.0, 9.0), nothing, nothing, 8.0) == 0


def test_mixed_negatives_are_for_the_other_loss():
    with pytest.raises(BadInput, match="num_mixed 3: mixtures are negatives of loss=infonce"):
        config.check({"loss": "sorting", "num_mixed": 3}, Config, "run.yaml")
