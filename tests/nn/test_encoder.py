"""Tests that a masked encoder fulfils its contract, and that planted faults break it."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl import config
from medssl.errors import BadInput
from medssl.nn.encoder import EncoderConfig, ResEncoder, build_encoder
from medssl.nn.encoders import base as encoders
from medssl.nn.executor import Executor, MaskedExecutor, upsample_mask
from medssl.nn.norms import Moments, apply_scale_shift, compute_moments, compute_scale_shift
from tests.helpers.small_networks import CASES, KINDS, make_encoder, masked_volumes


def check_hidden_voxels_have_no_effect(net):
    x, visible = masked_volumes(net)
    voxel_mask = upsample_mask(visible, tuple(x.shape[2:]))
    other = torch.where(voxel_mask, x, torch.full_like(x, float("nan")))
    for a, b in zip(net(x, visible), net(other, visible), strict=True):
        assert (a - b).abs().max() == 0


def check_hidden_patches_are_zero_at_every_level(net):
    x, visible = masked_volumes(net)
    for level in net(x, visible):
        assert torch.equal((level != 0).any(1, keepdim=True), upsample_mask(visible, tuple(level.shape[2:])))


def check_hidden_surroundings_have_no_effect(net):
    """A hidden rim must act like zero padding at the border; a norm that counts it changes the features."""
    x, visible = masked_volumes(net)
    i, j, k = net.patch
    wide = net(F.pad(x, (k, 0, 0, 2 * j, i, i), value=7.0), F.pad(visible, (1, 0, 0, 2, 1, 1)))
    for a, b in zip(net(x, visible), wide, strict=True):
        voxel_mask = upsample_mask(visible, tuple(a.shape[2:]))
        p, q, r = (n // g for n, g in zip(a.shape[2:], visible.shape[2:], strict=True))
        inner = b[:, :, p:-p, : -2 * q, r:]
        assert torch.allclose(a[voxel_mask.expand_as(a)], inner[voxel_mask.expand_as(a)], atol=2e-5)


def check_all_visible_equals_the_plain_network(net):
    x, visible = masked_volumes(net.double())
    for a, b in zip(net(x.double(), torch.ones_like(visible)), net(x.double()), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


CONTRACTS = (
    check_hidden_voxels_have_no_effect,
    check_hidden_patches_are_zero_at_every_level,
    check_hidden_surroundings_have_no_effect,
    check_all_visible_equals_the_plain_network,
)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(("kind", "norm", "strides"), CASES)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "blocks"])
def test_a_masked_network_fulfils_its_contract(dense, kind, norm, strides, contract):
    contract(make_encoder(norm, strides, dense=dense, kind=kind))


class InputUnmasked(MaskedExecutor):
    def to_features(self, x):
        return x


class ConvUnmasked(MaskedExecutor):
    def conv(self, conv, x):
        return conv(x)


class NormUnmasked(MaskedExecutor):
    def norm(self, norm, x):
        return apply_scale_shift(x, *compute_scale_shift(norm, compute_moments(x, self.mask_like(x))))


class ShortcutUnmasked(MaskedExecutor):
    last = 3

    def conv(self, conv, x):
        self.last = conv.kernel_size[0]
        return super().conv(conv, x)

    def norm(self, norm, x):
        return NormUnmasked.norm(self, norm, x) if self.last == 1 else super().norm(norm, x)


class PlainNorm(MaskedExecutor):
    def norm(self, norm, x):
        return norm(x) * self.mask_like(x)


class VarianceOverEverything(MaskedExecutor):
    def norm(self, norm, x):
        stats = compute_moments(x, self.mask_like(x))
        fraction = stats.count / x[0, 0].numel()
        return apply_scale_shift(
            x, *compute_scale_shift(norm, Moments(stats.mean, stats.var * fraction, stats.count)), self.mask_like(x)
        )


class MaskOfNeighbour(MaskedExecutor):
    def mask_like(self, x):
        mask = super().mask_like(x)
        return mask.roll(1, -1) if x.shape[-1] == 6 else mask


class NeverMasked(Executor):
    def __init__(self, visible):
        pass


MUTANTS = (
    InputUnmasked,
    ConvUnmasked,
    NormUnmasked,
    ShortcutUnmasked,
    PlainNorm,
    VarianceOverEverything,
    MaskOfNeighbour,
    NeverMasked,
)


# These have no convolution of one voxel for this fault.
NO_SHORTCUT = (("segresnet", ShortcutUnmasked), ("plainconv", ShortcutUnmasked))


@pytest.mark.parametrize(("kind", "mutant"), [c for c in product(KINDS, MUTANTS) if c not in NO_SHORTCUT])
def test_a_planted_fault_breaks_a_contract(mutant, kind, monkeypatch):
    monkeypatch.setattr(encoders, "MaskedExecutor", mutant)
    with pytest.raises(AssertionError):
        for contract in CONTRACTS:
            contract(make_encoder(dense=True, kind=kind))


class Plain(nn.Module):
    """The same network without support for masks."""

    def __init__(self, encoder):
        super().__init__()
        self.stem = self.pair(1, encoder.channels[0], 3, 1)
        self.levels = nn.ModuleList()
        width = encoder.channels[0]
        for channels, stride, level in zip(encoder.channels, encoder.strides, encoder.levels, strict=True):
            blocks = nn.ModuleList()
            for n in range(len(level)):
                block = nn.ModuleDict({"first": self.pair(width, channels, 3, stride if n == 0 else 1)})
                block["second"] = self.pair(channels, channels, 3, 1)
                if width != channels:
                    block["skip"] = self.pair(width, channels, 1, 1)
                blocks.append(block)
                width = channels
            self.levels.append(blocks)
        self.strides = encoder.strides

    def pair(self, a, b, kernel, stride):
        conv = nn.Conv3d(a, b, kernel, stride, padding=kernel // 2, bias=False)
        return nn.ModuleDict({"conv": conv, "norm": nn.InstanceNorm3d(b, affine=True)})

    def run(self, pair, x):
        return pair["norm"](pair["conv"](x))

    def forward(self, x):
        x = F.leaky_relu(self.run(self.stem, x))
        out = []
        for stride, level in zip(self.strides, self.levels, strict=True):
            for n, block in enumerate(level):
                y = self.run(block["second"], F.leaky_relu(self.run(block["first"], x)))
                short = F.avg_pool3d(x, stride) if n == 0 else x
                x = F.leaky_relu(y + (self.run(block["skip"], short) if "skip" in block else short))
            out.append(x)
        return out


def test_weights_load_strictly_into_a_network_without_masks():
    net = make_encoder(strides="anisotropic")
    plain = Plain(net)
    plain.load_state_dict(net.state_dict(), strict=True)
    x, _ = masked_volumes(net)
    for a, b in zip(net(x), plain(x), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_batch_norm_tracks_the_statistics_of_visible_voxels():
    net, plain = make_encoder("batch"), make_encoder("batch")
    x, visible = masked_volumes(net)
    net(x, torch.ones_like(visible))
    plain(x)
    for (name, a), b in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5), name
    net.eval()
    check_hidden_voxels_have_no_effect(net)
    check_hidden_patches_are_zero_at_every_level(net)


def test_norms_measure_visible_voxels_in_full_precision():
    x = torch.full((1, 1, 4, 4, 4), 100.0) + torch.randn(1, 1, 4, 4, 4)
    m = torch.rand(1, 1, 4, 4, 4) < 0.3
    stats = compute_moments((x * m).bfloat16(), m)
    chosen = x.bfloat16().float()[m]
    assert torch.allclose(stats.mean, chosen.mean().view(1, 1))
    assert torch.allclose(stats.var, chosen.var(correction=0).view(1, 1), rtol=1e-4)


def test_every_weight_gets_a_finite_gradient_even_where_nothing_is_visible():
    net = make_encoder("group")
    x, visible = masked_volumes(net)
    visible[0] = False
    sum(level.square().sum() for level in net(x, visible)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_crop_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(BadInput, match=r"\(12, 10, 12\).*\(12, 12, 12\)"):
        make_encoder()(torch.rand(1, 1, 12, 10, 12))


def test_a_mask_of_another_grid_is_refused():
    """A mask may be coarser or finer than the patches, if its own tile the volume and each level."""
    with pytest.raises(BadInput, match=r"\(1, 1, 3, 3, 3\)"):
        make_encoder()(torch.rand(1, 1, 12, 12, 12), torch.ones(1, 1, 5, 5, 5, dtype=torch.bool))


def test_a_config_builds_the_network_it_describes():
    settings = EncoderConfig(channels=(8, 16), strides=(1, (1, 2, 2)), blocks=(1, 2), norm="group")
    loaded = config.check(settings.model_dump(mode="json"), EncoderConfig, "run")
    assert loaded == settings
    net = build_encoder(loaded, in_channels=2)
    assert isinstance(net, ResEncoder) and net.patch == (1, 2, 2)
    assert [tuple(p.shape) for p in net(torch.rand(1, 2, 4, 4, 4))] == [(1, 8, 4, 4, 4), (1, 16, 4, 2, 2)]


@pytest.mark.parametrize("wrong", [{"strides": (1, 2)}, {"blocks": (1, 1)}, {"channels": (0, 1, 1, 1)}, {"blocks": 0}])
def test_a_config_whose_levels_disagree_is_refused(wrong):
    with pytest.raises(BadInput, match=r"level|least 1"):
        config.check(wrong, EncoderConfig, "run")
