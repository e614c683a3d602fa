"""Metrics distinguish a network that learns from one that collapses, and measuring changes nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import Encoder, ResEncoder
from medssl.objectives.contrastive import vicreg
from medssl.objectives.reconstruction import mae
from medssl.settings import find_modules
from medssl.training.probes.linear import dense_probe_dice
from medssl.training.representation_metrics import (
    CollapseAlarm,
    EmbeddingBuffer,
    alignment,
    knn_accuracy,
    paired_embeddings,
    rank_me,
    spread,
    uniformity,
)
from tests.helpers.objectives import build_objective


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8))
def test_rank_counts_the_dimensions_that_are_used(used):
    z = torch.linalg.qr(normal(40, 8)).Q[:, :used] @ torch.linalg.qr(normal(16, 8)).Q[:, :used].mT
    assert rank_me(z) == pytest.approx(used, rel=1e-3)


def test_a_whole_sphere_is_spread_and_a_point_is_not():
    assert spread(normal(2000, 32)) == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(20, 8)) == pytest.approx(0, abs=1e-9)
    assert uniformity(torch.ones(20, 8)) == pytest.approx(0, abs=1e-9)
    assert uniformity(normal(500, 64)) == pytest.approx(-4, abs=0.2)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 10**6))
def test_alignment_is_the_squared_distance_whatever_the_length(scale, seed):
    a, b = normal(9, 4, seed), normal(9, 4, seed + 1)
    cosine = nn.functional.cosine_similarity(a, b)
    assert alignment(a * scale, b) == pytest.approx(float((2 - 2 * cosine).mean()), rel=1e-4)
    assert alignment(a, a * scale) == pytest.approx(0, abs=1e-6)


def test_neighbours_of_the_same_volume_do_not_vote():
    z = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    label, single = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    assert knn_accuracy(z, label, single, k=1) == 1
    assert knn_accuracy(z, label, torch.tensor([0, 0, 1, 1]), k=1) == 0
    assert math.isnan(knn_accuracy(z, label, torch.zeros(4, dtype=torch.long)))


def test_labels_unrelated_to_the_embeddings_are_predicted_by_chance():
    label = torch.arange(300) % 3
    assert knn_accuracy(normal(300, 8), label, torch.arange(300)) == pytest.approx(1 / 3, abs=0.12)


def blobs(b=4, size=24, seed=0):
    """Crops of as many scans, each a bright ball of class 1 in dark noise."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.arange(float(size))] * 3, indexing="ij")
    centre = size * (0.3 + 0.4 * torch.rand(b, 3, 1, 1, 1, generator=g))
    distance = (torch.stack(axes) - centre).square().sum(1).sqrt()
    label = (distance < size / 5).long()
    x = (0.25 + 0.3 * label + 0.25 * torch.rand(b, size, size, size, generator=g))[:, None, None]
    return Crops(
        x=x, corner=torch.zeros(b, 1, 3, dtype=torch.long), size=torch.full((b, 3), size),
        affine=torch.eye(4).expand(b, 1, 4, 4), volume=torch.arange(b) + b * seed, label=label[:, None],
    )  # fmt: skip


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2))


def train_with_alarm(objective, steps, lr=1e-2):
    """The messages of the alarm after each step of a training on new crops."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr)
    buffer, alarm, messages = EmbeddingBuffer(24, objective.config.width), CollapseAlarm(), []
    for step in range(steps):
        batch = blobs(3, 16, seed=step)
        optimizer.zero_grad()
        result = objective.step(batch)
        result.loss.backward()
        optimizer.step()
        a, b = result.positive_pairs
        buffer.push(a=a, b=b, volume=batch.volume, part=batch.volume)
        messages.append(alarm.check(buffer.measure()))
    return messages


@pytest.mark.slow
def test_a_collapsed_run_raises_the_alarm_and_a_healthy_one_does_not():
    def run(**weights):
        return train_with_alarm(vicreg.VicReg(vicreg.Config(width=16, num_points=32, **weights), encoder()), 50)

    assert not any(run())
    messages = [message for message in run(variance=0.0, covariance=0.0) if message]
    assert messages and "collapse" in messages[0]


# The embeddings of an untrained VICReg tell positions apart, with or without an encoder; its collapse is tested above.
OBJECTIVES = find_modules("medssl.objectives").keys() - {"vicreg"}


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_alarm_rings_for_every_objective_whose_encoder_goes_blank(name):
    objective = build_objective(name, encoder())
    alarm, buffer, messages = CollapseAlarm(), None, []
    for seed in range(8):
        if seed == 5:
            for weight in objective.encoder.parameters():
                torch.nn.init.zeros_(weight)
        batch = blobs(4, 16, seed)
        a, b = objective.step(batch).positive_pairs or paired_embeddings(objective, batch, seed)
        buffer = buffer or EmbeddingBuffer(64, a.shape[1])
        buffer.push(a=a, b=b, volume=batch.volume.repeat(len(a) // 4), part=torch.zeros(len(a), dtype=torch.long))
        messages.append(alarm.check(buffer.measure_recent()))
    assert not any(messages[:5]) and "collapse" in messages[-1]


def test_a_buffer_of_one_volume_is_not_measured():
    buffer, alarm = EmbeddingBuffer(9, 2), CollapseAlarm()
    buffer.push(a=torch.ones(7, 2), b=torch.ones(7, 2), **cut_from(torch.arange(7)))
    assert buffer.measure() == {} and alarm.check({}) is None
    buffer.push(a=torch.ones(9, 2), b=torch.ones(9, 2), **cut_from(torch.zeros(9, dtype=torch.long)))
    assert buffer.measure() == {}
    buffer.push(a=normal(4, 2), b=normal(4, 2), **cut_from(torch.arange(4)))
    assert {"rank", "knn", "knn_chance"} <= buffer.measure().keys()


def test_the_rank_is_of_the_last_64_rows_in_a_buffer_of_any_length():
    buffer = EmbeddingBuffer(256, 128)
    buffer.push(a=normal(63, 128), b=normal(63, 128), **cut_from(torch.arange(63)))
    assert "rank" not in buffer.measure()
    buffer.push(a=normal(5, 128), b=normal(5, 128), **cut_from(torch.arange(5)))
    assert buffer.measure()["rank"] == pytest.approx(rank_me(buffer.a[4:68]))
    assert buffer.measure()["rank"] > 40
    one_direction = normal(64, 1) @ normal(1, 128)
    buffer.push(a=one_direction, b=one_direction, **cut_from(torch.arange(64)))
    assert buffer.measure()["rank"] == pytest.approx(1, abs=0.01)


def cut_from(volume):
    return {"volume": volume, "part": volume % 2}


def test_neighbours_predict_the_metadata_of_a_volume():
    buffer = EmbeddingBuffer(16, 2)
    volume = torch.arange(8).repeat(2)
    site = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])[volume]
    embeddings = torch.stack([1.0 * (site == 0), 1.0 * (site == 1)], 1) + 0.01 * normal(16, 2)
    buffer.push(a=embeddings, b=embeddings, volume=volume, part=torch.zeros(16, dtype=torch.long))
    words = {"site": ["a", "b"] * 4, "sex": ["F", "M", "M", "F"] * 2, "modality": ["MR"] * 8}
    metrics = buffer.measure(words)
    assert metrics["knn_site"] == 1 and metrics["knn_site_chance"] == 0.5
    assert metrics["knn_sex"] < 0.9 and "knn_modality" not in metrics and "knn" not in metrics
    partial = buffer.measure({"site": ["a", "b", "", "", "", "", "", "b"]})
    assert partial["knn_site_chance"] == pytest.approx(2 / 3)


def test_older_rows_do_not_hide_a_collapse_of_the_latest():
    buffer, alarm = EmbeddingBuffer(64, 4), CollapseAlarm()
    buffer.push(a=normal(40, 4), b=normal(40, 4), **cut_from(torch.arange(40)))
    assert alarm.check(buffer.measure()) is None
    buffer.push(a=torch.ones(8, 4), b=torch.ones(8, 4), **cut_from(torch.arange(8)))
    assert "spread fell" in alarm.check(buffer.measure())


def test_pairs_without_a_contrastive_objective_differ_in_intensity():
    objective = mae.Mae(mae.Config(), encoder())
    a, b = paired_embeddings(objective, blobs())
    again, other = paired_embeddings(objective, blobs(), seed=1)
    assert torch.equal(a, again) and a.shape == b.shape == (4, 12)
    assert 0 < alignment(a, b) != alignment(again, other)


def test_measuring_changes_no_gradient_no_mode_and_no_random_state():
    objective = mae.Mae(mae.Config(), encoder())
    objective.decoder.ups.eval()
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in objective.state_dict().items()}
    a, _ = paired_embeddings(objective, blobs())
    dense_probe_dice(objective.encoder, blobs(), blobs(seed=1))
    assert not a.requires_grad and all(p.grad is None for p in objective.parameters())
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert objective.training and objective.encoder.training and not objective.decoder.ups.training
    assert all(p.requires_grad for p in objective.parameters())


class InformedEncoder(Encoder):
    """Its features separate the classes, or are blank."""

    in_channels, channels, strides = 1, (1, 2), ((1, 1, 1), (2, 2, 2))

    def __init__(self, blank):
        super().__init__()
        self.blank = blank

    def forward(self, x, keep=None):
        smoothed = torch.zeros_like(x) if self.blank else nn.functional.avg_pool3d(x, 3, stride=1, padding=1)
        return [smoothed, nn.functional.avg_pool3d(torch.cat([smoothed, smoothed.square()], 1), 2)]


def test_the_probe_scores_high_on_informative_and_low_on_blank_features():
    assert dense_probe_dice(InformedEncoder(False), blobs(2), blobs(3, seed=1)) > 0.9
    assert dense_probe_dice(InformedEncoder(True), blobs(2), blobs(3, seed=1)) < 0.3


def test_the_probe_refuses_crops_without_labels():
    with pytest.raises(BadInput, match="labelled"):
        crops = blobs()
        dense_probe_dice(
            InformedEncoder(False), Crops(crops.x, crops.corner, crops.size, crops.affine, crops.volume), crops
        )
