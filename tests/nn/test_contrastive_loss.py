"""Tests the matrix form of the contrastive loss against loops that follow the paper line by line."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.nn.collectives import all_gather_rows
from medssl.nn.contrastive_loss import contrastive_loss


def by_loops(q, k, positive, ignore, temperature):
    def similar(a, b):
        return float(torch.dot(a, b) / (a.norm() * b.norm()).clamp(min=1e-12)) / temperature

    terms = []
    for a in range(len(q)):
        negatives = [n for n in range(len(k)) if not positive[a, n] and not ignore[a, n]]
        for b in range(len(k)):
            if positive[a, b] and not ignore[a, b]:
                up = math.exp(similar(q[a], k[b]))
                terms.append(-math.log(up / (up + sum(math.exp(similar(q[a], k[n])) for n in negatives))))
    return sum(terms) / max(1, len(terms))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 12), st.floats(0, 1), st.floats(0, 1))
def test_the_matrix_form_equals_the_loops(seed, n, m, attract, leave):
    g = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(size, 5, generator=g, dtype=torch.float64) for size in (n, m))
    positive, ignore = (torch.rand(n, m, generator=g) < share for share in (attract, leave))
    ours = contrastive_loss(q.float(), k.float(), positive, ignore, 0.1)
    assert float(ours) == pytest.approx(by_loops(q, k, positive, ignore, 0.1), abs=1e-6, rel=2e-6)


def test_groups_are_independent():
    q, k = torch.randn(3, 4, 5), torch.randn(3, 6, 5)
    positive, ignore = torch.rand(3, 4, 6) < 0.3, torch.rand(3, 4, 6) < 0.2
    ignore[0], ignore[2] = True, True
    alone = contrastive_loss(q[1], k[1], positive[1], ignore[1], 0.2)
    assert float(contrastive_loss(q, k, positive, ignore, 0.2)) == pytest.approx(float(alone), rel=1e-5)


@pytest.mark.parametrize("all_positive", [True, False])
def test_rows_without_negatives_or_positives_keep_gradients_finite(all_positive):
    q = torch.randn(4, 5, requires_grad=True)
    positive = torch.full((4, 4), all_positive)
    loss = contrastive_loss(q, q, positive, torch.zeros(4, 4, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss == 0 and q.grad is not None and q.grad.isfinite().all()


def test_ignored_pairs_get_no_gradient():
    q, k = torch.randn(2, 4), torch.randn(3, 4, requires_grad=True)
    positive = torch.tensor([[True, False, False], [False, False, True]])
    ignore = torch.tensor([[False, True, False], [False, True, False]])
    contrastive_loss(q, k, positive, ignore, 0.1).backward()
    assert k.grad[1].abs().max() == 0 and k.grad[0].abs().max() > 0


def test_one_process_gathers_itself():
    x = torch.randn(2, 3)
    assert all_gather_rows(x) is x
