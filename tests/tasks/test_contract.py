"""Every task fulfils one contract with every head, and the contract detects planted faults."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from medssl import config
from medssl.nn.encoder import ResEncoder
from medssl.nn.interop import weight_transfer
from medssl.nn.step import Step
from medssl.settings import find_modules
from medssl.tasks.detect import Config as DetectConfig
from medssl.tasks.detect import DetectTask
from tests.helpers.blobs import draw_balls, make_crops

NAMES = sorted(find_modules("medssl.tasks"))
SHAPE = (16, 16, 16)
VARIANTS = [{"name": name} for name in NAMES] + [{"name": "detect", "head": head} for head in ("box", "both")]


def batch(*spots):
    return make_crops(*(draw_balls(SHAPE, some) for some in spots))


FULL = ([((5, 5, 6), 2), ((11, 11, 11), 3)], [((9, 6, 9), 3)])


def make_task(variant):
    torch.manual_seed(0)
    settings = import_module(f"medssl.tasks.{variant['name']}").Config.model_validate(variant)
    return config.class_for_config(settings)(settings, ResEncoder((4, 6, 8), (1, 2, 2)), 2, SHAPE)


def check_loss_and_logs(task):
    step = task.step(batch(*FULL))
    assert step.loss.shape == () and step.loss.requires_grad and step.loss.isfinite(), "the loss is no finite scalar"
    assert all(v.shape == () and not v.requires_grad for v in step.logs.values()), "a log is not detached"


def check_gradients(task):
    task.step(batch(*FULL)).loss.backward()
    # Not the decoder, whose finest level is unused if no head needs it.
    parts = [(part, m) for part, m in task.transferable().items() if part != "decoder"]
    parts = [(f"{part}.{n}", p) for part, m in parts for n, p in m.named_parameters()]
    constant = [name for name, p in parts if p.grad is None or not p.grad.abs().sum() > 0]
    assert not constant, f"weights without gradient: {constant}"


def check_crops_without_lesions(task):
    step = task.step(batch([], []))
    step.loss.backward()
    assert step.loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def check_unknown_voxels(task):
    crop = batch(*FULL)
    label = crop.require_label().clone()
    label[..., 8:] = -1
    assert task.step(replace(crop, label=label)).loss.isfinite(), "an unknown voxel breaks the loss"
    all_unknown = task.step(replace(crop, label=torch.full_like(label, -1))).loss
    assert all_unknown.isfinite(), "a batch without known voxels breaks the loss"


def check_learning(task):
    crop = batch(*FULL)
    optimizer, first = torch.optim.AdamW(task.parameters(), 5e-3), None
    for _ in range(12):
        optimizer.zero_grad()
        loss = task.step(crop).loss
        loss.backward()
        optimizer.step()
        first = first or loss.item()
    assert task.step(crop).loss.item() < 0.9 * first, "the loss does not fall on one batch"


def check_validation(task):
    volume = batch(FULL[0])
    scores = task.eval().validate(volume)
    assert task.selection_metric in scores and all(0 <= v <= 1 for v in scores.values()), (
        "a score is missing or outside 0 to 1"
    )


CHECKS = [
    check_loss_and_logs, check_gradients, check_crops_without_lesions, check_unknown_voxels, check_learning,
    check_validation,
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_task_fulfils_the_contract(check, variant):
    check(make_task(variant))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_the_saved_parts_are_all_that_prediction_needs(variant, tmp_path):
    task, loaded = make_task(variant), make_task(variant)
    for p in task.parameters():
        torch.nn.init.normal_(p, std=0.1)
    weight_transfer.save_parts(task.transferable(), tmp_path / "w.safetensors")
    assert weight_transfer.load_parts(tmp_path / "w.safetensors", loaded.transferable()).count("skipped") == 0
    x = batch(FULL[0]).x[:, 0]
    outputs = [
        task_.eval().boxes(x)[0] if variant.get("head") == "box" else task_.eval().probability(x)
        for task_ in (task, loaded)
    ]
    assert torch.equal(*outputs)


class WithoutBoxLoss(DetectTask):
    """Omits the loss of the box head."""

    def step(self, crops):
        config, self.config = self.config, self.config.model_copy(update={"head": "voxel"})
        try:
            return super().step(crops)
        finally:
            self.config = config


class WithAttachedLogs(DetectTask):
    """Logs the loss with its graph."""

    def step(self, crops):
        step = super().step(crops)
        return Step(step.loss, {"voxel": step.loss})


class WithoutEmptyCrops(DetectTask):
    """Divides by the number of lesion voxels, which may be 0."""

    def step(self, crops):
        step = super().step(crops)
        return Step(step.loss / (crops.require_label() > 0).sum(), step.logs)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (WithoutBoxLoss, check_gradients),
        (WithAttachedLogs, check_loss_and_logs),
        (WithoutEmptyCrops, check_crops_without_lesions),
    ],
)
def test_a_planted_fault_is_caught(mutant, check):
    torch.manual_seed(0)
    task = mutant(DetectConfig(head="both", box_channels=8), ResEncoder((4, 6, 8), (1, 2, 2)), 2, SHAPE)
    with pytest.raises(AssertionError):
        check(task)
