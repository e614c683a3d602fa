"""Segmentation: regions become classes again, partial labels are learnt together, channels are as many as there are."""

from dataclasses import replace

import pytest
import torch

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.tasks.segment import Config, Segment

CROP = (16, 16, 16)
NESTED = ((1, 2, 3), (2, 3), (3,))


def task(classes: int = 4, channels: int = 1, **how) -> Segment:
    torch.manual_seed(0)
    return Segment(Config(**how), ResEncoder((8, 8, 16), (1, 2, 2), in_channels=channels), classes, CROP)


def crops(classes: int = 4, channels: int = 1, volumes: int = 2, order: tuple[int, ...] = (1, 2, 3)) -> Crops:
    """Boxes, one a class, each with its own brightness; the last channel alone tells the last two classes apart.

    `order` says which class lies in the first place, the second and so on.
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
    where, eye = torch.zeros(volumes, 1, 3, dtype=torch.long), torch.eye(4).expand(volumes, 1, 4, 4)
    return Crops(x, where, torch.full((volumes, 3), 16), eye, torch.arange(volumes), label)


def learnt(of: Segment, *batches: Crops, steps: int = 60) -> Segment:
    optimizer = torch.optim.AdamW(of.parameters(), lr=1e-2)
    for n in range(steps):
        optimizer.zero_grad()
        of.step(batches[n % len(batches)]).loss.backward()
        optimizer.step()
    return of


WAYS = {"classes": {}, "regions": {"regions": NESTED}, "balanced": {"balance": 0.5}, "activated": {"linear": False}}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_boxes_are_learnt(how):
    batch = crops()
    of = learnt(task(**how), batch)
    p = of.probability(batch.x[:, 0])
    assert p.shape[1] == 4 and torch.allclose(p.sum(1), torch.ones(()), atol=1e-5)
    assert (p.argmax(1) == batch.label[:, 0]).float().mean() > 0.97
    assert of.validate(batch)["dice"] > 0.9


def test_a_second_channel_is_read():
    batch = crops(channels=2)
    of = learnt(task(channels=2), batch, crops(channels=2, order=(1, 3, 2)))  # so that no place tells them apart
    right = of.probability(batch.x[:, 0]).argmax(1) == batch.label[:, 0]
    assert right.float().mean() > 0.97
    blind = replace(batch, x=torch.stack([batch.x[:, :, 0]] * 2, 2))
    assert (of.probability(blind.x[:, 0]).argmax(1) == batch.label[:, 0]).float().mean() < right.float().mean()


def test_the_probability_of_a_class_is_that_of_its_regions_answers_together():
    of = task(regions=NESTED)
    logits = torch.randn(1, 3, *CROP)
    of.heads[0].forward = lambda _: logits
    p, said = of.probability(torch.rand(1, 1, *CROP)), logits.sigmoid()
    codes = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    each = torch.stack([(torch.where(c[:, None, None, None] == 1, said, 1 - said)).prod(1) for c in codes], 1)
    assert torch.allclose(p, each / each.sum(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(
    "how, drawn",
    [({}, ([1, 2], [3], [1], [1])), ({"regions": NESTED}, ([1, 2, 3], [1], [1], [1]))],
    ids=["classes", "regions"],
)
def test_volumes_with_different_structures_drawn_teach_all_of_them(how, drawn):
    """Most volumes show class 1 alone: taken for the whole truth, they would unteach the others."""
    whole = crops(volumes=4)
    told = torch.tensor([[n == 0 or n in row for n in range(4)] for row in drawn])
    seen = torch.where(told[torch.arange(4)[:, None, None, None], whole.label[:, 0]], whole.label[:, 0], 0)
    part = replace(whole, label=seen[:, None], drawn=told)

    def right(batch: Crops) -> float:
        found = learnt(task(linear=False, **how), batch, steps=40).probability(whole.x[:, 0]).argmax(1)
        return (found == whole.label[:, 0]).float().mean().item()

    assert right(part) > 0.95 > right(replace(part, drawn=None)) + 0.05


def test_a_healthy_volume_tells_false_alarms(monkeypatch):
    whole = crops(volumes=1)
    blank = replace(whole, label=torch.zeros_like(whole.label))
    for said, score in ((0.0, 1.0), (1.0, 0.0)):
        of = task()
        monkeypatch.setattr(of, "probability", lambda x, p=said: torch.stack([x[:, 0] * 0 + 0.5, x[:, 0] * 0 + p], 1))
        told = of.validate(blank)
        assert told["dice_1"] == score and set(told) == {"dice", "dice_1", "dice_2", "dice_3"}
        assert of.validate(replace(blank, drawn=torch.tensor([[True, True, False, False]])))["dice"] == score


@pytest.mark.parametrize("regions", [((1, 2, 3),), ((1, 2), (3,), (5,))], ids=["same", "beyond"])
def test_regions_that_do_not_tell_the_classes_apart_are_refused(regions):
    with pytest.raises(BadInput, match=r"task\.regions"):
        task(regions=regions)


def test_numbers_with_a_gap_have_regions_too():
    """As those of BraTS: 1, 2 and 4, of which the whole is 1, 2, 4, the core 1, 4 and what enhances 4."""
    whole = crops()
    batch = replace(whole, label=torch.where(whole.label == 3, 4, whole.label))
    of = learnt(task(classes=5, regions=((1, 2, 4), (1, 4), (4,))), batch)
    found = of.probability(batch.x[:, 0]).argmax(1)
    assert (found == batch.label[:, 0]).float().mean() > 0.97 and set(found.unique().tolist()) <= {0, 1, 2, 4}


def test_views_of_a_volume_share_what_was_drawn_in_it():
    whole = crops()
    drawn = torch.tensor([[True, True, False, True], [True, True, True, True]])
    views = {name: torch.cat([getattr(whole, name)] * 2, 1) for name in ("x", "label", "corner", "affine")}
    twice = replace(whole, **views, drawn=drawn)
    of = task()
    assert torch.allclose(of.step(twice).loss, of.step(replace(whole, drawn=drawn)).loss, atol=1e-5)
