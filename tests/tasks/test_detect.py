"""Lesions of a phantom are found, scored and drawn by each route."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.inference.connected_findings import find
from medssl.metrics import lesions as metric
from medssl.nn.encoder import ResEncoder
from medssl.tasks.detect import Config, Detect
from medssl.volume import Volume
from tests.helpers.blobs import balls, crops

SHAPE = (24, 24, 24)
SPOTS = [((7, 7, 9), 3), ((16, 15, 16), 4.5), ((7, 18, 18), 2)]


def task(**config):
    torch.manual_seed(0)
    return Detect(Config(width=8, **config), ResEncoder((6, 12), (1, 2)), 2, SHAPE)


def learnt(one, batch, steps=30):
    optimizer = torch.optim.AdamW(one.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        one.step(batch).loss.backward()
        optimizer.step()
    return one.eval()


@pytest.mark.parametrize("how", [{"loss": "focal"}, {"route": "box"}, {"route": "both"}], ids=str)
def test_a_phantom_is_learnt_by_heart_and_its_lesions_are_found(how):
    batch = crops(balls(SHAPE, SPOTS[:2]), balls(SHAPE, SPOTS[1:]))
    one = learnt(task(**how), batch, 60 if how.get("route") == "box" else 30)
    image = Volume(batch.x[0, 0, 0].numpy(), np.diag([1.5, 1.5, 1.5, 1.0]), "a.u.")
    said = one.predictor(lambda v: v, {1: "nodule"})(image, "a")
    label = Volume(balls(SHAPE, SPOTS[:2]).astype(np.uint8), image.affine, "label")
    blank = np.ones(SHAPE, np.float32)
    truth = find(label, blank, blank, "a", {1: "nodule"})
    outcome = metric.luna(metric.by_centre(said.findings, truth))
    assert metric.sensitivity_at([outcome], [1.0])[0] == 1
    assert {f.source for f in said.findings} == {"box" if how.get("route") == "box" else "mask"}


@pytest.mark.parametrize(
    "how", [{}, {"loss": "focal"}, {"loss": "dice_ce"}, {"route": "box"}, {"route": "both"}], ids=str
)
def test_lesions_of_a_kind_that_was_not_drawn_are_no_negatives(how):
    """What is said of class 2 costs nothing where only class 1 was drawn, and is learnt where both were."""
    torch.manual_seed(0)
    one = Detect(Config(width=8, **how), ResEncoder((6, 12), (1, 2)), 3, SHAPE)
    batch = crops(balls(SHAPE, SPOTS[:2]), balls(SHAPE, SPOTS[1:]))
    seen = torch.tensor([[True, True, False]] * 2)

    def slope(drawn):
        one.zero_grad()
        one.step(replace(batch, drawn=drawn)).loss.backward()
        rows = [one.voxel.conv.weight.grad, one.box.sure[-1].weight.grad]
        return [None if row is None else row[-1].abs().max().item() for row in rows]

    told = [value for value in slope(torch.ones_like(seen)) if value is not None]
    hidden = [value for value in slope(seen) if value is not None]
    assert all(value > 1e-6 for value in told)
    boxes = hidden[-1:] if how.get("route") in ("box", "both") else []
    assert boxes == [0.0] * len(boxes)
    if how.get("route") != "box":  # the background may be class 2: which of both a voxel is, nothing tells
        assert one.step(replace(batch, drawn=seen)).logs["voxel"] < one.step(batch).logs["voxel"]


def test_the_pyramid_of_boxes_has_strides_of_two_to_eight_voxels():
    for strides, wanted in [((1, 2, 2, 2), [2, 4, 8]), ((2, 2, 2, 2), [2, 4, 8]), ((1, 1), [1]), (((1, 2, 2), 2), [4])]:
        one = Detect(Config(width=8), ResEncoder([4] * len(strides), strides), 2, SHAPE)
        assert [stride[-1] for stride in one.box.strides] == wanted


def test_a_route_without_voxels_decodes_no_finer_than_its_boxes_need():
    x = torch.rand(1, 1, *SHAPE)
    assert [m.shape[2] for m in task(route="box")._maps(x)] == [12]
    assert [m.shape[2] for m in task(route="both")._maps(x)] == [24, 12]
