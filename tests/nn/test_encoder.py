"""The encoder's promises under a mask, each kept by the network and broken by a planted fault."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl import config
from medssl.errors import BadInput
from medssl.nn.encoder import EncoderConfig, ResEncoder, build
from medssl.nn.encoders import base as encoders
from medssl.nn.executor import Layout, Masked, enlarge
from medssl.nn.norms import Moments, affine, moments, scale_and_shift
from tests.helpers.small_networks import CASES, KINDS, masked_volumes, shaken


def hidden_voxels_change_nothing(net):
    x, keep = masked_volumes(net)
    visible = enlarge(keep, tuple(x.shape[2:]))
    other = torch.where(visible, x, torch.full_like(x, float("nan")))
    for a, b in zip(net(x, keep), net(other, keep), strict=True):
        assert (a - b).abs().max() == 0


def hidden_cells_are_empty_at_every_level(net):
    x, keep = masked_volumes(net)
    for level in net(x, keep):
        assert torch.equal((level != 0).any(1, keepdim=True), enlarge(keep, tuple(level.shape[2:])))


def hidden_surroundings_change_nothing(net):
    """A hidden rim only pads with zeros, as the border does: it would change norms that count it."""
    x, keep = masked_volumes(net)
    i, j, k = net.cell
    wide = net(F.pad(x, (k, 0, 0, 2 * j, i, i), value=7.0), F.pad(keep, (1, 0, 0, 2, 1, 1)))
    for a, b in zip(net(x, keep), wide, strict=True):
        visible = enlarge(keep, tuple(a.shape[2:]))
        p, q, r = (n // g for n, g in zip(a.shape[2:], keep.shape[2:], strict=True))
        inner = b[:, :, p:-p, : -2 * q, r:]
        assert torch.allclose(a[visible.expand_as(a)], inner[visible.expand_as(a)], atol=2e-5)


def all_visible_is_the_plain_network(net):
    x, keep = masked_volumes(net.double())
    for a, b in zip(net(x.double(), torch.ones_like(keep)), net(x.double()), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


CONTRACTS = (
    hidden_voxels_change_nothing,
    hidden_cells_are_empty_at_every_level,
    hidden_surroundings_change_nothing,
    all_visible_is_the_plain_network,
)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.__name__)
@pytest.mark.parametrize(("kind", "norm", "strides"), CASES)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "blocks"])
def test_a_masked_network_keeps_its_contract(dense, kind, norm, strides, contract):
    contract(shaken(norm, strides, dense=dense, kind=kind))


class InputUnmasked(Masked):
    def enter(self, x):
        return x


class ConvUnmasked(Masked):
    def conv(self, conv, x):
        return conv(x)


class NormUnmasked(Masked):
    def norm(self, norm, x):
        return affine(x, *scale_and_shift(norm, moments(x, self.mask(x))))


class ShortcutUnmasked(Masked):
    last = 3

    def conv(self, conv, x):
        self.last = conv.kernel_size[0]
        return super().conv(conv, x)

    def norm(self, norm, x):
        return NormUnmasked.norm(self, norm, x) if self.last == 1 else super().norm(norm, x)


class PlainNorm(Masked):
    def norm(self, norm, x):
        return norm(x) * self.mask(x)


class VarianceOverEverything(Masked):
    def norm(self, norm, x):
        seen = moments(x, self.mask(x))
        share = seen.count / x[0, 0].numel()
        return affine(x, *scale_and_shift(norm, Moments(seen.mean, seen.var * share, seen.count)), self.mask(x))


class MaskOfNeighbour(Masked):
    def mask(self, x):
        mask = super().mask(x)
        return mask.roll(1, -1) if x.shape[-1] == 6 else mask


class NeverMasked(Layout):
    def __init__(self, keep):
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


NO_SHORTCUT = ("segresnet", ShortcutUnmasked)  # no convolution of one voxel to plant this fault behind


@pytest.mark.parametrize(("kind", "mutant"), [c for c in product(KINDS, MUTANTS) if c != NO_SHORTCUT])
def test_a_planted_fault_breaks_a_contract(mutant, kind, monkeypatch):
    monkeypatch.setattr(encoders, "Masked", mutant)
    with pytest.raises(AssertionError):
        for contract in CONTRACTS:
            contract(shaken(dense=True, kind=kind))


class Plain(nn.Module):
    """The same network written out without a word about masks."""

    def __init__(self, of):
        super().__init__()
        self.stem = self.pair(1, of.channels[0], 3, 1)
        self.levels = nn.ModuleList()
        width = of.channels[0]
        for channels, stride, level in zip(of.channels, of.strides, of.levels, strict=True):
            blocks = nn.ModuleList()
            for n in range(len(level)):
                block = nn.ModuleDict({"first": self.pair(width, channels, 3, stride if n == 0 else 1)})
                block["second"] = self.pair(channels, channels, 3, 1)
                if width != channels:
                    block["skip"] = self.pair(width, channels, 1, 1)
                blocks.append(block)
                width = channels
            self.levels.append(blocks)
        self.strides = of.strides

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


def test_weights_load_strictly_into_a_network_that_knows_no_masks():
    net = shaken(strides="anisotropic")
    plain = Plain(net)
    plain.load_state_dict(net.state_dict(), strict=True)
    x, _ = masked_volumes(net)
    for a, b in zip(net(x), plain(x), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_batch_norm_remembers_what_was_visible():
    net, plain = shaken("batch"), shaken("batch")
    x, keep = masked_volumes(net)
    net(x, torch.ones_like(keep))
    plain(x)
    for (name, a), b in zip(net.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-5), name
    net.eval()
    hidden_voxels_change_nothing(net)
    hidden_cells_are_empty_at_every_level(net)


def test_norms_measure_visible_voxels_in_full_precision():
    x = torch.full((1, 1, 4, 4, 4), 100.0) + torch.randn(1, 1, 4, 4, 4)
    m = torch.rand(1, 1, 4, 4, 4) < 0.3
    seen = moments((x * m).bfloat16(), m)
    chosen = x.bfloat16().float()[m]
    assert torch.allclose(seen.mean, chosen.mean().view(1, 1))
    assert torch.allclose(seen.var, chosen.var(correction=0).view(1, 1), rtol=1e-4)


def test_every_weight_gets_a_finite_gradient_even_where_nothing_is_visible():
    net = shaken("group")
    x, keep = masked_volumes(net)
    keep[0] = False
    sum(level.square().sum() for level in net(x, keep)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_crop_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(BadInput, match=r"\(12, 10, 12\).*\(12, 12, 12\)"):
        shaken()(torch.rand(1, 1, 12, 10, 12))


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(BadInput, match=r"\(1, 1, 3, 3, 3\)"):
        shaken()(torch.rand(1, 1, 12, 12, 12), torch.ones(1, 1, 6, 6, 6, dtype=torch.bool))


def test_a_config_builds_the_network_it_describes():
    written = EncoderConfig(channels=(8, 16), strides=(1, (1, 2, 2)), blocks=(1, 2), norm="group")
    read = config.check(written.model_dump(mode="json"), EncoderConfig, "run")
    assert read == written
    net = build(read, in_channels=2)
    assert isinstance(net, ResEncoder) and net.cell == (1, 2, 2)
    assert [tuple(p.shape) for p in net(torch.rand(1, 2, 4, 4, 4))] == [(1, 8, 4, 4, 4), (1, 16, 4, 2, 2)]


@pytest.mark.parametrize("wrong", [{"strides": (1, 2)}, {"blocks": (1, 1)}, {"channels": (0, 1, 1, 1)}, {"blocks": 0}])
def test_a_config_whose_levels_disagree_is_refused(wrong):
    with pytest.raises(BadInput, match=r"level|least 1"):
        config.check(wrong, EncoderConfig, "run")
