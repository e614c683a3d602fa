"""A training that goes on from a plateau is the training that never stopped."""

import pytest
import torch
from safetensors.torch import load_file

from medssl.errors import BadInput
from medssl.objectives.global_local import Config, GlobalLocal
from medssl.training.callbacks import plateau_checkpoint as plateau
from medssl.training.config import Plan
from medssl.training.optimizers import optimizer
from medssl.training.trainer import fit
from tests.helpers.toy_training import batch, encoder, loader, run, spark


def plan(epochs: int, steps: int = 2) -> Plan:
    """Two steps up, two down, the last two to nothing; the plateau is as long as is left."""
    n = epochs * steps
    return Plan(
        epochs=epochs, steps=steps, lr=1e-2, schedule="infinite", warmup=2 / n, cooldown=2 / n, anneal=2 / n, ema=0.5
    )


def test_a_continued_training_is_the_one_that_never_stopped(tmp_path):
    fit(spark(), plan(6), run(tmp_path / "whole"), loader(2))
    fit(spark(), plan(4), run(tmp_path / "first"), loader(2))
    before, learner = plateau.read(run(tmp_path / "first")), spark()
    plateau.restore(learner, before)
    fit(learner, plan(3), run(tmp_path / "second"), loader(2), before=before)
    ends = [load_file(tmp_path / name / plateau.NAME) for name in ("whole", "second")]
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert any("exp_avg_sq" in name for name in ends[0])


def test_a_training_that_never_anneals_leaves_its_end(tmp_path):
    endless = plan(3).model_copy(update={"anneal": 0.0, "ema": 0.0})
    fit(spark(), endless, run(tmp_path / "run"), loader(2))
    kept, end = (load_file(tmp_path / "run" / name) for name in ("weights.safetensors", plateau.NAME))
    assert all(torch.equal(end[name], value) for name, value in kept.items())


def contrast() -> GlobalLocal:
    torch.manual_seed(0)
    return GlobalLocal(Config(queue=8, regions=2, width=4), encoder())


def test_what_was_remembered_of_single_volumes_is_forgotten():
    learner, other = contrast(), contrast()
    rule = optimizer(learner, Plan())
    learner.step(batch(0)).loss.backward()
    rule.step()
    assert learner.queue.filled()["volume"].numel()
    plateau.restore(other, plateau.state(learner, rule))
    assert other.queue.filled()["volume"].numel() == 0
    assert torch.equal(other.encoder.stem.conv.weight, learner.encoder.stem.conv.weight)


def test_an_optimiser_remembers_by_name_whatever_its_groups():
    learner, other = spark(), spark()
    rule = optimizer(learner, Plan())
    learner.step(batch(0)).loss.backward()
    rule.step()
    later = optimizer(other, Plan(layer_decay=0.5))
    plateau.recall(later, other, plateau.state(learner, rule))
    for (name, a), (_, b) in zip(learner.named_parameters(), other.named_parameters(), strict=True):
        assert rule.state[a].keys() == later.state[b].keys(), name
        assert all(torch.equal(v, later.state[b][k]) for k, v in rule.state[a].items())


def test_a_run_without_a_plateau_and_a_plateau_of_another_network_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"left no plateau; .*plan\.schedule=infinite"):
        plateau.read(run(tmp_path / "run"))
    with pytest.raises(BadInput, match="of another network: densify"):
        plateau.restore(spark(), plateau.state(contrast(), optimizer(contrast(), Plan())))
