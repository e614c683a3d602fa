"""The monitor does not change a training, reports its collapse, and appears in the report."""

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.objectives.contrastive import vicreg
from medssl.objectives.reconstruction import spark
from medssl.render import report
from medssl.run import Run
from medssl.settings import Settings, find_modules
from medssl.training.callbacks import representation_monitor
from medssl.training.callbacks.dense_probe import DenseProbe, DenseProbeCallback
from medssl.training.callbacks.representation_monitor import RepresentationMonitor
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, ResumableSampler
from medssl.training.trainer import train
from tests.helpers.objectives import build_objective

OBJECTIVES = find_modules("medssl.objectives")


class RunSettings(Settings):
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


def make_encoder() -> ResEncoder:
    torch.manual_seed(0)
    return ResEncoder((4, 6, 8), (1, 2, 2))


def make_vicreg(**weights: float) -> vicreg.VicReg:
    return vicreg.VicReg(vicreg.Config(width=12, num_points=16, **weights), make_encoder())


def make_spark() -> spark.Spark:
    return spark.Spark(spark.Config(), make_encoder())


def train_run(
    learner, path: Path, steps: int = 4, epochs: int = 2, lr: float = 1e-2, monitored: bool = True, probe=None
) -> Run:
    run = Run.resume(path, RunSettings(run=path), "pretrain", manifest="digest-1")
    batches = [balls(n) for n in range(steps)] * epochs
    loaders = DataLoaders(DataLoader(batches, batch_size=None, sampler=ResumableSampler(steps)))
    callbacks = [RepresentationMonitor(run)] if monitored else []
    callbacks += [DenseProbeCallback(probe)] if probe else []
    train(learner, loaders, run, TrainConfig(epochs=epochs, steps_per_epoch=steps, lr=lr), callbacks)
    return run


@pytest.fixture
def unlimited_budget(monkeypatch):
    """The monitor samples every step, without a time budget."""
    monkeypatch.setattr(representation_monitor, "BUDGET", math.inf)


@pytest.mark.parametrize("make", [make_vicreg, make_spark])
def test_a_monitored_training_ends_in_the_same_weights(make, unlimited_budget, tmp_path):
    probe = DenseProbe(balls(8), balls(9), make_encoder())
    monitored = load_file(train_run(make(), tmp_path / "monitored", probe=probe).path / "weights.safetensors")
    plain = load_file(train_run(make(), tmp_path / "plain", monitored=False).path / "weights.safetensors")
    assert monitored.keys() == plain.keys() and all(torch.equal(monitored[key], plain[key]) for key in plain)


@pytest.mark.slow
def test_a_collapse_is_reported_within_the_epoch_and_only_a_collapse(unlimited_budget, tmp_path, caplog):
    collapsed = train_run(make_vicreg(variance=0.0, covariance=0.0), tmp_path / "collapsed", steps=30, epochs=1)
    assert collapsed.metadata["collapsed"] is True and "the embeddings collapse" in collapsed.metadata["alarm"]
    assert [r.message for r in caplog.records if "the embeddings collapse" in r.message]
    assert 'class="alarm"' in (collapsed.path / "report.html").read_text()
    healthy = train_run(make_vicreg(), tmp_path / "healthy", steps=30, epochs=1)
    assert "collapsed" not in healthy.metadata
    assert 'class="alarm"' not in (healthy.path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_objective_raises_the_alarm_while_it_learns(name, unlimited_budget, tmp_path):
    run = train_run(build_objective(name, make_encoder()), tmp_path / "run", steps=12, lr=1e-3)
    assert "collapsed" not in run.metadata and run.metadata["scores"]["monitor_spread"] > 0


def test_pairs_of_a_contrastive_step_need_no_extra_forward_pass(unlimited_budget, monkeypatch, tmp_path):
    monkeypatch.setattr(representation_monitor, "paired_embeddings", None)
    assert train_run(make_vicreg(), tmp_path / "run").metadata["scores"]["monitor_alignment"] >= 0


@pytest.mark.slow
def test_metrics_are_logged_and_continue_after_a_resume(unlimited_budget, tmp_path):
    whole = train_run(make_spark(), tmp_path / "whole", steps=6, epochs=3)
    names = {f"monitor_{name}" for name in ("spread", "alignment", "uniformity", "rank", "knn", "knn_chance", "share")}
    assert names <= whole.metadata["scores"].keys()
    learner = make_spark()
    step, calls = learner.step, []

    def fail_in_the_third_epoch(crops):
        calls.append(1)
        return step(crops) if len(calls) < 14 else 1 / 0

    learner.step = fail_in_the_third_epoch
    with pytest.raises(ZeroDivisionError):
        train_run(learner, tmp_path / "resumed", steps=6, epochs=3)
    assert "stopped after epoch 2" in (tmp_path / "resumed" / "report.html").read_text()
    resumed = train_run(make_spark(), tmp_path / "resumed", steps=6, epochs=3)
    for name in names - {"monitor_share"}:
        assert resumed.metadata["scores"][name] == whole.metadata["scores"][name], name


def test_samples_stay_within_the_time_budget(monkeypatch, tmp_path):
    monkeypatch.setattr(representation_monitor, "BUDGET", 0.0)
    samples = []

    def embed_pairs(*args):
        samples.append(1)
        return torch.randn(4, 3), torch.randn(4, 3)

    monkeypatch.setattr(representation_monitor, "paired_embeddings", embed_pairs)
    train_run(make_spark(), tmp_path / "run")
    assert len(samples) == 2, "the first eight rows, and no more"


def test_a_probe_scores_trained_and_untrained_features(tmp_path):
    probe = DenseProbe(balls(8), balls(9), make_encoder())
    scores = train_run(make_spark(), tmp_path / "run", probe=probe).metadata["scores"]
    assert 0 < scores["probe_dice_random"] <= 1 and 0 < scores["probe_dice"] <= 1


def test_the_report_is_complete_and_self_contained(unlimited_budget, tmp_path):
    run = train_run(make_spark(), tmp_path / "run", epochs=3)
    page = (run.path / "report.html").read_text()
    assert not re.search(r"https?:|src=\"(?!data:)|href=|@import|url\(", page)
    logged = [row.split(",") for row in (run.path / "logs" / "metrics.csv").read_text().splitlines()]
    losses = [float(row[logged[0].index("loss")]) for row in logged[1:]]
    assert f"{min(losses):.4g} to {max(losses):.4g}" in page and len(losses) == 3
    for text in (
        "Research use only",
        "<b>share</b>",
        "crops per s",
        "data:image/png;base64,",
        "cpu hours",
        "peak memory gb",
        "digest-1",
    ):
        assert text in page, text


def test_a_report_escapes_all_text(tmp_path):
    run = Run.create(tmp_path / "run", RunSettings(run=tmp_path), "finetune", cases=["<script>"])
    entry = {"key": "encoder.stem", "status": "skipped", "shape": [8, 1], "reason": "<b>not</b> in the file"}
    run.update_metadata(transfer=[entry], collapsed=True, alarm="<i>spread</i>")
    page = report.render_html(run)
    assert "<script>" not in page and "<i>spread" not in page and "&lt;b&gt;not" in page and "1 skipped" in page
