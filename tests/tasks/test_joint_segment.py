"""Classes are learnt jointly with the transform of a crop, by the loss and the prediction of the paper."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medssl import config
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.losses import dice_ce
from medssl.tasks.joint_segment import Config, JointSegmentTask
from medssl.tasks.segment import Config as SegmentConfig
from medssl.tasks.segment import SegmentTask
from medssl.training.finetune_config import FinetuneConfig
from tests.helpers.blobs import draw_balls, make_crops

SHAPE = (16, 16, 16)
CLASSES = 3


def build(network=JointSegmentTask, settings=Config, **options):
    torch.manual_seed(0)
    return network(settings(deep_supervision_levels=1, **options), ResEncoder((4, 8), (1, 2)), CLASSES, SHAPE)


def build_tied():
    """A task whose answers are the same for each transform, and the segmentation that has these answers."""
    task, single = build(), build(SegmentTask, SegmentConfig)
    single.load_state_dict({k: v for k, v in task.state_dict().items() if "heads" not in k}, strict=False)
    head, answers = single.heads[0].conv, task.heads[0].conv
    answers.weight.data.copy_(head.weight.repeat(2, 1, 1, 1, 1))
    answers.bias.data.copy_(head.bias.repeat(2))
    return task.eval(), single.eval()


def batch():
    crops = make_crops(draw_balls(SHAPE, [((5, 5, 6), 2), ((11, 11, 11), 3)]), draw_balls(SHAPE, [((9, 6, 9), 3)]))
    label = crops.require_label().clone()
    label[1] *= 2
    label[..., :2] = -1
    return replace(crops, label=label)


@pytest.mark.parametrize("transform", ["mirror", "turns"])
def test_the_loss_is_the_cross_entropy_of_pairs_of_class_and_transform(transform):
    task, crops = build(transform=transform), batch()
    expected = []
    for number in range(task.num_transforms):
        x, label = (task.transform_maps(y, number).flatten(0, 1) for y in (crops.x, crops.require_label()))
        answers = task.heads[0](task.decoder(task.encoder(x))[0])
        own = answers[:, CLASSES * number : CLASSES * (number + 1)]
        pairs = torch.where(label < 0, -100, label + CLASSES * number)
        dice = dice_ce(own, label) - F.cross_entropy(own, torch.where(label < 0, -100, label))
        expected.append(F.cross_entropy(answers, pairs) + dice)
    torch.testing.assert_close(task.step(crops).loss, torch.stack(expected).mean())


def test_answers_that_do_not_depend_on_the_transform_are_those_of_a_segmentation():
    task, single = build_tied()
    x = batch().x[:, 0]
    joint = task.heads[0](task.decoder(task.encoder(x))[0]).softmax(1)
    marginal = joint.unflatten(1, (2, CLASSES)).sum(1)
    torch.testing.assert_close(marginal, single.probability(x))
    crops = batch()
    mirrored = replace(crops, x=crops.x.flip(3), label=crops.require_label().flip(2))
    both = (single.step(crops).loss + single.step(mirrored).loss) / 2
    torch.testing.assert_close(task.step(crops).loss, both + math.log(2))


@pytest.mark.parametrize("transform", ["mirror", "turns"])
def test_a_prediction_is_the_mean_over_the_transformed_crops(transform):
    task, x = build(transform=transform).eval(), batch().x[:, 0]
    total = 0.0
    for number in range(task.num_transforms):
        turned = x.flip(2) if (transform, number) == ("mirror", 1) else x.rot90(number * (transform == "turns"), (2, 3))
        answers = task.heads[0](task.decoder(task.encoder(turned))[0])[:, CLASSES * number : CLASSES * (number + 1)]
        back = answers.flip(2) if (transform, number) == ("mirror", 1) else answers
        total = total + back.rot90(-number * (transform == "turns"), (2, 3))
    torch.testing.assert_close(task.probability(x), (total / task.num_transforms).softmax(1))


def test_left_and_right_of_a_pair_that_looks_alike_are_told_apart():
    label = torch.zeros(1, 1, *SHAPE, dtype=torch.long)
    label[:, :, 2:6, 5:11, 5:11], label[:, :, 10:14, 5:11, 5:11] = 1, 2
    crops = make_crops(draw_balls(SHAPE, []))
    x = 0.1 + 0.6 * (label > 0).float()
    x[:, :, :, :2] += 0.3 * torch.linspace(1, 0, 16)[:, None, None]  # what is left and what is right
    crops = replace(crops, x=x[:, :, None], label=label)
    task = build()
    optimizer = torch.optim.AdamW(task.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        task.step(crops).loss.backward()
        optimizer.step()
    predicted = task.eval().probability(crops.x[:, 0]).argmax(1)
    assert (predicted == label[:, 0])[label[:, 0] > 0].float().mean() > 0.95


def test_settings_that_cannot_be_learnt_are_refused():
    with pytest.raises(BadInput, match="not square in the axial plane"):
        JointSegmentTask(Config(transform="turns"), ResEncoder((4, 8), (1, 2)), CLASSES, (16, 8, 16))
    with pytest.raises(ValueError, match=r"task\.regions"):
        Config(regions=((1, 2), (2,)))
    values = {"manifest": "m.csv", "run": "r", "task": "joint_segment"}
    with pytest.raises(BadInput, match=r"give augment\.flip=\[false, true, true\]"):
        config.check(values | {"augment": {"flip": [True, True, True]}}, FinetuneConfig, "test")
    config.check(values | {"augment": {"flip": [False, True, True]}}, FinetuneConfig, "test")
