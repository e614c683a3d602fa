"""Every task keeps one contract, by whatever route, and tasks with planted faults are caught by it."""

import pkgutil
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from medssl import config, tasks
from medssl.nn.encoder import ResEncoder
from medssl.nn.interop import weight_transfer as transfer
from medssl.nn.step import Step
from medssl.tasks.detect import Config as DetectConfig
from medssl.tasks.detect import Detect
from tests.helpers.blobs import balls, crops

NAMES = sorted(m.name for m in pkgutil.iter_modules(tasks.__path__) if m.name != "base")
SHAPE = (16, 16, 16)
WAYS = [{"name": name} for name in NAMES] + [{"name": "detect", "route": route} for route in ("box", "both")]


def batch(*spots):
    return crops(*(balls(SHAPE, some) for some in spots))


FULL = ([((5, 5, 6), 2), ((11, 11, 11), 3)], [((9, 6, 9), 3)])


def task(way):
    torch.manual_seed(0)
    settings = import_module(f"medssl.tasks.{way['name']}").Config.model_validate(way)
    return config.class_for_config(settings)(settings, ResEncoder((4, 6, 8), (1, 2, 2)), 2, SHAPE)


def check_loss_and_logs(one):
    step = one.step(batch(*FULL))
    assert step.loss.shape == () and step.loss.requires_grad and step.loss.isfinite(), "the loss is no finite scalar"
    assert all(v.shape == () and not v.requires_grad for v in step.logs.values()), "a log is not detached"


def check_gradients(one):
    one.step(batch(*FULL)).loss.backward()
    # Not the decoder: a route that needs no fine maps leaves its finest level alone.
    parts = [(part, m) for part, m in one.transferable().items() if part != "decoder"]
    parts = [(f"{part}.{n}", p) for part, m in parts for n, p in m.named_parameters()]
    still = [name for name, p in parts if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still, f"weights that learn nothing: {still}"


def check_crops_without_lesions(one):
    step = one.step(batch([], []))
    step.loss.backward()
    assert step.loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in one.parameters())


def check_unknown_voxels(one):
    crop = batch(*FULL)
    label = crop.labels().clone()
    label[..., 8:] = -1
    assert one.step(replace(crop, label=label)).loss.isfinite(), "an unknown voxel breaks the loss"
    everywhere = one.step(replace(crop, label=torch.full_like(label, -1))).loss
    assert everywhere.isfinite(), "a batch without knowledge breaks the loss"


def check_learning(one):
    crop = batch(*FULL)
    optimizer, first = torch.optim.AdamW(one.parameters(), 5e-3), None
    for _ in range(12):
        optimizer.zero_grad()
        loss = one.step(crop).loss
        loss.backward()
        optimizer.step()
        first = first or loss.item()
    assert one.step(crop).loss.item() < 0.9 * first, "the loss does not fall on one batch"


def check_validation(one):
    whole = batch(FULL[0])
    scores = one.eval().validate(whole)
    assert one.selects in scores and all(0 <= v <= 1 for v in scores.values()), "a score is missing or no share"


CHECKS = [
    check_loss_and_logs, check_gradients, check_crops_without_lesions, check_unknown_voxels, check_learning,
    check_validation,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_task_keeps_its_contract(check, way):
    check(task(way))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_what_is_saved_is_all_that_predicting_needs(way, tmp_path):
    one, other = task(way), task(way)
    for p in one.parameters():
        torch.nn.init.normal_(p, std=0.1)
    transfer.save(one.transferable(), tmp_path / "w.safetensors")
    assert transfer.load(tmp_path / "w.safetensors", other.transferable()).count("skipped") == 0
    x = batch(FULL[0]).x[:, 0]
    said = [
        task_.eval().boxes(x)[0].score if way.get("route") == "box" else task_.eval().probability(x)
        for task_ in (one, other)
    ]
    assert torch.equal(*said)


class Deaf(Detect):
    """Forgets the box head's loss."""

    def step(self, crops):
        route, self.config = self.config, self.config.model_copy(update={"route": "voxel"})
        try:
            return super().step(crops)
        finally:
            self.config = route


class Attached(Detect):
    """Logs the loss with its graph."""

    def step(self, crops):
        step = super().step(crops)
        return Step(step.loss, {"voxel": step.loss})


class Blind(Detect):
    """Divides by the lesions there are."""

    def step(self, crops):
        step = super().step(crops)
        return Step(step.loss / (crops.labels() > 0).sum(), step.logs)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [(Deaf, check_gradients), (Attached, check_loss_and_logs), (Blind, check_crops_without_lesions)],
)
def test_a_planted_fault_is_caught(mutant, check):
    torch.manual_seed(0)
    one = mutant(DetectConfig(route="both", width=8), ResEncoder((4, 6, 8), (1, 2, 2)), 2, SHAPE)
    with pytest.raises(AssertionError):
        check(one)
