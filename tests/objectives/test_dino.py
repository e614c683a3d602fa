"""DINO: students see neither hidden patches nor targets, and targets stay in balanced use."""

import pytest
import torch
from torch.nn import functional as F

from medssl.data.transforms.patch_mask import PatchMask
from medssl.nn.encoder import ResEncoder
from medssl.nn.self_supervision.prototypes import assign_equally, compute_divergence, spread_loss
from medssl.objectives.distillation.dino import Config, Dino, pool_cells
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return Dino(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_hidden_voxels_change_no_prediction_but_the_targets():
    dino, x = objective(), crops(2).x.flatten(0, 1)
    visible, body = dino.sample_mask(x)
    mask = PatchMask(visible, body, int(visible.sum()))
    other = torch.where(F.interpolate(visible.float(), x.shape[2:]) > 0, x, x.flip(2))
    affine = torch.eye(4).expand(len(x), 1, 4, 4)
    tokens, tokens_again = dino.encode_visible(x, mask), dino.encode_visible(other, mask)
    predicted, again = (dino.predict(read, visible, affine) for read in (tokens, tokens_again))
    torch.testing.assert_close((tokens_again, again), (tokens, predicted), rtol=0, atol=1e-6)
    hidden = (body & ~visible).flatten(1)
    targets, patches, *_ = dino.compute_targets(x, hidden)
    changed, changed_patches, *_ = dino.compute_targets(other, hidden)
    assert (targets - changed).abs().max() > 1e-3 and (patches - changed_patches).abs().max() > 1e-3
    assert (patches[~hidden] == 0).all()


def test_patches_use_all_prototypes_equally():
    similarity = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) + torch.eye(8)[0]
    where = torch.arange(64) < 48
    p = assign_equally(similarity, where, 0.5)
    torch.testing.assert_close(p.sum(1), where.float())
    torch.testing.assert_close(p.sum(0), torch.full((8,), 6.0), rtol=0.05, atol=0)
    torch.testing.assert_close(assign_equally(similarity.masked_fill(~where[:, None], -1), where, 0.5), p)
    softmax = (similarity[:48] / 0.5).softmax(1)
    assert softmax.sum(0)[0] > 12  # without the balance, one prototype takes more than twice its share


def test_centring_keeps_the_targets_of_crops_in_balanced_use():
    dino, batch = objective(teacher_temperature=0.02), crops(2)
    x = batch.x.flatten(0, 1)
    hidden = torch.zeros(len(x), 4 * 4 * 6, dtype=torch.bool)
    entropies = []
    for _ in range(40):
        targets, *_ = dino.compute_targets(x, hidden)
        entropies.append(torch.special.entr(targets.mean(0)).sum())
    assert entropies[-1] > entropies[0] + 0.5
    before = dino.centre.clone()
    dino.eval().compute_targets(x, hidden)
    assert torch.equal(dino.centre, before)


def test_a_student_that_equals_its_teacher_has_no_divergence():
    similarity = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    target = (similarity / 0.1).softmax(1)
    assert compute_divergence(target, similarity, 0.1).abs().max() < 1e-5
    assert (compute_divergence(target, similarity.flip(1), 0.1) > 0.1).all()


def test_volumes_spread_and_crops_of_one_volume_may_stay_together():
    near, far = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    two, one = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert spread_loss(near, two) > spread_loss(far, two) > spread_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), two)
    assert spread_loss(near, one) == 0
    pair = torch.cat([far, far])
    assert spread_loss(pair, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(spread_loss(far, two).item())


def test_a_local_crop_is_a_part_of_its_crop():
    dino = objective(local_fraction=0.8)
    place = torch.stack(torch.meshgrid(*[torch.arange(n) for n in (16, 16, 24)], indexing="ij")).float()
    local = dino.cut_local(place.expand(3, -1, -1, -1, -1), torch.Generator().manual_seed(0))
    assert local.shape == (3, 3, 12, 12, 20)
    assert ((local - local[..., :1, :1, :1]) == place[:, :12, :12, :20]).all()
    assert len({tuple(crop[:, 0, 0, 0].tolist()) for crop in local}) > 1


def test_pooling_reads_visible_cells_only():
    tokens, where = torch.tensor([[[1.0], [5.0], [9.0]]]), torch.tensor([[True, True, False]])
    assert pool_cells(tokens, where).tolist() == [[3.0, 5.0]]


def test_instances_are_compared_with_the_other_whole_crop_and_follow_the_student():
    without, dino = objective().step(crops(2)), objective(instance_weight=0.5)
    step = dino.step(crops(2))
    assert without.logs["instances"] == 0 and step.logs["instances"] > 0
    weights = torch.tensor([1.0, 1.0, 0.1, 0.5])
    parts = torch.stack([step.logs[name] for name in ("crops", "patches", "spread", "instances")])
    torch.testing.assert_close(step.loss.detach(), (weights * parts).sum())
    step.loss.backward()
    assert all(weight.grad is not None for weight in dino.instances.parameters())
    before = [weight.clone() for weight in dino.teacher[3].parameters()]
    with torch.no_grad():
        for weight in dino.instances.parameters():
            weight.add_(1)
    dino.after_step()
    assert all((new - old).min() > 0.009 for old, new in zip(before, dino.teacher[3].parameters(), strict=True))
