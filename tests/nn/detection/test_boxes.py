"""Boxes and their head against brute force and MONAI, at borders, without lesions and with degenerate boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.box_utils import box_iou, box_pair_giou

from medssl.nn.detection.box_head import BoxHead
from medssl.nn.detection.boxes import GROWTH, Boxes, anchors, giou, lesions, moved, moves_to


def random_boxes(seed, count, spread=16.0):
    source = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 3, generator=source) * spread
    return torch.cat([low, low + 0.5 + torch.rand(count, 3, generator=source) * 9], 1)


def drawn(corners, label=1):
    corners = torch.tensor(corners, dtype=torch.float32).reshape(-1, 6)
    return Boxes(corners, torch.full((len(corners),), label), torch.ones(len(corners)))


def head(classes=2, ratio=3.0):
    torch.manual_seed(0)
    return BoxHead((4, 6), ((2, 2, 2), (4, 4, 4)), classes, 8, 3.0, ratio)


def maps(seed=0, batch=1, size=16):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, *[size // s] * 3, generator=source) for c, s in ((4, 2), (6, 4))]


def test_lesions_are_the_connected_parts_of_each_class_with_boxes_that_end_at_the_border():
    label = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    label[0, :2, :3, 6:] = 1
    label[0, 2, 3, 5] = 1
    label[0, 6:, 6:, 6:] = 2
    label[0, 4, 4, 4] = -1
    number, (first, second) = lesions(label)
    assert first.corners.tolist() == [[0, 0, 5, 3, 4, 8], [6, 6, 6, 8, 8, 8]]
    assert first.label.tolist() == [1, 2] and len(second.label) == 0
    assert torch.equal(number > 0, label > 0)
    assert [int((number == n).sum()) for n in (1, 2)] == [13, 8]


def test_anchors_lie_about_the_middle_of_their_cells_on_uneven_strides_too():
    (fine,) = anchors((4, 8, 8), [(1, 2, 4)], 2.0)
    assert len(fine) == 4 * 4 * 2
    i, j, k = torch.meshgrid(torch.arange(4) + 0.0, torch.arange(4) * 2 + 1.0, torch.arange(2) * 4 + 2.0, indexing="ij")
    assert torch.equal((fine[:, :3] + fine[:, 3:]) / 2, torch.stack([i, j, k], -1).view(-1, 3))
    assert torch.equal(fine[0, 3:] - fine[0, :3], torch.tensor([2.0, 4.0, 8.0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_giou_is_monais_on_true_boxes(seed, count):
    a, b = random_boxes(seed, count), random_boxes(seed + 1, count)
    assert torch.allclose(giou(a, b), box_pair_giou(a, b), atol=1e-5)


def test_giou_of_degenerate_boxes_is_a_number_and_pulls_them_together():
    flat = torch.tensor([[1.0, 1, 1, 1, 5, 5], [4, 4, 4, 2, 2, 2]], requires_grad=True)
    worth = giou(flat, random_boxes(0, 2))
    worth.sum().backward()
    assert (worth <= 0).all() and torch.isfinite(flat.grad).all() and flat.grad.abs().sum() > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_moves_reach_any_box_and_none_leaves_the_anchor_alone(seed):
    anchor, wanted = random_boxes(seed, 5), random_boxes(seed + 1, 5)
    assert torch.allclose(moved(anchor, torch.zeros(5, 6)), anchor, atol=1e-5)
    side, aim = anchor[:, 3:] - anchor[:, :3], wanted[:, 3:] - wanted[:, :3]
    shift = (wanted[:, :3] + aim / 2 - anchor[:, :3] - side / 2) / side
    moves = torch.cat([shift, (aim / side).log()], 1)
    assert torch.allclose(moves_to(anchor, wanted), moves, atol=1e-5)
    assert torch.allclose(moved(anchor, moves), wanted, atol=1e-4)


def atss(boxes, every, counts, nearest=4):
    """Zhang et al. 2020, Algorithm 1, in loops."""
    middle = (every[:, :3] + every[:, 3:]) / 2
    best = torch.full((len(every),), -1.0)
    matched = torch.full((len(every),), -1)
    for number, box in enumerate(boxes):
        apart = (middle - (box[:3] + box[3:]) / 2).norm(dim=1)
        chosen, start = [], 0
        for count in counts:
            chosen += (apart[start : start + count].argsort()[: min(nearest, count)] + start).tolist()
            start += count
        overlap = box_iou(box[None], every[chosen])[0]
        for at, worth in zip(chosen, overlap, strict=True):
            if worth >= overlap.mean() + overlap.std() and worth > best[at]:
                best[at], matched[at] = worth, number
    return matched


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_matcher_is_the_published_algorithm(seed, count):
    levels = anchors((16, 16, 16), [(2, 2, 2), (4, 4, 4)], 3.0)
    boxes = random_boxes(seed, count, 7.0)
    _, matched = head().match(boxes, torch.cat(levels), [len(one) for one in levels], 1)
    assert torch.equal(matched, atss(boxes, torch.cat(levels), [len(one) for one in levels]))


def test_every_lesion_is_learnt_by_some_anchor_however_small_or_near_the_border():
    levels = anchors((16, 16, 16), [(2, 2, 2), (4, 4, 4)], 3.0)
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1], [13, 13, 13, 16, 16, 16], [5, 5, 5, 8, 8, 8]])
    matched = head().matched(boxes, torch.cat(levels), [len(one) for one in levels])
    assert {0, 1, 2} <= set(matched.tolist())


def test_a_crop_without_lesions_teaches_the_hardest_anchors_only():
    one, label = head(), torch.zeros(1, 16, 16, 16, dtype=torch.long)
    logits, _ = one(maps())
    worst = logits[0, :, 0].topk(16).values
    loss = one.loss(maps(), [drawn([])], label)
    assert torch.allclose(loss, torch.nn.functional.softplus(worst).mean(), atol=1e-5)


def test_unknown_voxels_teach_nothing():
    one, label = head(), torch.full((1, 16, 16, 16), -1)
    assert one.loss(maps(), [drawn([])], label) == 0


def test_the_loss_has_a_gradient_everywhere_and_many_classes():
    one, label = head(classes=4), torch.zeros(2, 16, 16, 16, dtype=torch.long)
    truth = [drawn([[3, 3, 3, 8, 8, 8], [1, 1, 1, 14, 14, 14]], 3), drawn([])]
    one.loss(maps(batch=2), truth, label).backward()
    assert [name for name, p in one.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("grown", [GROWTH + 1, 20.0])
def test_a_head_whose_boxes_have_grown_out_of_all_bounds_is_drawn_back(grown):
    """Overlap alone has no slope there: boxes of nodules ended as large as the scan, and stayed so."""
    one, label = head(), torch.zeros(1, 16, 16, 16, dtype=torch.long)
    last = one.place[-1]
    with torch.no_grad():
        last.bias[3:] = grown
    learn = torch.optim.SGD([last.bias], 1.0)
    for _ in range(60):
        learn.zero_grad()
        one.loss(maps(), [drawn([[3, 3, 3, 8, 8, 8]])], label).backward()
        learn.step()
    assert (last.bias[3:].abs() < 1.5).all()


def test_boxes_given_lie_inside_the_crop_and_do_not_repeat_each_other():
    one = head(classes=3)
    for p in one.parameters():
        torch.nn.init.normal_(p, std=0.3)
    (said,) = one.boxes(maps(3), (16, 16, 16), 0.05)
    low, high = said.corners[:, :3], said.corners[:, 3:]
    assert len(low) > 3 and (low >= 0).all() and (high <= 16).all() and (high - low >= 1).all()
    assert (said.score.diff() <= 0).all() and said.score.min() >= 0.05
    for label in said.label.unique():
        some = said.corners[said.label == label]
        assert (box_iou(some, some).fill_diagonal_(0) <= 0.22).all()


def test_a_fresh_head_sees_next_to_nothing():
    (said,) = head().boxes(maps(), (16, 16, 16), 0.05)
    assert len(said.label) == 0
    assert said.corners.shape == (0, 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_input_gives_a_loss_that_says_so_and_no_other_error(value):
    broken = [torch.full_like(m, value) for m in maps()]
    label = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    assert not torch.isfinite(head().loss(broken, [drawn([[3, 3, 3, 8, 8, 8]])], label))
