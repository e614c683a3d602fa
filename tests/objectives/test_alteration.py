"""Alterations touch the slabs and the frequencies that they name, and copying has a loss of 1."""

import torch

from medssl.data.transforms.corruption import drop_band, replace_slabs
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.alteration import Alteration, Config
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return Alteration(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def frequency(shape):
    axes = torch.meshgrid(*[torch.fft.fftfreq(n) for n in shape], indexing="ij")
    return torch.stack(axes).norm(dim=0) / 0.75**0.5


def test_a_band_is_removed_and_all_other_frequencies_stay():
    x, width = noise(2, 16, 12, 8), 0.2
    for seed in range(10):
        y = drop_band(x, width, torch.Generator().manual_seed(seed))
        before, after = torch.fft.fftn(x, dim=(1, 2, 3)), torch.fft.fftn(y, dim=(1, 2, 3))
        is_changed = ((before - after).abs() > 1e-3).any(0)
        radius = frequency(x.shape[1:])
        inside = radius[is_changed]
        assert len(inside) and inside.max() - inside.min() <= width and after[:, is_changed].abs().max() < 1e-3
        torch.testing.assert_close(after[:, ~is_changed], before[:, ~is_changed], rtol=0, atol=1e-3)
        assert not is_changed[0, 0, 0]  # the mean
    y = drop_band(x, 1.0, torch.Generator().manual_seed(0))  # all frequencies but the mean
    torch.testing.assert_close(y, x.mean((1, 2, 3), keepdim=True).expand_as(x))


def test_slabs_are_whole_and_the_other_slices_stay():
    x = 0.5 + noise(2, 16, 12, 20)
    axes = set()
    for seed in range(20):
        y, touched = replace_slabs(x, 3, 0.4, torch.Generator().manual_seed(seed))
        assert torch.equal(y[:, ~touched], x[:, ~touched])
        for axis in range(3):
            others = [n for n in range(3) if n != axis]
            slices = touched.any(others[1]).any(others[0])
            if torch.equal(slices.view([-1 if n == axis else 1 for n in range(3)]).expand_as(touched), touched):
                axes.add(axis)
                assert 3 <= slices.sum() <= 0.4 * len(slices) + 3
    assert axes == {0, 1, 2}


def test_copying_has_a_loss_of_1_and_the_true_crop_has_none():
    model, batch = objective(), crops(1)
    model.restore = lambda altered: altered
    torch.testing.assert_close(model.step(batch).loss, torch.tensor(1.0))
    model.restore = lambda altered: batch.x[:, 0]
    assert model.step(batch).loss == 0


def test_without_alterations_nothing_changes():
    x = crops(1).x[:, 0]
    assert torch.equal(objective(slab_fraction=0.0, band_fraction=0.0, noise=0.0).alter(x), x)
    for change in ({"slab_fraction": 0.3}, {"band_fraction": 0.3}, {"noise": 0.1}):
        unchanged = {"slab_fraction": 0.0, "band_fraction": 0.0, "noise": 0.0}
        assert not torch.equal(objective(**unchanged | change).alter(x), x)
