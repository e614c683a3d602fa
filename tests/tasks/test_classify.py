"""A classification learns what occurs in a volume, and has the probability at the place that got the attention."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.metrics.lesions import auroc
from medssl.nn.encoder import ResEncoder
from medssl.tasks.classify import ClassifyTask, Config, find_classes
from medssl.volume import Volume
from tests.helpers.blobs import draw_balls, make_crops

SHAPE = (16, 16, 16)


def make_task(num_classes=2, **settings):
    torch.manual_seed(0)
    return ClassifyTask(Config(**settings), ResEncoder((4, 6, 8), (1, 2, 2)), num_classes, SHAPE)


def draw_batch(seed, count=8):
    """Crops of which every other one has a ball at a random place."""
    draw = np.random.default_rng(seed)
    return make_crops(
        *(draw_balls(SHAPE, [(draw.integers(5, 12, 3), 2.5)] if n % 2 else []) for n in range(count)), seed=seed
    )


def train(task, steps):
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        task.step(draw_batch(step)).loss.backward()
        optimizer.step()
    return task.eval()


@pytest.fixture(scope="module")
def trained_task():
    return train(make_task(min_score=1e-6), 80)


def test_volumes_with_lesions_score_higher_and_the_lesion_gets_the_attention(trained_task):
    batch = draw_batch(1000, 40)
    with torch.inference_mode():
        heat = trained_task.probability(batch.x[:, 0])[:, 1]
    has_lesion, label = batch.label[:, 0].flatten(1).any(1), batch.label[:, 0]
    assert auroc(has_lesion.numpy(), heat.amax((1, 2, 3)).numpy()) > 0.9
    places = heat.flatten(1).argmax(1)
    near = torch.nn.functional.max_pool3d(label[:, None].float(), 9, 1, 4)[:, 0]
    assert near.flatten(1).gather(1, places[:, None])[has_lesion].mean() > 0.5  # of a third of all places


def test_the_highest_score_of_a_prediction_is_the_probability_of_the_class(trained_task):
    batch = draw_batch(1001, 2)
    with torch.inference_mode():
        logits, _ = trained_task.classify(batch.x[:, 0])
    predictor = trained_task.predictor(lambda volume: volume, {1: "lesion"})
    for row in range(2):
        volume = Volume(batch.x[row, 0, 0].numpy(), np.eye(4), "a.u.")
        prediction = predictor(volume, "case")
        best = max((finding.score for finding in prediction.findings), default=0.0)
        assert best == pytest.approx(logits[row].sigmoid().item(), abs=1e-5)
    truths = [trained_task.validate(cut_row(batch, n)) for n in range(2)]
    expected = [1 - logits[0].sigmoid().item(), logits[1].sigmoid().item()]
    assert [t["probability_of_truth"].item() for t in truths] == pytest.approx(expected, abs=1e-5)


def cut_row(batch, n):
    return replace(batch, **{name: value[n : n + 1] for name, value in vars(batch).items() if value is not None})


def test_the_probability_of_background_is_that_of_no_class():
    p = make_task(4).probability(draw_batch(0).x[:, 0])
    assert p.shape == (8, 4, *SHAPE)
    torch.testing.assert_close(p[:, 0], (1 - p[:, 1:]).prod(1))


def test_a_class_is_known_where_it_occurs_or_every_voxel_is_annotated():
    label = torch.zeros(3, 2, 2, 2, dtype=torch.long)
    label[0, 0, 0, 0], label[1, 0, 0, 0], label[1, 1, 1, 1] = 2, 1, -1
    target, is_known = find_classes(label, 3)
    assert target.tolist() == [[False, True], [True, False], [False, False]]
    assert is_known.tolist() == [[True, True], [True, False], [True, True]]


def test_classes_without_annotation_have_no_loss():
    task, batch = make_task(3), draw_batch(0)
    annotated = torch.tensor([[True, True, False]]).expand(8, 3)
    label = batch.label.clone()
    label[..., :2] = 2
    other = replace(batch, label=label)
    losses = [task.step(replace(part, annotated=annotated)).loss.item() for part in (batch, other)]
    assert task.step(batch).loss.item() != losses[0] and losses[0] == pytest.approx(losses[1])
    nothing = replace(batch, annotated=torch.zeros(8, 3, dtype=torch.bool))
    assert task.step(nothing).loss == 0
