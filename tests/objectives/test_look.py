"""LOOK classifies cells by their neighbours, so that a class may keep several modes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives.contrastive.look import UNKNOWN, Config, Look, classify_by_neighbours


def brute_force(queries, values, keys, key_values, own, count, temperature):
    losses = []
    for n, query in enumerate(queries):
        others = [m for m in range(len(keys)) if m != int(own[n]) and key_values[m] != UNKNOWN]
        others.sort(key=lambda m: -float(query @ keys[m]))
        same = [m for m in others if key_values[m] == values[n]]
        if not same:
            losses.append(torch.tensor(0.0))
            continue
        voters = list(dict.fromkeys([*others[:count], same[0]]))
        votes = {m: torch.exp(query @ keys[m] / temperature) for m in voters}
        losses.append(-torch.log(sum(v for m, v in votes.items() if m in same) / sum(votes.values())))
    return torch.stack(losses)


def test_the_loss_is_that_of_a_loop_over_the_neighbours():
    g = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(40, 5, generator=g), dim=-1)
    values = torch.randint(-1, 3, (40,), generator=g)
    values[0] = 7  # the only one of its class
    own = torch.arange(10, 30)[:, None]
    own[0] = 0
    queries, own_values = keys[own[:, 0]], values[own[:, 0]]
    loss, votes = classify_by_neighbours(queries, own_values, keys, values, own, 4, 0.2)
    known = own_values != UNKNOWN
    expected = brute_force(queries, own_values, keys, values, own, 4, 0.2)
    torch.testing.assert_close(loss[known], expected[known])
    assert loss[0] == 0 and votes[0] == 0
    torch.testing.assert_close(votes[known][1:], (-expected[known][1:]).exp())


def draw_modes():
    """Two classes with two modes each, at alternate corners of a square."""
    g = torch.Generator().manual_seed(0)
    mode = torch.arange(4).repeat_interleave(25)
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    return corners[mode] + 0.1 * torch.randn(100, 2, generator=g), mode, mode % 2


def distance_of_modes(points, mode):
    """Distance between the two modes of the first class, relative to the spread within them."""
    first, second = points[mode == 0], points[mode == 2]
    within = torch.cat([first - first.mean(0), second - second.mean(0)]).square().sum(1).mean().sqrt()
    return float((first.mean(0) - second.mean(0)).norm() / within)


@pytest.mark.parametrize(("loss_name", "keeps_modes"), [("look", True), ("cross-entropy", False)])
def test_a_class_keeps_two_modes_that_cross_entropy_merges(loss_name, keeps_modes):
    torch.manual_seed(0)
    x, mode, value = draw_modes()
    network = nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Linear(32, 2))
    answer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam([*network.parameters(), *answer.parameters()], 1e-2)
    own = torch.arange(len(x))[:, None]
    for _ in range(300):
        z = F.normalize(network(x), dim=-1)
        look = classify_by_neighbours(z, value, z, value, own, 10, 0.1)[0].mean()
        loss = look if loss_name == "look" else F.cross_entropy(10 * answer(z), value)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = F.normalize(network(x), dim=-1).detach()
    _, votes = classify_by_neighbours(z, value, z, value, own, 10, 0.1)
    assert votes.mean() > 0.95  # both have learnt the classes
    assert (distance_of_modes(z, mode) > 5) == keeps_modes


def make_crops(label=None):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 1, 16, 16, 16, generator=g)
    eye = torch.eye(4).expand(2, 1, 4, 4)
    return Crops(x, torch.zeros(2, 1, 3, dtype=torch.long), torch.full((2, 3), 16), eye, torch.arange(2), label)


def make_look(**options):
    torch.manual_seed(0)
    return Look(Config(num_cells=20, **options), ResEncoder((4, 8), (1, 4)))


def test_a_cell_has_the_most_frequent_class_of_its_known_voxels():
    label = torch.full((2, 1, 16, 16, 16), -1)
    label[0, 0, :4, :4, :4] = 2
    label[0, 0, :4, :4, :1] = 1
    label[0, 0, 4:8, :4, 0] = 1
    values = make_look(num_classes=3).find_cell_classes(make_crops(label), torch.Size([4, 4, 4]))
    assert values.shape == (2, 64)
    assert values[0, 0] == 2 and values[0, 16] == 1 and (values[0, 17:] == UNKNOWN).all()


def test_a_batch_without_known_labels_has_no_loss():
    step = make_look(num_classes=3).step(make_crops(torch.full((2, 1, 16, 16, 16), -1)))
    step.loss.backward()
    assert step.loss == 0


def test_a_cell_is_no_neighbour_of_itself():
    """With its own key, each cell would be right from the start, and nothing would be learnt."""
    step = make_look(memory=0, num_neighbours=1, temperature=0.01).step(make_crops())
    assert step.loss > 0.1 and step.logs["vote"] < 0.9


def test_the_memory_holds_the_cells_of_earlier_steps():
    objective = make_look(memory=64)
    for _ in range(2):
        objective.step(make_crops())
    assert int(objective.memory.pushed) == 80
    rows = objective.memory.valid_rows()
    assert len(rows["embedding"]) == 64 and (rows["value"] >= 0).all()
    torch.testing.assert_close(rows["embedding"].norm(dim=-1), torch.ones(64))


def test_each_cell_is_drawn_once_so_that_none_finds_its_copy():
    objective = make_look()
    objective.config = objective.config.model_copy(update={"num_cells": 1000})
    objective.step(make_crops())
    assert int(objective.memory.pushed) == 2 * 64
    rows = objective.memory.valid_rows()["embedding"]
    assert len(rows.unique(dim=0)) == len(rows)


def test_settings_out_of_range_are_refused():
    for key, value in (("temperature", 0), ("num_neighbours", 0), ("num_classes", 1)):
        with pytest.raises(BadInput, match=key):
            config.check({"name": "look", key: value}, Config, "test")


def test_a_rare_class_counts_as_much_as_background():
    label = torch.zeros(2, 1, 16, 16, 16, dtype=torch.long)
    label[:, :, :4, :4, :8] = 1
    objective = make_look(num_classes=2, num_neighbours=4)
    loss = objective.step(make_crops(label)).loss
    rows = objective.memory.valid_rows()
    own = torch.arange(len(rows["value"]))[:, None]
    losses, _ = classify_by_neighbours(rows["embedding"], rows["value"], rows["embedding"], rows["value"], own, 4, 0.1)
    expected = torch.stack([losses[rows["value"] == value].mean() for value in (0, 1)]).mean()
    torch.testing.assert_close(loss, expected)
    assert abs(loss - losses.mean()) > 0.01
