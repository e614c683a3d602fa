"""Graphs match node by node whatever their order, edges decide where nodes look alike, and gradients are exact."""

from itertools import permutations

import pytest
import torch

from medssl import config
from medssl.errors import BadInput
from medssl.nn.self_supervision.graph_matching import balance, join_neighbours, match_graphs
from medssl.objectives.contrastive.graph_match import Config

SETTINGS = {"temperature": 0.02, "edge_weight": 1.0}


def random_graph(num_nodes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positions_mm = torch.rand(1, num_nodes, 3, generator=generator)
    return torch.randn(1, num_nodes, 8, generator=generator), join_neighbours(positions_mm, 2)


def test_another_order_of_the_nodes_reorders_the_answer():
    x, edges = random_graph()
    y = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    order = torch.tensor([3, 0, 4, 1, 2])
    match = match_graphs(x, y, edges, edges, **SETTINGS)
    reordered = match_graphs(x, y[:, order], edges, edges[:, order][:, :, order], **SETTINGS)
    torch.testing.assert_close(reordered, match[:, :, order], rtol=0, atol=1e-4)
    assert (match[0].argmax(1) == torch.arange(5)).all()


def test_without_edges_the_best_assignment_of_the_nodes_is_found():
    rows, num_clear = torch.arange(5), 0
    for seed in range(10):
        (x, edges), (y, _) = random_graph(seed=seed), random_graph(seed=seed + 100)
        similarity = torch.nn.functional.cosine_similarity(x[0, :, None], y[0, None], dim=-1)
        totals = {order: similarity[rows, list(order)].sum().item() for order in permutations(range(5))}
        second, best = sorted(totals, key=totals.get)[-2:]
        if totals[best] - totals[second] > 0.1:
            match = match_graphs(x, y, edges, edges, edge_weight=0.0, temperature=0.01)
            assert tuple(match[0].argmax(1).tolist()) == best
            num_clear += 1
    assert num_clear >= 5


def test_edges_tell_nodes_apart_that_look_alike():
    left, right, twin = torch.eye(8)[1], torch.eye(8)[2], torch.eye(8)[0]
    x = torch.stack([left, twin, right, twin])[None]
    positions_mm = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [90.0, 0, 0], [91.0, 0, 0]]])
    edges = join_neighbours(positions_mm, 1)
    swapped = torch.tensor([0, 3, 2, 1])  # the twins, each with its neighbour
    y_edges = edges[:, swapped][:, :, swapped]
    alone = match_graphs(x, x[:, swapped], edges, y_edges, edge_weight=0.0, temperature=0.05)
    assert alone[0, 1, 1].item() == pytest.approx(0.5, abs=0.01)
    match = match_graphs(x, x[:, swapped], edges, y_edges, edge_weight=1.0, temperature=0.05)
    assert match[0, 1, 3] > 0.95 and match[0, 3, 1] > 0.95


def test_the_matching_is_balanced_and_its_gradient_is_exact():
    logits = torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for axis in (1, 2):
        torch.testing.assert_close(balance(logits).sum(axis), torch.ones(2, 4, dtype=torch.float64), atol=1e-4, rtol=0)
    assert torch.autograd.gradcheck(balance, logits)


def test_neighbours_are_the_nearest_in_mm_and_never_the_node_itself():
    positions_mm = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [3.0, 0, 0], [0, 0, 9.0]]])
    edges = join_neighbours(positions_mm, 2)[0]
    assert edges.tolist() == [
        [False, True, True, False],
        [True, False, True, False],
        [True, True, False, False],
        [True, True, False, False],
    ]


def test_more_neighbours_than_points_are_refused():
    with pytest.raises(BadInput, match="num_neighbours 4: a point of 4 has at most 3 neighbours"):
        config.check({"num_points": 4}, Config, "run.yaml")
