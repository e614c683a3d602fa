"""The prediction of a slab reads nothing behind the plane, and is compared with that slab alone."""

from dataclasses import replace

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.executor import upsample_mask
from medssl.objectives.reconstruction.predictive import Config, Predictive
from tests.objectives.test_contract import SHAPE, crops


def objective(**settings):
    torch.manual_seed(0)
    return Predictive(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


@pytest.mark.parametrize("axis", ["i", "j", "k"])
def test_the_slab_lies_behind_what_is_visible_in_both_directions(axis):
    dim, directions = "ijk".index(axis) + 2, set()
    for seed in range(6):
        mask = objective(axis=axis, seed=seed).prepare(crops(1)).mask
        target = mask.body & ~mask.visible
        for row, slab in zip(mask.visible, target, strict=True):
            others = [n for n in (1, 2, 3) if n != dim - 1]
            seen = row.any(0, keepdim=True).amax(others, keepdim=True).flatten().nonzero().flatten()
            place = slab.amax((0, *others)).nonzero().flatten()
            assert len(place) == 1 and (seen.max() == place - 1 or seen.min() == place + 1)
            directions.add(bool(seen.max() < place))
    assert directions == {True, False}


def test_voxels_behind_the_plane_change_no_prediction_and_only_the_slab_is_compared():
    model = objective()
    batch = model.prepare(crops(1))
    visible, body = (upsample_mask(part, SHAPE) for part in (batch.mask.visible, batch.mask.body))
    x = batch.x[:, 0]
    behind = torch.where(visible, x, torch.nan)[:, None]
    rebuilt = [model.spark.reconstruct(read.flatten(0, 1), batch.mask.visible) for read in (batch.x, behind)]
    assert torch.equal(*rebuilt)
    beyond = torch.where(body | visible, x, 0.9 - 0.5 * x)[:, None]
    assert model.step(replace(batch, x=beyond)).loss == model.step(batch).loss
    in_slab = torch.where(body & ~visible, x.flip(2), x)[:, None]
    assert (model.step(replace(batch, x=in_slab)).loss - model.step(batch).loss).abs() > 1e-4


def test_a_crop_of_air_is_taken_as_a_whole():
    batch = crops(1)
    batch.x[0] = 0.0
    mask = objective().prepare(batch).mask
    assert mask.visible[0].any() and (mask.body & ~mask.visible)[0].any()
    assert objective().step(batch).loss.isfinite()


def test_a_crop_of_one_slab_is_refused():
    with pytest.raises(BadInput, match=r"crop has 4 voxels along k, two slabs need 8; use a larger crop"):
        objective().check_crop(torch.empty(1, 2, 32, 32, 4, device="meta"))
