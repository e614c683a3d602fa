"""Which crops and regions attract and repel, what the queue remembers, and which stage trains what."""

import dataclasses

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives import global_local
from medssl.objectives.global_local import Config, GlobalLocal, same_region

SIZE = torch.tensor([[16, 16, 64]])


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2))


def crops(volumes, ups, views=1):
    """Crops of scans with one field of view, cut at given heights of noise."""
    b = len(volumes)
    corner = torch.zeros(b, views, 3, dtype=torch.long)
    corner[..., 2] = torch.tensor(ups).reshape(b, views)
    affine = torch.eye(4).repeat(b, views, 1, 1)
    affine[..., :3, 3] = corner.float()
    x = torch.rand(b, views, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    return Crops(x, corner, SIZE.expand(b, 3), affine, torch.tensor(volumes))


def relations(monkeypatch, objective, batch):
    """The own and the across matrices of positives and of negatives that a step scores."""
    seen = []
    plain = global_local.contrast

    def spy(q, k, positive, ignore, temperature):
        seen.append((positive, ~positive & ~ignore))
        return plain(q, k, positive, ignore, temperature)

    monkeypatch.setattr(global_local, "contrast", spy)
    objective.step(batch)
    return seen


def objective(**settings):
    return GlobalLocal(Config(**settings), encoder())


@pytest.mark.parametrize(("pairs", "attracts", "repels"), [("GR", 0, 3), ("GD-", 0, 2), ("GD", 1, 2)])
def test_partitions_decide_across_scans(monkeypatch, pairs, attracts, repels):
    batch = crops([1, 2, 3, 4], [0, 4, 24, 48])
    (own, negative), (across, _) = relations(monkeypatch, objective(pairs=pairs, stage="global"), batch)
    assert own.sum(1).tolist() == [1] * 8
    assert across[0].sum() == 2 * attracts and negative[0].sum() == 2 * repels
    assert own[0, 4] and not (own & across).any() and not (own & negative).any()


def test_crops_of_one_scan_and_blanks_of_the_queue_are_never_negatives(monkeypatch):
    learner = objective(pairs="GR", stage="global", views=2, queue=32)
    learner.step(crops([1, 2], [0, 40, 0, 40], views=2))
    (_, negative), *_ = relations(monkeypatch, learner, crops([1, 3], [0, 40, 0, 40], views=2))
    rows = torch.tensor([1, 1, 3, 3] * 2)
    columns = torch.cat([rows, torch.tensor([1, 1, 2, 2] * 2)])
    assert negative.shape == (8, 16), "only pushed rows of the queue are looked at"
    assert torch.equal(negative, rows[:, None] != columns)


def test_a_negative_of_the_same_scan_is_refused(monkeypatch):
    monkeypatch.setattr(global_local, "relate", lambda a, b, *rest: (torch.zeros(4, 4, dtype=torch.bool),) * 2)
    with pytest.raises(AssertionError, match="same scan"):
        objective(stage="global", views=2).step(crops([1], [0, 40], views=2))


def test_where_fields_of_view_differ_nothing_attracts(monkeypatch):
    batch = crops([1, 2], [0, 0])
    longer = dataclasses.replace(batch, size=torch.tensor([[16, 16, 64], [16, 16, 200]]))
    (_, _), (across, _) = relations(monkeypatch, objective(stage="global"), longer)
    assert not across.any()
    assert objective(stage="global").step(longer).logs["comparable"] == 0.5


def test_the_same_region_of_the_other_look_attracts_and_overlapping_ones_are_left_out():
    apart = torch.tensor([[[False, True, False], [True, False, True], [False, True, False]]])
    known = torch.tensor([[[True] * 3, [True] * 3, [True, False, True]]])
    positive, ignore = same_region(known, apart)
    assert positive[0, 0].nonzero().flatten().tolist() == [3, 6]
    assert (~positive & ~ignore)[0, 0].nonzero().flatten().tolist() == [1, 4]
    assert ignore[0, 7].all() and not positive[0, 7].any(), "a region that is not known takes no part"


def test_regions_are_compared_at_the_same_mm_of_shifted_views(monkeypatch):
    learner = objective(stage="local", views=2, regions=4, region=1, level=0)
    taken = []
    plain = global_local.sample
    monkeypatch.setattr(global_local, "sample", lambda f, at, *rest: taken.append(at) or plain(f, at, *rest))
    batch = crops([1, 2], [0, 6, 10, 10], views=2)
    learner.step(batch)
    here, there = (at.unflatten(0, (2, 2)) for at in taken)
    assert torch.allclose(here[0, 0, :, 2], there[0, 0, :, 2] + 6, atol=1e-4)
    assert torch.allclose(here[0, 1, :, 2] + 6, there[0, 1, :, 2], atol=1e-4)
    assert torch.allclose(here[1], there[1], atol=1e-4)


def test_views_without_overlap_fall_back_to_two_looks_at_one_crop(monkeypatch):
    learner = objective(stage="local", views=2, regions=4)
    taken = []
    plain = global_local.sample
    monkeypatch.setattr(global_local, "sample", lambda f, at, *rest: taken.append(at) or plain(f, at, *rest))
    learner.step(crops([1], [0, 40], views=2))
    assert torch.equal(taken[0], taken[1])


def test_corresponding_regions_lie_at_the_same_share_of_another_scan():
    batch = crops([1, 2, 3], [0, 4, 48])
    wider = dataclasses.replace(batch, affine=batch.affine @ torch.diag(torch.tensor([1.0, 1.1, 1.0, 1.0])))
    points = torch.tensor([[[3.0, 5.0, 8.0], [3.0, 5.0, 1.0]]] * 3)
    scan, at, covered = objective(regions_of="LD").corresponding(wider, points)
    assert scan[:2].tolist() == [1, 0]
    assert torch.allclose(at[0], torch.tensor([[3.0, 5, 4], [3, 5, -3]]), atol=1e-4)
    assert covered[0].tolist() == [True, False] and not covered[2].any()


@pytest.mark.parametrize("stage", ["joint", "global", "local"])
def test_each_stage_trains_its_own_part(stage):
    learner = objective(stage=stage)
    learner.step(crops([1, 2, 3], [0, 24, 48])).loss.backward()
    learner.after_step()
    reached = {n.split(".")[0] for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    expected = {
        "joint": {"encoder", "head", "decoder", "part"},
        "global": {"encoder", "head"},
        "local": {"decoder", "part"},
    }
    assert reached == expected[stage]
    assert ("decoder" in learner.transferable()) == (stage != "global")


def test_keys_follow_the_encoder_and_are_not_trained():
    learner = objective(stage="global", momentum=0.5)
    with torch.no_grad():
        for p in learner.encoder.parameters():
            p.add_(1)
    before = [p.clone() for p in learner.key.parameters()]
    learner.after_step()
    weights = [*learner.encoder.parameters(), *learner.head.parameters()]
    for slow, old, new in zip(learner.key.parameters(), before, weights, strict=True):
        assert torch.allclose(slow, (old + new) / 2, atol=1e-6) and not slow.requires_grad


def test_without_momentum_the_batch_is_its_own_keys_with_gradients():
    learner = objective(stage="global", momentum=None, queue=0)
    assert not hasattr(learner, "key")
    learner.step(crops([1, 2, 3], [0, 24, 48])).loss.backward()
    with pytest.raises(BadInput, match="queue"):
        config.check({"momentum": None}, Config, "run.yaml")


def test_a_level_the_encoder_lacks_is_refused():
    with pytest.raises(BadInput, match="levels 0"):
        objective(level=3)
