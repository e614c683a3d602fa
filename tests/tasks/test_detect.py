"""Each head finds, scores and draws the lesions of a phantom."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.inference.connected_findings import extract_findings
from medssl.metrics import lesions as metric
from medssl.nn.encoder import ResEncoder
from medssl.tasks.detect import Config, DetectTask
from medssl.volume import Volume
from tests.helpers.blobs import draw_balls, make_crops

SHAPE = (24, 24, 24)
SPOTS = [((7, 7, 9), 3), ((16, 15, 16), 4.5), ((7, 18, 18), 2)]


def make_task(**options):
    torch.manual_seed(0)
    return DetectTask(Config(box_channels=8, **options), ResEncoder((6, 12), (1, 2)), 2, SHAPE)


def train_steps(task, batch, steps=30):
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        task.step(batch).loss.backward()
        optimizer.step()
    return task.eval()


@pytest.mark.parametrize("options", [{"loss": "focal"}, {"head": "box"}, {"head": "both"}], ids=str)
def test_the_lesions_of_a_memorized_phantom_are_found(options):
    batch = make_crops(draw_balls(SHAPE, SPOTS[:2]), draw_balls(SHAPE, SPOTS[1:]))
    task = train_steps(make_task(**options), batch, 60 if options.get("head") == "box" else 30)
    image = Volume(batch.x[0, 0, 0].numpy(), np.diag([1.5, 1.5, 1.5, 1.0]), "a.u.")
    prediction = task.predictor(lambda v: v, {1: "nodule"})(image, "a")
    label = Volume(draw_balls(SHAPE, SPOTS[:2]).astype(np.uint8), image.affine, "label")
    blank = np.ones(SHAPE, np.float32)
    truth = extract_findings(label, blank, blank, "a", {1: "nodule"})
    outcome = metric.match_luna(metric.compare_by_centre(prediction.findings, truth))
    assert metric.sensitivity_at([outcome], [1.0])[0] == 1
    assert {f.source for f in prediction.findings} == {"box" if options.get("head") == "box" else "mask"}


@pytest.mark.parametrize(
    "options", [{}, {"loss": "focal"}, {"loss": "dice_ce"}, {"head": "box"}, {"head": "both"}], ids=str
)
def test_lesions_of_a_class_that_is_not_annotated_are_no_negatives(options):
    """Predictions of class 2 have no loss if only class 1 is annotated, and have one if both are."""
    torch.manual_seed(0)
    task = DetectTask(Config(box_channels=8, **options), ResEncoder((6, 12), (1, 2)), 3, SHAPE)
    batch = make_crops(draw_balls(SHAPE, SPOTS[:2]), draw_balls(SHAPE, SPOTS[1:]))
    only_first = torch.tensor([[True, True, False]] * 2)

    def measure_gradients(annotated):
        task.zero_grad()
        task.step(replace(batch, annotated=annotated)).loss.backward()
        rows = [task.voxel.conv.weight.grad, task.box.sure[-1].weight.grad]
        return [None if row is None else row[-1].abs().max().item() for row in rows]

    with_both = [value for value in measure_gradients(torch.ones_like(only_first)) if value is not None]
    with_first = [value for value in measure_gradients(only_first) if value is not None]
    assert all(value > 1e-6 for value in with_both)
    boxes = with_first[-1:] if options.get("head") in ("box", "both") else []
    assert boxes == [0.0] * len(boxes)
    if options.get("head") != "box":  # a background voxel may be of class 2, which is not annotated
        assert task.step(replace(batch, annotated=only_first)).logs["voxel"] < task.step(batch).logs["voxel"]


def test_the_pyramid_of_boxes_has_strides_of_two_to_eight_voxels():
    for strides, expected in [
        ((1, 2, 2, 2), [2, 4, 8]),
        ((2, 2, 2, 2), [2, 4, 8]),
        ((1, 1), [1]),
        (((1, 2, 2), 2), [4]),
    ]:
        task = DetectTask(Config(box_channels=8), ResEncoder([4] * len(strides), strides), 2, SHAPE)
        assert [stride[-1] for stride in task.box.strides] == expected


def test_without_a_voxel_head_the_finest_maps_are_not_computed():
    x = torch.rand(1, 1, *SHAPE)
    assert [m.shape[2] for m in make_task(head="box")._decode(x)] == [12]
    assert [m.shape[2] for m in make_task(head="both")._decode(x)] == [24, 12]
