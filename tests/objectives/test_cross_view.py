"""Cross-view completion: the other crop helps where it is of the same scan, and without it the objective is SparK."""

import dataclasses

import torch
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.cross_view import Config, CrossView
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return CrossView(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_without_another_crop_the_reconstruction_is_that_of_spark():
    cross_view, batch = objective(), crops(2)
    mask = cross_view.spark.require_mask(batch)
    expected = cross_view.spark.reconstruct(batch.x.flatten(0, 1), mask.visible)
    assert (cross_view.reconstruct(batch, mask.visible) - expected).abs().max() > 1e-3
    empty = dataclasses.replace(batch, x=batch.x.clone())
    empty.x[:, 1] = 0
    first, expected = cross_view.reconstruct(empty, mask.visible)[::2], expected[::2]
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)


def test_hidden_voxels_of_a_crop_change_only_what_the_other_crop_reads():
    cross_view, batch = objective(), crops(2)
    mask = cross_view.spark.require_mask(batch)
    visible = F.interpolate(mask.visible.float(), batch.x.shape[3:]) > 0
    changed = torch.where(visible.unflatten(0, (-1, 2)), batch.x, 1 - batch.x)
    changed[:, 1] = batch.x[:, 1]
    other = dataclasses.replace(batch, x=changed)
    before, after = cross_view.reconstruct(batch, mask.visible), cross_view.reconstruct(other, mask.visible)
    torch.testing.assert_close(after[::2], before[::2], rtol=0, atol=1e-5)
    assert (after[1::2] - before[1::2]).abs().max() > 1e-3


def test_the_crops_are_placed_in_mm_of_the_patient():
    cross_view, batch = objective(), crops(2)
    mask = cross_view.spark.require_mask(batch)
    expected = cross_view.reconstruct(batch, mask.visible)
    for shift_mm, is_equal in ((torch.tensor([7.0, 7.0]), True), (torch.tensor([0.0, 7.0]), False)):
        affine = batch.affine.clone()
        affine[:, :, 2, 3] += shift_mm
        moved = cross_view.reconstruct(dataclasses.replace(batch, affine=affine), mask.visible)
        assert torch.allclose(moved, expected, atol=1e-5) == is_equal


def draw_blobs(seed):
    """Returns two equal crops of each of four volumes, in which nothing can be guessed from the neighbourhood."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 0.1 + 0.9 * torch.rand(4, 1, 2, 2, 4, generator=generator)
    x = F.interpolate(coarse, scale_factor=4)[:, None].expand(-1, 2, -1, -1, -1, -1)
    position, size = torch.zeros(4, 2, 3, dtype=torch.int64), torch.tensor([[8, 8, 16]]).expand(4, 3)
    return Crops(x, position, size, torch.eye(4).repeat(4, 2, 1, 1), torch.arange(4))


def test_the_error_falls_with_a_crop_of_the_same_scan_only():
    torch.manual_seed(0)
    cross_view = CrossView(Config(target="raw", depth=1, width=48), ResEncoder((8, 16), (2, 2), (1, 1)))
    optimizer = torch.optim.AdamW(cross_view.parameters(), 3e-3)
    for seed in range(240):
        optimizer.zero_grad()
        cross_view.step(draw_blobs(seed)).loss.backward()
        optimizer.step()
    cross_view.eval()
    batch = draw_blobs(1000)
    mask, shuffled = cross_view.spark.require_mask(batch), batch.x.clone()
    shuffled[:, 1] = batch.x[:, 1].roll(1, 0)
    errors = []
    with torch.no_grad():
        for x in (batch.x, shuffled):
            rebuilt = cross_view.reconstruct(dataclasses.replace(batch, x=x), mask.visible)
            target = batch.reconstruction_target()
            step = cross_view.spark.compute_loss(rebuilt[::2], target[::2], mask.visible[::2], mask.body[::2])
            errors.append(step.loss)
    assert errors[0] < 0.9 * errors[1], errors
