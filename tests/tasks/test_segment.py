"""Segmentation learns regions, partial labels and any number of channels."""

from dataclasses import replace

import pytest
import torch

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.tasks.segment import Config, SegmentTask

CROP = (16, 16, 16)
NESTED = ((1, 2, 3), (2, 3), (3,))


def make_task(classes: int = 4, channels: int = 1, **options) -> SegmentTask:
    torch.manual_seed(0)
    return SegmentTask(Config(**options), ResEncoder((8, 8, 16), (1, 2, 2), in_channels=channels), classes, CROP)


def make_crops(classes: int = 4, channels: int = 1, volumes: int = 2, order: tuple[int, ...] = (1, 2, 3)) -> Crops:
    """Boxes of each class and brightness; only the last channel distinguishes the last two classes.

    `order` is the class of the first box, the second, and so on.
    """
    g = torch.Generator().manual_seed(0)
    label = torch.zeros(volumes, 1, *CROP, dtype=torch.long)
    for n in range(1, classes):
        label[:, :, 4 * (n - 1) : 4 * n + 2, 3:12, 4:13] = order[n - 1]
    bright = label.float() / classes
    x = torch.stack(
        [bright.clamp_max((classes - 2) / classes) if channels > 1 else bright, *[bright] * (channels - 1)], 2
    )
    x = x + 0.02 * torch.rand(x.shape, generator=g)
    corner, eye = torch.zeros(volumes, 1, 3, dtype=torch.long), torch.eye(4).expand(volumes, 1, 4, 4)
    return Crops(x, corner, torch.full((volumes, 3), 16), eye, torch.arange(volumes), label)


def train_steps(task: SegmentTask, *batches: Crops, steps: int = 60) -> SegmentTask:
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    for n in range(steps):
        optimizer.zero_grad()
        task.step(batches[n % len(batches)]).loss.backward()
        optimizer.step()
    return task


VARIANTS = {
    "classes": {},
    "regions": {"regions": NESTED},
    "balanced": {"class_balance": 0.5},
    "activated": {"preactivation_head": False},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_boxes_are_learnt(options):
    batch = make_crops()
    task = train_steps(make_task(**options), batch)
    p = task.probability(batch.x[:, 0])
    assert p.shape[1] == 4 and torch.allclose(p.sum(1), torch.ones(()), atol=1e-5)
    assert (p.argmax(1) == batch.label[:, 0]).float().mean() > 0.97
    assert task.validate(batch)["dice"] > 0.9


def test_a_second_channel_is_used():
    batch = make_crops(channels=2)
    swapped = make_crops(channels=2, order=(1, 3, 2))  # so that the position does not distinguish them
    task = train_steps(make_task(channels=2), batch, swapped)
    right = task.probability(batch.x[:, 0]).argmax(1) == batch.label[:, 0]
    assert right.float().mean() > 0.97
    single = replace(batch, x=torch.stack([batch.x[:, :, 0]] * 2, 2))
    assert (task.probability(single.x[:, 0]).argmax(1) == batch.label[:, 0]).float().mean() < right.float().mean()


def test_the_probability_of_a_class_is_the_joint_probability_of_its_regions():
    task = make_task(regions=NESTED)
    logits = torch.randn(1, 3, *CROP)
    task.heads[0].forward = lambda _: logits
    p, sigmoid = task.probability(torch.rand(1, 1, *CROP)), logits.sigmoid()
    codes = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    each = torch.stack([(torch.where(c[:, None, None, None] == 1, sigmoid, 1 - sigmoid)).prod(1) for c in codes], 1)
    assert torch.allclose(p, each / each.sum(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    "options, annotated",
    [({}, ([1, 2], [3], [1], [1])), ({"regions": NESTED}, ([1, 2, 3], [1], [1], [1]))],
    ids=["classes", "regions"],
)
def test_volumes_with_different_structures_annotated_teach_all_of_them(options, annotated):
    """Most volumes are annotated for class 1 only; taken as complete, they would suppress the other classes."""
    whole = make_crops(volumes=4)
    mask = torch.tensor([[n == 0 or n in row for n in range(4)] for row in annotated])
    visible = torch.where(mask[torch.arange(4)[:, None, None, None], whole.label[:, 0]], whole.label[:, 0], 0)
    part = replace(whole, label=visible[:, None], annotated=mask)

    def measure_accuracy(batch: Crops) -> float:
        task = train_steps(make_task(preactivation_head=False, **options), batch, steps=40)
        predicted = task.probability(whole.x[:, 0]).argmax(1)
        return (predicted == whole.label[:, 0]).float().mean().item()

    assert measure_accuracy(part) > 0.95 > measure_accuracy(replace(part, annotated=None)) + 0.05


def test_a_healthy_volume_scores_false_positives(monkeypatch):
    whole = make_crops(volumes=1)
    blank = replace(whole, label=torch.zeros_like(whole.label))
    for value, score in ((0.0, 1.0), (1.0, 0.0)):
        task = make_task()
        monkeypatch.setattr(
            task, "probability", lambda x, p=value: torch.stack([x[:, 0] * 0 + 0.5, x[:, 0] * 0 + p], 1)
        )
        scores = task.validate(blank)
        assert scores["dice_1"] == score and set(scores) == {"dice", "dice_1", "dice_2", "dice_3"}
        assert task.validate(replace(blank, annotated=torch.tensor([[True, True, False, False]])))["dice"] == score


@pytest.mark.parametrize("regions", [((1, 2, 3),), ((1, 2), (3,), (5,))], ids=["same", "beyond"])
def test_regions_that_do_not_distinguish_the_classes_are_refused(regions):
    with pytest.raises(BadInput, match=r"task\.regions"):
        make_task(regions=regions)


def test_label_values_with_a_gap_can_have_regions():
    """As in BraTS: the values 1, 2 and 4; whole tumour 1, 2, 4, core 1, 4, enhancing tumour 4."""
    whole = make_crops()
    batch = replace(whole, label=torch.where(whole.label == 3, 4, whole.label))
    task = train_steps(make_task(classes=5, regions=((1, 2, 4), (1, 4), (4,))), batch)
    predicted = task.probability(batch.x[:, 0]).argmax(1)
    assert (predicted == batch.label[:, 0]).float().mean() > 0.97 and set(predicted.unique().tolist()) <= {0, 1, 2, 4}


def test_views_of_a_volume_share_its_annotated_classes():
    whole = make_crops()
    annotated = torch.tensor([[True, True, False, True], [True, True, True, True]])
    views = {name: torch.cat([getattr(whole, name)] * 2, 1) for name in ("x", "label", "corner", "affine")}
    twice = replace(whole, **views, annotated=annotated)
    task = make_task()
    assert torch.allclose(task.step(twice).loss, task.step(replace(whole, annotated=annotated)).loss, atol=1e-5)
