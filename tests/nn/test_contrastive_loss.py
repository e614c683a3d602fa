"""Tests the matrix form of the contrastive loss against loops that follow the paper line by line."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.nn.collectives import all_gather_rows
from medssl.nn.self_supervision.contrastive_loss import contrastive_loss, mix_hard_negatives


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


def draw_queries_and_keys():
    g = torch.Generator().manual_seed(3)
    q, k = torch.randn(6, 5, generator=g), torch.randn(40, 5, generator=g)
    negative = torch.rand(6, 40, generator=g) < 0.5
    negative[2] = False
    return q, k, negative


def test_mixtures_come_from_negatives_and_from_the_embedding_alone():
    q, k, negative = draw_queries_and_keys()
    mixed = mix_hard_negatives(q.requires_grad_(), k, negative, 9, torch.Generator().manual_seed(0))
    assert not mixed.requires_grad and (mixed[2] == 0).all()
    others = [n for n in range(6) if n != 2]
    torch.testing.assert_close(mixed[others].norm(dim=-1), torch.ones(5, 9))
    changed = torch.where(negative.any(0)[:, None], k, 100.0)
    assert torch.equal(mix_hard_negatives(q, changed, negative, 9, torch.Generator().manual_seed(0)), mixed)
    only_first = torch.zeros_like(negative)
    only_first[:, 0] = True
    mixed = mix_hard_negatives(q, k, only_first, 9, torch.Generator().manual_seed(0))
    key = torch.nn.functional.normalize(k[0], dim=0)
    torch.testing.assert_close(mixed[:, :8], key.expand(6, 8, 5))  # of two negatives that are the same one
    direction, unit = mixed[:, 8], torch.nn.functional.normalize(q.detach(), dim=1)
    assert (direction - key).abs().amax() > 0.01
    assert ((direction @ key) >= (direction * unit).sum(1) - 1e-6).all()  # less than half is of the embedding


def test_the_hardest_negatives_are_mixed():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=g), torch.randn(400, 8, generator=g)
    mixed = mix_hard_negatives(q, k, torch.ones(2, 400, dtype=torch.bool), 8, torch.Generator().manual_seed(0))
    similarity = torch.nn.functional.cosine_similarity(q[:1], k)
    assert (torch.nn.functional.cosine_similarity(q[:1], mixed[0]) > similarity.sort().values[-64]).all()


def test_mixtures_are_further_negatives_and_zeros_are_none():
    q, k, negative = draw_queries_and_keys()
    positive, ignore = ~negative, torch.zeros_like(negative)
    plain = contrastive_loss(q, k, positive, ignore, 0.1)
    assert torch.equal(contrastive_loss(q, k, positive, ignore, 0.1, torch.zeros(6, 3, 5)), plain)
    repeated = torch.nn.functional.normalize(k[:3], dim=1).expand(6, 3, 5)
    keys = torch.cat([k, k[:3]])
    wider = [torch.cat([mask, torch.zeros(6, 3, dtype=torch.bool)], 1) for mask in (positive, ignore)]
    torch.testing.assert_close(
        contrastive_loss(q, k, positive, ignore, 0.1, repeated), contrastive_loss(q, keys, *wider, 0.1)
    )
