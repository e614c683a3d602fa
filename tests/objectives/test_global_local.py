"""Tests positive and negative pairs of crops and regions, the queue, and what each stage trains."""

import dataclasses

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.self_supervision.contrastive_loss import match_regions
from medssl.objectives.contrastive import global_local
from medssl.objectives.contrastive.global_local import Config, GlobalLocal

SIZE = torch.tensor([[16, 16, 64]])


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2))


def crops(volumes, heights, views=1):
    """Returns crops of noise from scans with the same field of view, cut at the given heights."""
    b = len(volumes)
    corner = torch.zeros(b, views, 3, dtype=torch.long)
    corner[..., 2] = torch.tensor(heights).reshape(b, views)
    affine = torch.eye(4).repeat(b, views, 1, 1)
    affine[..., :3, 3] = corner.float()
    x = torch.rand(b, views, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return Crops(x, corner, SIZE.expand(b, 3), affine, torch.tensor(volumes))


def record_masks(monkeypatch, objective, batch):
    """Returns the masks of positives and negatives of each contrastive loss in a step."""
    masks = []
    original = global_local.contrastive_loss

    def spy(q, k, positive, ignore, temperature, mixed=None):
        masks.append((positive, ~positive & ~ignore))
        return original(q, k, positive, ignore, temperature, mixed)

    monkeypatch.setattr(global_local, "contrastive_loss", spy)
    objective.step(batch)
    return masks


def objective(**settings):
    return GlobalLocal(Config(**settings), encoder())


@pytest.mark.parametrize(("pairs", "attracts", "repels"), [("GR", 0, 3), ("GD-", 0, 2), ("GD", 1, 2)])
def test_partitions_decide_across_scans(monkeypatch, pairs, attracts, repels):
    batch = crops([1, 2, 3, 4], [0, 4, 24, 48])
    (paired, negative), (across, _) = record_masks(monkeypatch, objective(pairs=pairs, stage="global"), batch)
    assert paired.sum(1).tolist() == [1] * 8
    assert across[0].sum() == 2 * attracts and negative[0].sum() == 2 * repels
    assert paired[0, 4] and not (paired & across).any() and not (paired & negative).any()


def test_crops_of_one_scan_and_empty_rows_of_the_queue_are_never_negatives(monkeypatch):
    model = objective(pairs="GR", stage="global", num_views=2, queue_size=32)
    model.step(crops([1, 2], [0, 40, 0, 40], views=2))
    (_, negative), *_ = record_masks(monkeypatch, model, crops([1, 3], [0, 40, 0, 40], views=2))
    rows = torch.tensor([1, 1, 3, 3] * 2)
    columns = torch.cat([rows, torch.tensor([1, 1, 2, 2] * 2)])
    assert negative.shape == (8, 16), "only rows of the queue that were pushed are keys"
    assert torch.equal(negative, rows[:, None] != columns)


def test_a_negative_of_the_same_scan_is_refused(monkeypatch):
    monkeypatch.setattr(
        global_local, "positive_and_ignored_pairs", lambda a, b, *args: (torch.zeros(4, 4, dtype=torch.bool),) * 2
    )
    with pytest.raises(AssertionError, match="same scan"):
        objective(stage="global", num_views=2).step(crops([1], [0, 40], views=2))


def test_scans_with_different_fields_of_view_have_no_positives(monkeypatch):
    batch = crops([1, 2], [0, 0])
    longer = dataclasses.replace(batch, size=torch.tensor([[16, 16, 64], [16, 16, 200]]))
    (_, _), (across, _) = record_masks(monkeypatch, objective(stage="global"), longer)
    assert not across.any()
    assert objective(stage="global").step(longer).logs["comparable"] == 0.5


def test_the_same_region_of_the_other_view_is_positive_and_overlapping_ones_are_ignored():
    disjoint = torch.tensor([[[False, True, False], [True, False, True], [False, True, False]]])
    valid = torch.tensor([[[True] * 3, [True] * 3, [True, False, True]]])
    positive, ignore = match_regions(valid, disjoint)
    assert positive[0, 0].nonzero().flatten().tolist() == [3, 6]
    assert (~positive & ~ignore)[0, 0].nonzero().flatten().tolist() == [1, 4]
    assert ignore[0, 7].all() and not positive[0, 7].any(), "a region that is not valid is ignored"


def test_regions_are_compared_at_the_same_mm_of_shifted_views(monkeypatch):
    model = objective(stage="local", num_views=2, num_regions=4, region_size=1, level=0)
    sampled_points = []
    original = global_local.sample_features
    monkeypatch.setattr(
        global_local, "sample_features", lambda f, p, *args: sampled_points.append(p) or original(f, p, *args)
    )
    batch = crops([1, 2], [0, 6, 10, 10], views=2)
    model.step(batch)
    first_points, second_points = (p.unflatten(0, (2, 2)) for p in sampled_points)
    assert torch.allclose(first_points[0, 0, :, 2], second_points[0, 0, :, 2] + 6, atol=1e-4)
    assert torch.allclose(first_points[0, 1, :, 2] + 6, second_points[0, 1, :, 2], atol=1e-4)
    assert torch.allclose(first_points[1], second_points[1], atol=1e-4)


def test_views_without_overlap_fall_back_to_two_views_of_one_crop(monkeypatch):
    model = objective(stage="local", num_views=2, num_regions=4)
    sampled_points = []
    original = global_local.sample_features
    monkeypatch.setattr(
        global_local, "sample_features", lambda f, p, *args: sampled_points.append(p) or original(f, p, *args)
    )
    model.step(crops([1], [0, 40], views=2))
    assert torch.equal(sampled_points[0], sampled_points[1])


def test_corresponding_regions_have_the_same_relative_position_in_another_scan():
    batch = crops([1, 2, 3], [0, 4, 48])
    wider = dataclasses.replace(batch, affine=batch.affine @ torch.diag(torch.tensor([1.0, 1.1, 1.0, 1.0])))
    points = torch.tensor([[[3.0, 5.0, 8.0], [3.0, 5.0, 1.0]]] * 3)
    scan, mapped, covered = objective(region_pairs="LD").find_corresponding_points(wider, points)
    assert scan[:2].tolist() == [1, 0]
    assert torch.allclose(mapped[0], torch.tensor([[3.0, 5, 4], [3, 5, -3]]), atol=1e-4)
    assert covered[0].tolist() == [True, False] and not covered[2].any()


@pytest.mark.parametrize("stage", ["joint", "global", "local"])
def test_each_stage_trains_its_own_part(stage):
    model = objective(stage=stage)
    model.step(crops([1, 2, 3], [0, 24, 48])).loss.backward()
    model.after_step()
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {
        "joint": {"encoder", "head", "decoder", "part"},
        "global": {"encoder", "head"},
        "local": {"decoder", "part"},
    }
    assert trained == expected[stage]
    assert ("decoder" in model.transferable()) == (stage != "global")


def test_keys_follow_the_encoder_and_are_not_trained():
    model = objective(stage="global", momentum=0.9)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1)
    before = [p.clone() for p in model.key.parameters()]
    model.after_step()
    weights = [*model.encoder.parameters(), *model.head.parameters()]
    for slow, old, new in zip(model.key.parameters(), before, weights, strict=True):
        assert torch.allclose(slow, 0.9 * old + 0.1 * new, atol=1e-6) and not slow.requires_grad


def test_without_momentum_the_batch_is_its_own_keys_with_gradients():
    model = objective(stage="global", momentum=None, queue_size=0)
    assert not hasattr(model, "key")
    model.step(crops([1, 2, 3], [0, 24, 48])).loss.backward()
    with pytest.raises(BadInput, match="queue"):
        config.check({"momentum": None}, Config, "run.yaml")


def test_a_level_the_encoder_lacks_is_refused():
    with pytest.raises(BadInput, match="levels 0"):
        objective(level=3)


def test_negatives_of_other_scans_alone_are_mixed(monkeypatch):
    batch, ingredients = crops([1, 1, 2, 3], [0, 40, 0, 40]), []
    original = global_local.mix_hard_negatives

    def spy(q, k, negative, count, generator):
        ingredients.append(negative)
        return original(q, k, negative, count, generator)

    monkeypatch.setattr(global_local, "mix_hard_negatives", spy)
    losses = [objective(pairs="GR", stage="global", num_mixed=n).step(batch).logs["own"] for n in (0, 9)]
    assert losses[1] > losses[0] and len(ingredients) == 1
    scan = torch.tensor([1, 1, 2, 3] * 2)
    assert torch.equal(ingredients[0], scan[:, None] != scan)


def test_a_negative_number_of_mixtures_is_refused():
    with pytest.raises(BadInput, match="num_mixed"):
        config.check({"num_mixed": -1}, Config, "run.yaml")


def test_either_loss_trains_crops_and_regions_on_the_same_pairs():
    batch = crops([1, 2, 3, 4], [0, 4, 24, 48])
    steps = {loss: objective(loss=loss).step(batch) for loss in ("infonce", "sorting")}
    for name in ("own", "across", "local"):
        assert steps["sorting"].logs[name] > 0 and steps["sorting"].logs[name] != steps["infonce"].logs[name]
    assert steps["sorting"].logs["negatives"] == steps["infonce"].logs["negatives"]
    sorting = objective(loss="sorting")
    sorting.step(batch).loss.backward()
    for part in (sorting.encoder, sorting.head, sorting.part):
        assert all(weight.grad.isfinite().all() and weight.grad.abs().sum() > 0 for weight in part.parameters())
    assert objective(loss="sorting", steepness=1.0).step(batch).loss != steps["sorting"].loss


def test_overlapping_crops_share_their_positives_of_other_scans(monkeypatch):
    """Crops of partitions 0 and 1 of scan 1 overlap, those of partitions 0 and 3 of scan 2 do not."""
    batch = crops([1, 2, 3], [4, 10, 0, 48, 12, 14], views=2)
    settings = {"stage": "global", "num_views": 2, "queue_size": 0}
    masks = {t: record_masks(monkeypatch, objective(transitive=t, **settings), batch) for t in (False, True)}
    plain, extended = (masks[t][1][0][:6, :6] for t in (False, True))
    assert plain.nonzero().tolist() == [[0, 2], [1, 4], [1, 5], [2, 0], [4, 1], [5, 1]]
    assert (extended & ~plain).nonzero().tolist() == [[0, 4], [0, 5], [1, 2], [2, 1], [4, 0], [5, 0]]
    assert not masks[True][0][1][1, 2] and masks[False][0][1][1, 2], "a negative before"
    longer = dataclasses.replace(batch, size=torch.tensor([[16, 16, 64], [16, 16, 200], [16, 16, 64]]))
    (_, _), (positive, _) = record_masks(monkeypatch, objective(transitive=True, **settings), longer)
    assert not positive[:, [2, 3, 8, 9]].any(), "scans with different fields of view have no positives"


def test_a_look_ends_with_its_step(monkeypatch):
    model = objective(stage="global", num_views=2, queue_size=64, transitive=True)
    model.step(crops([1, 2], [4, 10, 20, 44], views=2))
    (_, _), (positive, _) = record_masks(monkeypatch, model, crops([3, 1], [0, 48, 4, 20], views=2))
    assert positive[0, 8:12].tolist() == [True, True, False, False], "a queued look has its positives"
    assert positive[3, 8:12].tolist() == [False, False, True, False], "crops of another step are another look"


def test_transitive_positives_need_two_crops_of_each_scan():
    for settings in ({}, {"num_views": 2, "pairs": "GR"}):
        with pytest.raises(BadInput, match="set pairs=GD num_views=2"):
            config.check({"transitive": True, **settings}, Config, "run.yaml")
