"""A training that is watched trains as if nobody looked, rings when it collapses, and reports itself."""

import math
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from medssl import config, objectives
from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.objectives import spark, vicreg
from medssl.render import report
from medssl.run import Run
from medssl.settings import Settings
from medssl.training import trainer as fitting
from medssl.training.callbacks import representation_monitor as observe
from medssl.training.callbacks.dense_probe import Probe
from medssl.training.config import Plan
from medssl.training.trainer import fit


class Plain(Settings):
    run: Path


def balls(seed: int, volumes: int = 4, side: int = 16) -> Crops:
    """Crops of as many scans, each a bright ball of class 1, at several heights of a body four crops high."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.stack(torch.meshgrid(*[torch.arange(float(side))] * 3, indexing="ij"))
    centre = side * (0.3 + 0.4 * torch.rand(volumes, 3, 1, 1, 1, generator=g))
    label = ((axes - centre).square().sum(1).sqrt() < side / 4).long()
    x = 0.25 + 0.3 * label + 0.25 * torch.rand(volumes, side, side, side, generator=g)
    corner = torch.zeros(volumes, 1, 3, dtype=torch.long)
    corner[:, 0, 2] = side * (torch.arange(volumes) % 4)
    affine = torch.eye(4).repeat(volumes, 1, 1, 1)
    affine[:, 0, :3, 3] = corner[:, 0].float()
    size = torch.tensor([[side, side, 4 * side]]).expand(volumes, 3)
    return Crops(x[:, None, None], corner, size, affine, torch.arange(volumes), label[:, None])


def net() -> ResEncoder:
    torch.manual_seed(0)
    return ResEncoder((4, 6, 8), (1, 2, 2))


def contrasted(**weights: float) -> vicreg.VicReg:
    return vicreg.VicReg(vicreg.Config(width=12, points=16, **weights), net())


def rebuilding() -> spark.Spark:
    return spark.Spark(spark.Config(), net())


def trained(learner, path: Path, steps: int = 4, epochs: int = 2, lr: float = 1e-2, **how) -> Run:
    run = Run.resume(path, Plain(run=path), "pretrain", manifest="digest-1")
    loader = DataLoader([balls(n) for n in range(steps)], batch_size=None)
    fit(learner, Plan(epochs=epochs, steps=steps, lr=lr), run, loader, **how)
    return run


@pytest.fixture
def always(monkeypatch):
    """Monitors that look at every step, whatever the clock says."""
    monkeypatch.setattr(observe, "BUDGET", math.inf)


@pytest.mark.parametrize("make", [contrasted, rebuilding])
def test_a_training_that_is_watched_ends_in_the_same_weights(make, always, monkeypatch, tmp_path):
    probe = Probe(balls(8), balls(9), net())
    watched = load_file(trained(make(), tmp_path / "watched", probe=probe).path / "weights.safetensors")
    monkeypatch.setattr(fitting, "Monitors", lambda run, known: Callback())
    alone = load_file(trained(make(), tmp_path / "alone").path / "weights.safetensors")
    assert watched.keys() == alone.keys() and all(torch.equal(watched[key], alone[key]) for key in alone)


@pytest.mark.slow
def test_a_collapse_is_told_within_the_epoch_and_health_is_not(always, tmp_path, caplog):
    fallen = trained(contrasted(variance=0.0, covariance=0.0), tmp_path / "fallen", steps=30, epochs=1)
    assert fallen.card["collapsed"] is True and "the embeddings collapse" in fallen.card["alarm"]
    assert [r.message for r in caplog.records if "the embeddings collapse" in r.message]
    assert 'class="alarm"' in (fallen.path / "report.html").read_text()
    well = trained(contrasted(), tmp_path / "well", steps=30, epochs=1)
    assert "collapsed" not in well.card
    assert 'class="alarm"' not in (well.path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(m.name for m in pkgutil.iter_modules(objectives.__path__) if m.name != "base"))
def test_no_objective_raises_the_alarm_while_it_learns(name, always, tmp_path):
    chosen = import_module(f"medssl.objectives.{name}").Config()
    run = trained(config.class_for_config(chosen)(chosen, net()), tmp_path / "run", steps=12, lr=1e-3)
    assert "collapsed" not in run.card and run.card["scores"]["monitor_spread"] > 0


def test_what_the_step_compared_is_looked_at_without_a_forward(always, monkeypatch, tmp_path):
    monkeypatch.setattr(observe, "embedded", None)
    assert trained(contrasted(), tmp_path / "run").card["scores"]["monitor_alignment"] >= 0


@pytest.mark.slow
def test_monitors_are_logged_and_go_on_after_a_stop(always, tmp_path):
    whole = trained(rebuilding(), tmp_path / "whole", epochs=3)
    wanted = {f"monitor_{name}" for name in ("spread", "alignment", "uniformity", "rank", "knn", "knn_chance", "share")}
    assert wanted <= whole.card["scores"].keys()
    learner = rebuilding()
    step, seen = learner.step, []

    def fails(crops):
        seen.append(1)
        return step(crops) if len(seen) < 10 else 1 / 0

    learner.step = fails
    with pytest.raises(ZeroDivisionError):
        trained(learner, tmp_path / "torn", epochs=3)
    assert "stopped after epoch 2" in (tmp_path / "torn" / "report.html").read_text()
    torn = trained(rebuilding(), tmp_path / "torn", epochs=3)
    for name in wanted - {"monitor_share"}:
        assert torn.card["scores"][name] == whole.card["scores"][name], name


def test_looking_waits_until_it_can_be_afforded(monkeypatch, tmp_path):
    monkeypatch.setattr(observe, "BUDGET", 0.0)
    looks = []
    monkeypatch.setattr(observe, "embedded", lambda *given: looks.append(1) or (torch.randn(4, 3), torch.randn(4, 3)))
    trained(rebuilding(), tmp_path / "run")
    assert len(looks) == 2, "eight rows to begin with, and no more"


def test_a_probe_scores_trained_and_untrained_features(tmp_path):
    scores = trained(rebuilding(), tmp_path / "run", probe=Probe(balls(8), balls(9), net())).card["scores"]
    assert 0 < scores["probe_dice_random"] <= 1 and 0 < scores["probe_dice"] <= 1


def test_the_report_holds_all_and_refers_to_nothing_outside(always, tmp_path):
    run = trained(rebuilding(), tmp_path / "run", epochs=3)
    page = (run.path / "report.html").read_text()
    assert not re.search(r"https?:|src=\"(?!data:)|href=|@import|url\(", page)
    logged = [row.split(",") for row in (run.path / "logs" / "metrics.csv").read_text().splitlines()]
    losses = [float(row[logged[0].index("loss")]) for row in logged[1:]]
    assert f"{min(losses):.4g} to {max(losses):.4g}" in page and len(losses) == 3
    for said in (
        "Research use only",
        "<b>share</b>",
        "crops per s",
        "data:image/png;base64,",
        "cpu hours",
        "peak memory gb",
        "digest-1",
    ):
        assert said in page, said


def test_a_report_tells_what_a_name_says_and_runs_none_of_it(tmp_path):
    run = Run.create(tmp_path / "run", Plain(run=tmp_path), "finetune", cases=["<script>"])
    entry = {"key": "encoder.stem", "fate": "skipped", "shape": [8, 1], "reason": "<b>not</b> in the file"}
    run.note(transfer=[entry], collapsed=True, alarm="<i>spread</i>")
    page = report.page(run)
    assert "<script>" not in page and "<i>spread" not in page and "&lt;b&gt;not" in page and "1 skipped" in page
