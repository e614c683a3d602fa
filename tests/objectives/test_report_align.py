"""Crops are drawn to the reports of their scans; shuffled reports teach nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssl import config
from medssl.data.crops import Crops
from medssl.data.reports.embeddings import ReportEmbeddings
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives.contrastive.report_align import Config, ReportAlign, align_pairs

WIDTH = 6


def test_the_loss_is_that_of_a_loop_over_all_pairs():
    g = torch.Generator().manual_seed(0)
    logits, same = torch.randn(3, 5, generator=g), torch.eye(3, 5, dtype=torch.bool)
    counted = torch.rand(3, 5, generator=g) < 0.7
    expected = [
        sum(-F.logsigmoid(logits[a, b] if same[a, b] else -logits[a, b]) for b in range(5) if counted[a, b])
        for a in range(3)
    ]
    torch.testing.assert_close(align_pairs(logits, same, counted), torch.tensor([float(value) for value in expected]))


def make_objective(reports, **options):
    torch.manual_seed(0)
    objective = ReportAlign(Config(width=WIDTH, strength=0, **options), ResEncoder((4, 8), (1, 2)))
    objective.set_reports([F.normalize(torch.tensor(np.array(rows), dtype=torch.float32), dim=-1) for rows in reports])
    return objective


def make_crops(volumes, bright=()):
    g = torch.Generator().manual_seed(sum(volumes))
    x = 0.3 + 0.05 * torch.rand(len(volumes), 1, 1, 8, 8, 8, generator=g)
    for row, volume in enumerate(volumes):
        x[row, :, :, 2:6, 2:6, 2:6] += 0.4 * (volume in bright)
    eye = torch.eye(4).expand(len(volumes), 1, 4, 4)
    corner, size = torch.zeros(len(volumes), 1, 3, dtype=torch.long), torch.full((len(volumes), 3), 8)
    return Crops(x, corner, size, eye, torch.tensor(volumes))


def embed(number):
    return np.eye(WIDTH)[number]


def test_equal_reports_of_other_scans_are_no_negatives():
    sick, fine = [embed(0)], [embed(1)]
    objective = make_objective([sick, fine, fine], keep=1).eval()
    with_twin, without = (objective.step(make_crops(volumes)).loss for volumes in ([0, 1, 2], [0, 1]))
    image = F.normalize(objective.head(objective.encoder(make_crops([0, 1, 2]).x[:, 0])[-1]), dim=-1)
    logits = 10 * image @ torch.tensor(np.array([embed(0), embed(1), embed(1)]), dtype=torch.float32).T
    counted = torch.tensor([[True, True, True], [True, True, False], [True, False, True]])
    expected = align_pairs(logits, torch.eye(3, dtype=torch.bool), counted).mean()
    torch.testing.assert_close(with_twin, expected)
    assert without != with_twin


def test_a_scan_without_a_report_changes_nothing():
    reports = [[embed(0)], [embed(1)], np.zeros((0, WIDTH))]
    objective = make_objective(reports, keep=1).eval()
    losses = [objective.step(make_crops(volumes)).loss for volumes in ([0, 1, 2], [0, 1])]
    assert losses[0].isfinite()
    crops = make_crops([0, 1, 2])
    pair = Crops(crops.x[:2], crops.corner[:2], crops.size[:2], crops.affine[:2], crops.volume[:2])
    torch.testing.assert_close(losses[0], objective.step(pair).loss)
    alone = objective.step(make_crops([2, 2]))
    alone.loss.backward()
    assert alone.loss == 0


def test_a_report_is_the_mean_of_some_of_its_sentences_and_never_of_none():
    objective = make_objective([[embed(0), embed(1), embed(2)]], keep=0.01)
    rows = torch.cat([objective._draw_reports([0], [torch.Generator().manual_seed(seed)])[0] for seed in range(20)])
    assert rows.norm(dim=1).allclose(torch.ones(20)) and len(rows.unique(dim=0)) == 3
    whole = objective._draw_reports([0], [torch.Generator()])[1]
    torch.testing.assert_close(whole, F.normalize(torch.tensor([[1.0, 1, 1, 0, 0, 0]]), dim=1))


def train(pairs, bright):
    """Trains on 8 volumes with the report of each, and returns the loss on others with their true reports."""
    objective = make_objective([[embed(pairs[volume])] for volume in range(8)], keep=1)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)
    for step in range(60):
        crops = make_crops([(step + n) % 8 for n in (0, 1, 2, 5)], bright)
        optimizer.zero_grad()
        objective.step(crops).loss.backward()
        optimizer.step()
    objective.set_reports([F.normalize(torch.tensor(np.array([embed(n % 2)]), dtype=torch.float32)) for n in range(20)])
    crops = make_crops([12, 13, 14, 15], bright=(12, 14))
    return objective.eval().step(crops)


def test_reports_are_told_apart_and_shuffled_ones_give_the_loss_of_chance():
    true = {volume: volume % 2 for volume in range(8)}
    shuffled = {volume: volume // 2 % 2 for volume in range(8)}  # half of the bright scans get either report
    bright = (0, 2, 4, 6)
    learnt, chance = train(true, bright), train(shuffled, bright)
    assert learnt.loss < 0.2 and learnt.logs["match"] == 1
    assert chance.loss > 1


@pytest.mark.parametrize(
    ("options", "cases", "message"),
    [
        ({"reports": None}, ["a", "b"], r"give objective.reports=FILE, which `medssl encode-reports` writes"),
        ({}, ["a", "b"], r"its text encoder has 8 dimensions; give objective.width to it"),
        ({"width": 8}, ["a", "c"], r"has the reports of 1 of the 2 cases; at least 2 are needed"),
        ({"reports": "none.npz"}, ["a", "b"], r"none.npz: no such file"),
    ],
)
def test_missing_and_foreign_reports_are_refused(tmp_path, options, cases, message):
    rows = np.eye(8, dtype=np.float32)
    ReportEmbeddings({"a": rows[:1], "b": rows[1:3]}, "hash").write(tmp_path / "reports.npz")
    settings = config.check({"name": "report_align", "reports": tmp_path / "reports.npz", **options}, Config, "test")
    with pytest.raises(BadInput, match=message):
        ReportAlign(settings, ResEncoder((4, 8), (1, 2))).read_cases(cases)


def test_settings_out_of_range_are_refused():
    for key, value in (("keep", 0), ("width", 0), ("max_similarity", 2)):
        with pytest.raises(BadInput, match=key):
            config.check({"name": "report_align", key: value}, Config, "test")
