"""A training that continues from a plateau equals a training that was never interrupted."""

import pytest
import torch
from safetensors.torch import load_file

from medssl.errors import BadInput
from medssl.objectives.contrastive.global_local import Config, GlobalLocal
from medssl.training.callbacks import plateau_checkpoint
from medssl.training.config import TrainConfig
from medssl.training.optimizers import build_optimizer
from medssl.training.trainer import train
from tests.helpers.toy_training import make_batch, make_encoder, make_loaders, make_spark, open_run


def make_config(epochs: int, steps: int = 2) -> TrainConfig:
    """Two steps of warm-up, two of decay, two of annealing at the end, and the plateau in between."""
    n = epochs * steps
    return TrainConfig(
        epochs=epochs,
        steps_per_epoch=steps,
        lr=1e-2,
        schedule="infinite",
        warmup_fraction=2 / n,
        decay_fraction=2 / n,
        anneal_fraction=2 / n,
        ema_decay=0.5,
    )


def test_a_continued_training_equals_an_uninterrupted_one(tmp_path):
    train(make_spark(), make_loaders(2), open_run(tmp_path / "whole"), make_config(6))
    train(make_spark(), make_loaders(2), open_run(tmp_path / "first"), make_config(4))
    plateau, learner = plateau_checkpoint.read_plateau(open_run(tmp_path / "first")), make_spark()
    plateau_checkpoint.load_learner(learner, plateau)
    train(learner, make_loaders(2), open_run(tmp_path / "second"), make_config(3), plateau=plateau)
    ends = [load_file(tmp_path / name / plateau_checkpoint.FILE_NAME) for name in ("whole", "second")]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert any("exp_avg_sq" in name for name in ends[0])


def test_a_training_without_annealing_saves_its_end(tmp_path):
    without_annealing = make_config(3).model_copy(update={"anneal_fraction": 0.0, "ema_decay": 0.0})
    train(make_spark(), make_loaders(2), open_run(tmp_path / "run"), without_annealing)
    weights, end = (
        load_file(tmp_path / "run" / name) for name in ("weights.safetensors", plateau_checkpoint.FILE_NAME)
    )
    assert all(torch.equal(end[name], value) for name, value in weights.items())


def make_contrastive() -> GlobalLocal:
    torch.manual_seed(0)
    return GlobalLocal(Config(queue_size=8, num_regions=2, width=4), make_encoder())


def test_ring_buffers_are_emptied():
    learner, other = make_contrastive(), make_contrastive()
    optimizer = build_optimizer(learner, TrainConfig())
    learner.step(make_batch(0)).loss.backward()
    optimizer.step()
    assert learner.queue.valid_rows()["volume"].numel()
    plateau_checkpoint.load_learner(other, plateau_checkpoint.plateau_state(learner, optimizer))
    assert other.queue.valid_rows()["volume"].numel() == 0
    assert torch.equal(other.encoder.stem.conv.weight, learner.encoder.stem.conv.weight)


def test_optimizer_state_is_restored_by_name_for_any_groups():
    learner, other = make_spark(), make_spark()
    optimizer = build_optimizer(learner, TrainConfig())
    learner.step(make_batch(0)).loss.backward()
    optimizer.step()
    later = build_optimizer(other, TrainConfig(layer_decay=0.5))
    plateau_checkpoint.load_optimizer(later, other, plateau_checkpoint.plateau_state(learner, optimizer))
    for (name, a), (_, b) in zip(learner.named_parameters(), other.named_parameters(), strict=True):
        assert optimizer.state[a].keys() == later.state[b].keys(), name
        assert all(torch.equal(v, later.state[b][k]) for k, v in optimizer.state[a].items())


def test_a_run_without_a_plateau_and_a_plateau_of_another_network_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"has no plateau; .*train\.schedule=infinite"):
        plateau_checkpoint.read_plateau(open_run(tmp_path / "run"))
    with pytest.raises(BadInput, match=r"belongs to another network, which differs in .*weight"):
        plateau_checkpoint.load_learner(
            make_spark(),
            plateau_checkpoint.plateau_state(make_contrastive(), build_optimizer(make_contrastive(), TrainConfig())),
        )
