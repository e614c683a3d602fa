"""An in-context segmentation follows its examples: which structure they show decides what is segmented."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.errors import BadInput
from medssl.metrics.overlap import dice
from medssl.nn.encoder import ResEncoder
from medssl.tasks.in_context import Config, InContextTask
from tests.helpers.blobs import draw_balls, make_crops

SHAPE = (16, 16, 16)


def make_task(num_classes=3, **settings):
    torch.manual_seed(0)
    return InContextTask(Config(width=16, **settings), ResEncoder((8, 12, 16), (1, 2, 2)), num_classes, SHAPE)


def draw_batch(seed, count=4):
    """Crops with a bright ball, class 1, and a dark one, class 2."""
    draw = np.random.default_rng(seed)
    bright = [draw_balls(SHAPE, [((4, *draw.integers(4, 12, 2)), 3)]) for _ in range(count)]
    dark = [draw_balls(SHAPE, [((11, *draw.integers(4, 12, 2)), 3)]) for _ in range(count)]
    crops = make_crops(*bright, seed=seed)
    crops.x[:, :, :, :, :, :2] = 0.3
    masks = [torch.from_numpy(np.stack(masks))[:, None] for masks in (bright, dark)]
    label = torch.where(masks[0] > 0, 1, 2 * masks[1])
    return replace(crops, x=torch.where(label[:, :, None] == 2, crops.x - 0.3, crops.x), label=label)


@pytest.fixture(scope="module")
def trained_task():
    task = make_task().train()
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    for step in range(200):
        optimizer.zero_grad()
        task.step(draw_batch(step)).loss.backward()
        optimizer.step()
    return task.eval()


def show_only(crops, value):
    """Crops whose label names a class 1 alone, whatever its number was."""
    return replace(crops, label=(crops.label == value).long())


def segment(task, examples, queries):
    """Returns which voxels hold class 1 of the examples."""
    task.show(examples)
    with torch.inference_mode():
        p = task.probability(queries.x[:, 0])[:, :2]
    return (p[:, 1] > p[:, 0]).numpy()


def stack(masks):
    """One volume of all masks, one above the other."""
    return masks.reshape(-1, *masks.shape[2:])


@pytest.mark.slow
def test_the_structure_in_the_examples_is_the_one_that_is_segmented(trained_task):
    """The number of the class is the same for both structures: without the examples, they cannot be told apart."""
    examples, queries = draw_batch(1000), draw_batch(1001, 8)
    for value in (1, 2):
        masks = segment(trained_task, show_only(examples, value), queries)
        scores = {n: dice(stack(masks), stack((queries.label[:, 0] == n).numpy())) for n in (1, 2)}
        assert scores[value] > 0.85 and scores[3 - value] < 0.1, scores


@pytest.mark.slow
def test_an_example_that_is_the_query_gives_nearly_its_mask(trained_task):
    query = draw_batch(1002, 1)
    for value in (1, 2):
        masks = segment(trained_task, show_only(query, value), query)
        assert dice(stack(masks), stack((query.label[:, 0] == value).numpy())) > 0.9


def test_the_order_of_the_examples_changes_nothing():
    task, examples, queries = make_task().eval(), draw_batch(1003, 6), draw_batch(1004, 2)
    reversed_examples = replace(examples, x=examples.x.flip(0), label=examples.label.flip(0))
    p = []
    for crops in (examples, reversed_examples):
        task.show(crops)
        p.append(task.probability(queries.x[:, 0]))
    torch.testing.assert_close(*p, atol=1e-5, rtol=1e-4)
    task.show(draw_batch(1005, 6))
    assert (task.probability(queries.x[:, 0]) - p[0]).abs().max() > 1e-4, "other examples change it"


def test_without_examples_the_answer_is_a_prior():
    """It is one for all classes, and the same as with examples of which nothing is known."""
    task, queries = make_task().eval(), draw_batch(1006, 2)
    p = task.probability(queries.x[:, 0])
    assert torch.equal(p[:, 1], p[:, 2])
    unknown = replace(queries, label=torch.full_like(queries.label, -1))
    unannotated = replace(queries, annotated=torch.tensor([[True, False, False]] * 2))
    for crops in (unknown, unannotated):
        task.show(crops)
        torch.testing.assert_close(task.probability(queries.x[:, 0]), p)


def test_a_crop_is_no_example_for_itself():
    task, batch = make_task(drop_fraction=0.0), draw_batch(0, 1)
    logs = task.step(batch).logs
    assert logs["examples"] == 0
    assert task.step(draw_batch(0, 4)).logs["examples"] == 3


def test_the_latest_labelled_crops_are_the_examples_of_a_task():
    task, batch = make_task(num_examples=6).train(), draw_batch(0)
    assert len(task.examples.valid_rows()["annotated"]) == 0
    for _ in range(2):
        task.step(batch)
    rows = task.examples.valid_rows()
    assert len(rows["annotated"]) == 6 and all(row.isfinite().all() for row in rows.values())
    task.eval().step(batch)
    assert int(task.examples.pushed) == 8


def test_examples_that_do_not_fit_are_refused():
    batch = draw_batch(0, 1)
    larger = replace(batch, x=batch.x.repeat_interleave(2, -1), label=batch.label.repeat_interleave(2, -1))
    for crops, num_classes in ((larger, 3), (batch, 2)):
        with pytest.raises(BadInput, match=r"give crops of \(16, 16, 16\) voxels with classes 1 to"):
            make_task(num_classes).show(crops)
