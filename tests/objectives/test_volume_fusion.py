"""VolumeFusion: the mixture is exact in every voxel, and the levels are what was mixed."""

import pytest
import torch
from pydantic import ValidationError

from medssl.nn.encoder import ResEncoder
from medssl.objectives.synthesis.volume_fusion import Config, VolumeFusion
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return VolumeFusion(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_a_voxel_is_the_mean_of_both_crops_weighted_by_its_level(num_steps):
    x = crops(2).x.flatten(0, 1)
    mixed, level = objective(num_steps=num_steps).fuse(x, x, torch.Generator().manual_seed(3))
    assert set(level.unique().tolist()) == set(range(num_steps + 1))
    shifts = [n for n in range(1, len(x)) if torch.equal(mixed[:, 0][level == num_steps],
                                                         x.roll(n, 0)[:, 0][level == num_steps])]  # fmt: skip
    assert len(shifts) == 1  # the highest level is a copy of another crop
    fraction = (level / num_steps)[:, None]
    torch.testing.assert_close(mixed, (1 - fraction) * x + fraction * x.roll(shifts[0], 0))
    assert torch.equal(mixed[:, 1][level == 0], x[:, 1][level == 0])


def test_one_volume_is_mixed_with_its_own_second_crop():
    batch = crops(2)
    x = batch.x[:1].flatten(0, 1)
    mixed, level = objective().fuse(x, x, torch.Generator().manual_seed(0))
    assert not torch.equal(mixed, x) and (level > 0).any()


def test_boxes_keep_their_sides():
    fusion = objective(num_boxes=(1, 1), side_fractions=(0.25, 0.5))
    for seed in range(20):
        level = fusion.draw_levels((16, 16, 24), torch.Generator().manual_seed(seed))
        for axis, voxels in enumerate(level.shape):
            side = (level > 0).movedim(axis, 0).flatten(1).any(1).sum()
            assert 0.25 * voxels <= side <= 0.5 * voxels


@pytest.mark.parametrize("settings", [{"num_boxes": (4, 2)}, {"num_boxes": (0, 2)}, {"side_fractions": (0.5, 0.2)},
                                      {"side_fractions": (0.0, 0.2)}, {"num_steps": 0}])  # fmt: skip
def test_ranges_that_go_backwards_are_refused(settings):
    with pytest.raises(ValidationError):
        Config(**settings)
