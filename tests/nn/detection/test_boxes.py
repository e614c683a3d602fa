"""Tests boxes and their head against brute force and MONAI, at borders, without lesions and with degenerate boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.box_utils import batched_nms, box_iou, box_pair_giou, clip_boxes_to_image

from medssl.inference.box_ensemble import select_boxes
from medssl.nn.detection.box_head import BoxHead
from medssl.nn.detection.boxes import (
    MAX_LOG_SCALE,
    Boxes,
    decode_offsets,
    encode_offsets,
    find_lesions,
    generate_anchors,
    giou,
)


def random_boxes(seed, count, spread=16.0):
    source = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 3, generator=source) * spread
    return torch.cat([low, low + 0.5 + torch.rand(count, 3, generator=source) * 9], 1)


def make_boxes(corners, label=1):
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
    number, (first, second) = find_lesions(label)
    assert first.corners.tolist() == [[0, 0, 5, 3, 4, 8], [6, 6, 6, 8, 8, 8]]
    assert first.label.tolist() == [1, 2] and len(second.label) == 0
    assert torch.equal(number > 0, label > 0)
    assert [int((number == n).sum()) for n in (1, 2)] == [13, 8]


def test_anchors_lie_about_the_middle_of_their_cells_on_uneven_strides_too():
    (fine,) = generate_anchors((4, 8, 8), [(1, 2, 4)], 2.0)
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
    iou = giou(flat, random_boxes(0, 2))
    iou.sum().backward()
    assert (iou <= 0).all() and torch.isfinite(flat.grad).all() and flat.grad.abs().sum() > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_offsets_reach_any_box_and_zero_offsets_keep_the_anchor(seed):
    anchor, wanted = random_boxes(seed, 5), random_boxes(seed + 1, 5)
    assert torch.allclose(decode_offsets(anchor, torch.zeros(5, 6)), anchor, atol=1e-5)
    side, aim = anchor[:, 3:] - anchor[:, :3], wanted[:, 3:] - wanted[:, :3]
    shift = (wanted[:, :3] + aim / 2 - anchor[:, :3] - side / 2) / side
    offsets = torch.cat([shift, (aim / side).log()], 1)
    assert torch.allclose(encode_offsets(anchor, wanted), offsets, atol=1e-5)
    assert torch.allclose(decode_offsets(anchor, offsets), wanted, atol=1e-4)


def atss(boxes, all_anchors, counts, nearest=4):
    """Zhang et al. 2020, Algorithm 1, in loops."""
    middle = (all_anchors[:, :3] + all_anchors[:, 3:]) / 2
    best = torch.full((len(all_anchors),), -1.0)
    matched = torch.full((len(all_anchors),), -1)
    for number, box in enumerate(boxes):
        distance = (middle - (box[:3] + box[3:]) / 2).norm(dim=1)
        nearest_anchors, start = [], 0
        for count in counts:
            nearest_anchors += (distance[start : start + count].argsort()[: min(nearest, count)] + start).tolist()
            start += count
        overlap = box_iou(box[None], all_anchors[nearest_anchors])[0]
        for index, iou in zip(nearest_anchors, overlap, strict=True):
            if iou >= overlap.mean() + overlap.std() and iou > best[index]:
                best[index], matched[index] = iou, number
    return matched


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_matcher_is_the_published_algorithm(seed, count):
    levels = generate_anchors((16, 16, 16), [(2, 2, 2), (4, 4, 4)], 3.0)
    boxes = random_boxes(seed, count, 7.0)
    counts = [len(level) for level in levels]
    _, matched = head().match(boxes, torch.cat(levels), counts, 1)
    assert torch.equal(matched, atss(boxes, torch.cat(levels), counts))


def test_every_lesion_is_learnt_by_some_anchor_however_small_or_near_the_border():
    levels = generate_anchors((16, 16, 16), [(2, 2, 2), (4, 4, 4)], 3.0)
    boxes = torch.tensor([[0.0, 0, 0, 1, 1, 1], [13, 13, 13, 16, 16, 16], [5, 5, 5, 8, 8, 8]])
    matched = head().match_anchors(boxes, torch.cat(levels), [len(level) for level in levels])
    assert {0, 1, 2} <= set(matched.tolist())


def test_a_crop_without_lesions_scores_the_hardest_anchors_only():
    box_head, label = head(), torch.zeros(1, 16, 16, 16, dtype=torch.long)
    logits, _ = box_head(maps())
    worst = logits[0, :, 0].topk(16).values
    loss = box_head.loss(maps(), [make_boxes([])], label)
    assert torch.allclose(loss, torch.nn.functional.softplus(worst).mean(), atol=1e-5)


def test_unknown_voxels_do_not_change_the_loss():
    box_head, label = head(), torch.full((1, 16, 16, 16), -1)
    assert box_head.loss(maps(), [make_boxes([])], label) == 0


def test_the_loss_has_a_gradient_everywhere_and_many_classes():
    box_head, label = head(classes=4), torch.zeros(2, 16, 16, 16, dtype=torch.long)
    truth = [make_boxes([[3, 3, 3, 8, 8, 8], [1, 1, 1, 14, 14, 14]], 3), make_boxes([])]
    box_head.loss(maps(batch=2), truth, label).backward()
    assert [name for name, p in box_head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("log_scale", [MAX_LOG_SCALE + 1, 20.0])
def test_a_head_whose_boxes_are_far_too_large_recovers(log_scale):
    """The GIoU alone has no gradient there: boxes of nodules grew as large as the scan and stayed so."""
    box_head, label = head(), torch.zeros(1, 16, 16, 16, dtype=torch.long)
    last = box_head.place[-1]
    with torch.no_grad():
        last.bias[3:] = log_scale
    optimizer = torch.optim.SGD([last.bias], 1.0)
    for _ in range(60):
        optimizer.zero_grad()
        box_head.loss(maps(), [make_boxes([[3, 3, 3, 8, 8, 8]])], label).backward()
        optimizer.step()
    assert (last.bias[3:].abs() < 1.5).all()


def predict_boxes(box_head, levels):
    """Returns the boxes of one crop of 16 voxels a side."""
    scores, corners = box_head.predict_boxes(levels, (16, 16, 16))
    return select_boxes(scores[0].detach().numpy(), corners[0].detach().numpy(), (16, 16, 16), 0.05)


def test_predicted_boxes_lie_inside_the_crop_without_duplicates():
    box_head = head(classes=3)
    for p in box_head.parameters():
        torch.nn.init.normal_(p, std=0.3)
    boxes = predict_boxes(box_head, maps(3))
    low, high = boxes.corners[:, :3], boxes.corners[:, 3:]
    assert len(low) > 3 and (low >= 0).all() and (high <= 16).all() and (high - low >= 1).all()
    assert (np.diff(boxes.score) <= 0).all() and boxes.score.min() >= 0.05
    for label in np.unique(boxes.label):
        same_class = torch.from_numpy(boxes.corners[boxes.label == label])
        assert (box_iou(same_class, same_class).fill_diagonal_(0) <= 0.22).all()


def test_selected_boxes_are_those_of_monai():
    random = np.random.default_rng(0)
    low = random.uniform(-2, 14, (300, 3))
    corners = np.concatenate([low, low + random.uniform(0.2, 8, (300, 3))], 1).astype(np.float32)
    scores = random.random((300, 2)).astype(np.float32)
    boxes = select_boxes(scores, corners, (16, 16, 16), 0.3)
    score, index = torch.from_numpy(scores).flatten().topk(100)
    clipped, is_inside = clip_boxes_to_image(torch.from_numpy(corners)[index // 2], (16, 16, 16))
    score, label = score[is_inside], (index % 2 + 1)[is_inside]
    kept = batched_nms(clipped, score, label, 0.22)
    assert 10 < len(kept) < 100
    assert np.allclose(boxes.corners, clipped[kept]) and np.allclose(boxes.score, score[kept])
    assert np.array_equal(boxes.label, label[kept])


def test_an_untrained_head_predicts_no_boxes():
    boxes = predict_boxes(head(), maps())
    assert len(boxes.label) == 0
    assert boxes.corners.shape == (0, 6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_input_gives_a_non_finite_loss_and_no_error(value):
    broken = [torch.full_like(m, value) for m in maps()]
    label = torch.zeros(1, 16, 16, 16, dtype=torch.long)
    assert not torch.isfinite(head().loss(broken, [make_boxes([[3, 3, 3, 8, 8, 8]])], label))
