"""Tests that running visible patches only gives the features and gradients of the masked network."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medssl.nn.encoders import base as encoders
from medssl.nn.executor import MaskedExecutor
from medssl.nn.norms import Moments
from medssl.nn.sparse import Footprint, VisibleBlocks, choose_batch_size
from tests.helpers.resource_limits import measure_heap
from tests.helpers.small_networks import CASES, NORMS, STRIDES, make_encoder, masked_volumes

ROOT = Path(__file__).resolve().parents[2]


def run_network(net, x, visible, dense):
    net = copy.deepcopy(net)
    net.dense = dense
    x = x.clone().requires_grad_()
    pyramid = net(x, visible)
    sum((level.float() * torch.sin(torch.arange(level.numel())).view_as(level)).sum() for level in pyramid).backward()
    state = {k: v for k, v in net.state_dict().items() if "running" in k}
    return pyramid, {"input": x.grad} | {n: p.grad for n, p in net.named_parameters()}, state


def relative_error(a, b):
    """Returns the largest difference relative to the largest value."""
    return float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).detach())


def check_blocks_equal_the_masked_network(net, x, visible, tolerance=1e-4):
    for expected, actual in zip(
        run_network(net, x, visible, dense=True), run_network(net, x, visible, dense=False), strict=True
    ):
        actual, expected = (dict(enumerate(s)) if isinstance(s, list) else s for s in (actual, expected))
        for name in expected:
            assert relative_error(actual[name], expected[name]) < tolerance, name


@pytest.mark.parametrize(("kind", "norm", "strides"), CASES)
def test_features_and_gradients_equal_those_of_the_masked_network(kind, norm, strides):
    """In double precision where a norm follows a bias, since its gradient is zero except for rounding."""
    net = make_encoder(norm, strides, in_channels=2, kind=kind)
    x, visible = masked_volumes(net)
    if kind == "residual":
        check_blocks_equal_the_masked_network(net, x, visible)
    else:
        check_blocks_equal_the_masked_network(net.double(), x.double(), visible, tolerance=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(NORMS), st.integers(0, 10**6), st.floats(0.05, 1))
def test_nothing_is_approximated_for_any_mask(norm, seed, fraction):
    """In double precision, since a norm over a single visible voxel amplifies rounding errors."""
    net = make_encoder(norm, in_channels=2).double()
    x, visible = masked_volumes(net, (2, 3, 2), seed=seed, fraction=fraction)
    check_blocks_equal_the_masked_network(net, x.double(), visible, tolerance=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_convolution_of_patches_is_the_masked_one(data):
    kernel, stride, grid, patch = (
        tuple(data.draw(st.sampled_from(v)) for _ in range(3)) for v in ((1, 3, 5), (1, 2), (1, 2, 3), (1, 2, 4))
    )
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    groups, dilation = data.draw(st.sampled_from((1, 2))), data.draw(st.sampled_from((1, 1, 2)))
    stride = [min(s, w) for s, w in zip(stride, patch, strict=True)]
    padding = [dilation * (k // 2) for k in kernel]
    conv = nn.Conv3d(4, 6, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
    x = torch.randn(2, 4, *(n * w for n, w in zip(grid, patch, strict=True)))
    visible = torch.rand(2, 1, *grid) < 0.6
    visible[0, 0, 0, 0, 0] = True
    results = []
    for executor in (MaskedExecutor(visible), VisibleBlocks(visible)):
        conv.zero_grad()
        x_copy = x.clone().requires_grad_()
        y = executor.to_dense(executor.conv(conv, executor.to_features(x_copy)))
        y.pow(2).sum().backward()
        results.append([y.detach(), x_copy.grad, *(p.grad.clone() for p in conv.parameters())])
    for expected, actual in zip(*results, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (7, 3), (4, 2), (1, 2), (3, 2), (2, 2)])
def test_the_input_gradient_of_a_strided_convolution_reaches_the_end_of_each_patch(kernel, stride):
    conv = nn.Conv3d(1, 1, (1, kernel, 1), (1, stride, 1), (0, (kernel - 1) // 2, 0)).double()
    visible = torch.tensor([True, True, False, True]).view(1, 1, 1, 4, 1)
    gradients = []
    for executor in (MaskedExecutor(visible), VisibleBlocks(visible)):
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(1, 1, 1, 24, 1).requires_grad_()
        executor.to_dense(executor.conv(conv, executor.to_features(x))).pow(2).sum().backward()
        gradients.append(x.grad)
    assert torch.allclose(*gradients, atol=1e-12) and not torch.equal(gradients[0], torch.zeros(1).double())


def test_a_volume_is_unchanged_where_visible_after_both_conversions():
    net = make_encoder(strides="anisotropic")
    x, visible = masked_volumes(net)
    executor, masked = VisibleBlocks(visible), MaskedExecutor(visible)
    assert torch.equal(executor.to_dense(executor.to_features(x)), masked.to_features(x))
    fill = torch.tensor([7.0])
    assert torch.equal(executor.to_dense(executor.to_features(x), fill), masked.to_dense(masked.to_features(x), fill))


@pytest.mark.parametrize("strides", STRIDES)
def test_densified_levels_equal_those_of_the_masked_network(strides):
    net = make_encoder(strides=strides).double()
    x, visible = masked_volumes(net)
    conv, token = nn.Conv3d(8, 5, 3, padding=1).double(), torch.randn(8, dtype=torch.float64, requires_grad=True)
    results = []
    for executor in (MaskedExecutor(visible), VisibleBlocks(visible)):
        net.zero_grad(), conv.zero_grad()
        token.grad = None
        y = executor.densify(conv, net.features(x.double(), executor)[0], token)
        y.pow(3).sum().backward()
        results.append([y, token.grad, *(p.grad.clone() for p in (*conv.parameters(), *net.levels[0].parameters()))])
    for expected, actual in zip(*results, strict=True):
        assert relative_error(actual, expected) < 1e-9


def test_half_precision_agrees_within_its_precision():
    net = make_encoder()
    x, visible = masked_volumes(net)
    exact = run_network(net, x, visible, dense=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        actual, expected = (run_network(net, x, visible, dense)[0] for dense in (False, True))
    for a, b, c in zip(actual, expected, exact, strict=True):
        assert relative_error(a.float(), b.float()) < 0.05
        assert (a.float() - c).square().mean() < 2 * (b.float() - c).square().mean() + 1e-9


def test_running_statistics_are_used_and_left_alone_outside_of_training():
    net = make_encoder("batch").eval()
    x, visible = masked_volumes(net)
    check_blocks_equal_the_masked_network(net, x, visible)
    assert all((v == 0).all() for k, v in run_network(net, x, visible, dense=False)[2].items() if "mean" in k)


class HiddenNeighboursRead(VisibleBlocks):
    def _build_halo_table(self, patch, low, high):
        table = super()._build_halo_table(patch, low, high)
        return torch.where(table == table.max(), 0, table)


class NoHalo(VisibleBlocks):
    def _build_halo_table(self, patch, low, high):
        self.neighbours = torch.full_like(self.neighbours, len(self.index))
        self.neighbours[:, 13] = torch.arange(len(self.index))
        return super()._build_halo_table(patch, low, high)


class NoCorners(VisibleBlocks):
    def _build_halo_table(self, patch, low, high):
        self.neighbours[:, [0, 2, 6, 8, 18, 20, 24, 26]] = len(self.index)
        return super()._build_halo_table(patch, low, high)


class BatchAsOneSample(VisibleBlocks):
    def _merge_moments(self, patches):
        stats = super()._merge_moments(patches)
        return Moments(stats.mean.mean(0).expand_as(stats.mean), stats.var, stats.count)


class MeansOfVariances(VisibleBlocks):
    def _merge_moments(self, patches):
        stats, flat = (
            super()._merge_moments(patches),
            super()._merge_moments(Moments(patches.mean * 0, patches.var, patches.count)),
        )
        return Moments(stats.mean, flat.var, stats.count)


class NeighboursAcrossTheBatch(VisibleBlocks):
    def __init__(self, visible, num_visible=None):
        super().__init__(visible, num_visible)
        self.neighbours = self.neighbours.roll(1, 0)


class HaloTooSmall(Footprint):
    @property
    def output_halo(self):
        return (0, 0, 0), super().output_halo[1]


MUTANTS = (HiddenNeighboursRead, NoHalo, NoCorners, BatchAsOneSample, MeansOfVariances, NeighboursAcrossTheBatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_planted_fault_is_detected(mutant, monkeypatch):
    net = make_encoder()
    monkeypatch.setattr(encoders, "VisibleBlocks", mutant)
    with pytest.raises(AssertionError):
        check_blocks_equal_the_masked_network(net, *masked_volumes(net))


def test_a_wrong_halo_in_the_backward_pass_is_detected(monkeypatch):
    net = make_encoder()
    monkeypatch.setattr("medssl.nn.sparse.Footprint", HaloTooSmall)
    with pytest.raises((AssertionError, RuntimeError)):
        check_blocks_equal_the_masked_network(net, *masked_volumes(net))


@pytest.mark.parametrize("num_patches", [1, 7, 72, 1024, 5832])
def test_the_number_of_patches_in_a_batch_takes_at_most_16_values(num_patches):
    sizes = [choose_batch_size(n, num_patches) for n in range(1, num_patches + 1)]
    assert len(set(sizes)) <= 16 and sizes[-1] == num_patches
    assert all(n <= size for n, size in enumerate(sizes, 1))
    assert num_patches % 4 or num_patches < 64 or num_patches // 4 in sizes


@pytest.mark.parametrize("norm", NORMS)
def test_blank_patches_change_nothing(norm, monkeypatch):
    """Equal to the bit where a kernel's rounding does not depend on the number of rows, as in oneDNN's of fp32."""
    net = make_encoder(norm, kind="convnext")
    x, visible = masked_volumes(net)
    assert (~VisibleBlocks(visible).filled).any()
    features, gradients, _ = run_network(net, x, visible, dense=False)
    monkeypatch.setattr("medssl.nn.sparse.choose_batch_size", lambda num_visible, num_patches: num_visible)
    assert VisibleBlocks(visible).filled.all()
    expected_features, expected_gradients, _ = run_network(net, x, visible, dense=False)
    assert all(relative_error(a, b) < 1e-6 for a, b in zip(features, expected_features, strict=True))
    assert all(relative_error(gradients[name], expected) < 1e-6 for name, expected in expected_gradients.items())


class BlankPatchesCounted(VisibleBlocks):
    def _merge_moments(self, patches):
        self.filled = torch.ones_like(self.filled)
        return super()._merge_moments(patches)


class BlankPatchesRead(VisibleBlocks):
    def _build_halo_table(self, patch, low, high):
        self.neighbours[self.neighbours == len(self.index)] -= 1
        return super()._build_halo_table(patch, low, high)


@pytest.mark.parametrize("mutant", [BlankPatchesCounted, BlankPatchesRead], ids=lambda m: m.__name__)
def test_a_fault_in_the_blank_patches_is_detected(mutant, monkeypatch):
    net = make_encoder().double()
    x, visible = masked_volumes(net)
    monkeypatch.setattr(encoders, "VisibleBlocks", mutant)
    with pytest.raises(AssertionError):
        check_blocks_equal_the_masked_network(net, x.double(), visible)


def list_heap_sizes():
    """The memory after each of 100 steps with masks of many numbers of patches, in bytes."""
    net = make_encoder(blocks=(1, 1, 1))
    x, generator = torch.rand(1, 1, 20, 20, 20), torch.Generator().manual_seed(0)
    counts, heap = set(), []
    for _ in range(100):
        visible = torch.rand(1, 1, 5, 5, 5, generator=generator) < 0.05 + 0.9 * torch.rand((), generator=generator)
        counts.add(int(visible.sum()))
        sum(level.mean() for level in net(x, visible)).backward()
        net.zero_grad()
        heap.append(measure_heap())
    assert len(counts) > 50
    return heap


def test_memory_stays_flat_over_masks_with_other_numbers_of_patches():
    """oneDNN and torch keep a compiled convolution for every shape; shape checks of a test run keep memory as well."""
    script = "from tests.nn.test_sparse import list_heap_sizes; print(*list_heap_sizes())"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    heap = [int(word) for word in process.stdout.split()]
    assert max(heap[40:]) - heap[39] < 2e6
