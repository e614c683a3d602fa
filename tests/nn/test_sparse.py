"""Visible-block execution is the masked network: the same features, the same gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medssl.nn.encoders import base as encoders
from medssl.nn.executor import Masked
from medssl.nn.norms import Moments
from medssl.nn.sparse import Blocks, Reach
from tests.helpers.small_networks import CASES, NORMS, STRIDES, masked_volumes, shaken


def run(net, x, keep, dense):
    net = copy.deepcopy(net)
    net.dense = dense
    x = x.clone().requires_grad_()
    pyramid = net(x, keep)
    sum((level.float() * torch.sin(torch.arange(level.numel())).view_as(level)).sum() for level in pyramid).backward()
    state = {k: v for k, v in net.state_dict().items() if "running" in k}
    return pyramid, {"input": x.grad} | {n: p.grad for n, p in net.named_parameters()}, state


def apart(a, b):
    """The largest difference relative to the largest value."""
    return float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).detach())


def blocks_are_the_masked_network(net, x, keep, tolerance=1e-4):
    for theirs, ours in zip(run(net, x, keep, dense=True), run(net, x, keep, dense=False), strict=True):
        ours, theirs = (dict(enumerate(s)) if isinstance(s, list) else s for s in (ours, theirs))
        for name in theirs:
            assert apart(ours[name], theirs[name]) < tolerance, name


@pytest.mark.parametrize(("kind", "norm", "strides"), CASES)
def test_features_and_gradients_are_those_of_the_masked_network(kind, norm, strides):
    """In double precision where biases stand before norms: their gradients are zero but for what is rounded off."""
    net = shaken(norm, strides, in_channels=2, kind=kind)
    x, keep = masked_volumes(net)
    if kind == "residual":
        blocks_are_the_masked_network(net, x, keep)
    else:
        blocks_are_the_masked_network(net.double(), x.double(), keep, tolerance=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(NORMS), st.integers(0, 10**6), st.floats(0.05, 1))
def test_nothing_is_approximated_for_any_mask(norm, seed, share):
    """In double precision: a norm over one visible voxel multiplies what single precision rounds off."""
    net = shaken(norm, in_channels=2).double()
    x, keep = masked_volumes(net, (2, 3, 2), seed=seed, share=share)
    blocks_are_the_masked_network(net, x.double(), keep, tolerance=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_convolution_over_cells_is_the_masked_one(data):
    kernel, stride, cells, width = (
        tuple(data.draw(st.sampled_from(v)) for _ in range(3)) for v in ((1, 3, 5), (1, 2), (1, 2, 3), (1, 2, 4))
    )
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    groups, dilation = data.draw(st.sampled_from((1, 2))), data.draw(st.sampled_from((1, 1, 2)))
    stride = [min(s, w) for s, w in zip(stride, width, strict=True)]
    padding = [dilation * (k // 2) for k in kernel]
    conv = nn.Conv3d(4, 6, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
    x = torch.randn(2, 4, *(n * w for n, w in zip(cells, width, strict=True)))
    keep = torch.rand(2, 1, *cells) < 0.6
    keep[0, 0, 0, 0, 0] = True
    results = []
    for on in (Masked(keep), Blocks(keep)):
        conv.zero_grad()
        inward = x.clone().requires_grad_()
        y = on.leave(on.conv(conv, on.enter(inward)))
        y.pow(2).sum().backward()
        results.append([y.detach(), inward.grad, *(p.grad.clone() for p in conv.parameters())])
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_volume_enters_and_leaves_unchanged_where_visible():
    net = shaken(strides="anisotropic")
    x, keep = masked_volumes(net)
    on, masked = Blocks(keep), Masked(keep)
    assert torch.equal(on.leave(on.enter(x)), masked.enter(x))
    fill = torch.tensor([7.0])
    assert torch.equal(on.leave(on.enter(x), fill), masked.leave(masked.enter(x), fill))


@pytest.mark.parametrize("strides", STRIDES)
def test_densified_levels_are_those_of_the_masked_network(strides):
    net = shaken(strides=strides).double()
    x, keep = masked_volumes(net)
    conv, token = nn.Conv3d(8, 5, 3, padding=1).double(), torch.randn(8, dtype=torch.float64, requires_grad=True)
    results = []
    for on in (Masked(keep), Blocks(keep)):
        net.zero_grad(), conv.zero_grad()
        token.grad = None
        y = on.densify(conv, net.features(x.double(), on)[0], token)
        y.pow(3).sum().backward()
        results.append([y, token.grad, *(p.grad.clone() for p in (*conv.parameters(), *net.levels[0].parameters()))])
    for theirs, ours in zip(*results, strict=True):
        assert apart(ours, theirs) < 1e-9


def test_half_precision_agrees_within_its_precision():
    net = shaken()
    x, keep = masked_volumes(net)
    exact = run(net, x, keep, dense=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (run(net, x, keep, dense)[0] for dense in (False, True))
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert apart(a.float(), b.float()) < 0.05
        assert (a.float() - c).square().mean() < 2 * (b.float() - c).square().mean() + 1e-9


def test_running_statistics_are_used_and_left_alone_outside_of_training():
    net = shaken("batch").eval()
    x, keep = masked_volumes(net)
    blocks_are_the_masked_network(net, x, keep)
    assert all((v == 0).all() for k, v in run(net, x, keep, dense=False)[2].items() if "mean" in k)


class HiddenNeighboursRead(Blocks):
    def _table(self, width, low, high):
        table = super()._table(width, low, high)
        return torch.where(table == table.max(), 0, table)


class NoHalo(Blocks):
    def _table(self, width, low, high):
        self.neighbours = torch.full_like(self.neighbours, len(self.slots))
        self.neighbours[:, 13] = torch.arange(len(self.slots))
        return super()._table(width, low, high)


class NoCorners(Blocks):
    def _table(self, width, low, high):
        self.neighbours[:, [0, 2, 6, 8, 18, 20, 24, 26]] = len(self.slots)
        return super()._table(width, low, high)


class BatchAsOneSample(Blocks):
    def _merged(self, cell):
        seen = super()._merged(cell)
        return Moments(seen.mean.mean(0).expand_as(seen.mean), seen.var, seen.count)


class MeansOfVariances(Blocks):
    def _merged(self, cell):
        seen, flat = super()._merged(cell), super()._merged(Moments(cell.mean * 0, cell.var, cell.count))
        return Moments(seen.mean, flat.var, seen.count)


class NeighboursAcrossTheBatch(Blocks):
    def __init__(self, keep):
        super().__init__(keep)
        self.neighbours = self.neighbours.roll(1, 0)


class ReachTooShort(Reach):
    def outputs(self):
        return (0, 0, 0), super().outputs()[1]


MUTANTS = (HiddenNeighboursRead, NoHalo, NoCorners, BatchAsOneSample, MeansOfVariances, NeighboursAcrossTheBatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_planted_fault_is_seen(mutant, monkeypatch):
    net = shaken()
    monkeypatch.setattr(encoders, "Blocks", mutant)
    with pytest.raises(AssertionError):
        blocks_are_the_masked_network(net, *masked_volumes(net))


def test_a_wrong_reach_on_the_way_back_is_seen(monkeypatch):
    net = shaken()
    monkeypatch.setattr("medssl.nn.sparse.Reach", ReachTooShort)
    with pytest.raises((AssertionError, RuntimeError)):
        blocks_are_the_masked_network(net, *masked_volumes(net))
