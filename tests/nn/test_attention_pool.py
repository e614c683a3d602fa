"""Attention finds the one telling patch of a crop, which a mean does not show."""

import torch
from torch import nn
from torch.nn import functional as F

from medssl.nn.attention.pool import AttentionPool


class MeanPool(AttentionPool):
    """A planted fault: all tokens have the same weight."""

    def forward(self, tokens, where):
        weights = where[:, None] / where.sum(1)[:, None, None]
        return weights @ tokens, weights


def learn_lesions(pool):
    """Trains a pool on crops with a lesion in 1 of 64 cells; returns how often that cell gets the most attention."""
    generator = torch.Generator().manual_seed(0)
    lesion, question = torch.randn(8, generator=generator), nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*pool.parameters(), *question.parameters()], 0.02)

    def draw():
        tokens, has_lesion = torch.randn(32, 64, 8, generator=generator), torch.arange(32) % 2 == 0
        cell = torch.randint(64, (32,), generator=generator)
        tokens[torch.arange(32)[has_lesion], cell[has_lesion]] += 3 * lesion
        return tokens, has_lesion, cell

    for _ in range(150):
        tokens, has_lesion, _ = draw()
        pooled, _ = pool(tokens, torch.ones(32, 64, dtype=torch.bool))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(question(pooled[:, 0])[:, 0], has_lesion.float()).backward()
        optimizer.step()
    tokens, has_lesion, cell = draw()
    _, weights = pool(tokens, torch.ones(32, 64, dtype=torch.bool))
    return (weights[:, 0].argmax(1) == cell)[has_lesion].float().mean()


def test_a_lesion_in_one_of_64_cells_gets_the_most_attention():
    torch.manual_seed(0)
    assert learn_lesions(AttentionPool(8)) > 0.9
    assert learn_lesions(MeanPool(8)) < 0.2


def test_weights_sum_to_1_over_the_cells_that_count():
    torch.manual_seed(0)
    pool, tokens = AttentionPool(4, 3), torch.randn(2, 5, 4)
    where = torch.tensor([[True, True, False, True, False], [True] * 5])
    pooled, weights = pool(tokens, where)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 3))
    assert (weights[0][:, ~where[0]] == 0).all() and pooled.shape == (2, 3, 4)
    assert torch.equal(pool(tokens.masked_fill(~where[..., None], 99.0), where)[0], pooled)
