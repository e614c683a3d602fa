"""Tests that the fast group norm equals torch's in value and gradient for each memory order."""

import pytest
import torch
from torch import nn

from medssl.nn import norms

ORDERS = {"usual": torch.contiguous_format, "channels last": torch.channels_last_3d}
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}


def run_backward(norm, x, grad):
    x = x.detach().clone().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    y.backward(grad)
    return y, x.grad, norm.weight.grad, norm.bias.grad


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["instance", "group"])
def test_values_and_gradients_are_torchs(name, order, dtype):
    torch.manual_seed(0)
    ours = norms.build_norm(name, 12)
    nn.init.normal_(ours.weight)
    nn.init.normal_(ours.bias)
    reference = nn.GroupNorm(ours.num_groups, 12)
    reference.load_state_dict(ours.state_dict())
    weight_dtype = torch.float32 if dtype == torch.bfloat16 else dtype
    ours, reference = ours.to(weight_dtype), reference.to(weight_dtype)
    x, grad = ((offset + torch.randn(2, 12, 5, 6, 4)).to(dtype).to(memory_format=ORDERS[order]) for offset in (3, 0))
    for actual, expected in zip(run_backward(ours, x, grad), run_backward(reference, x, grad), strict=True):
        assert actual.dtype == expected.dtype
        assert (actual - expected).abs().max() <= CLOSE[dtype] * expected.abs().max()


def test_the_memory_order_is_kept_and_nothing_is_saved_without_gradients():
    ours, x = norms.build_norm("instance", 4), torch.randn(2, 4, 5, 6, 4).to(memory_format=torch.channels_last_3d)
    trained = ours(x)
    assert trained.is_contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert torch.equal(ours(x), trained) and ours(x).grad_fn is None


@pytest.mark.parametrize("norm", [norms.LayerNorm3d(16), norms.LayerNorm(16)], ids=["voxels", "rows"])
def test_gradients_of_a_layer_norm_in_bf16_do_not_saturate(norm):
    """Torch sums them in bf16 on a CPU: the gradient of the shift is 16 there, not 640."""
    x = torch.randn(4, 16, 16, 16, 16).bfloat16()
    x = x if isinstance(norm, norms.LayerNorm3d) else x.movedim(1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    y.backward(torch.full_like(y, 0.04))
    expected = 0.04 * x.numel() / 16
    assert norm.bias.grad.sub(expected).abs().max() < 0.01 * expected


def test_a_layer_norm_of_a_library_keeps_its_weights_when_it_is_replaced():
    network = nn.Sequential(nn.LayerNorm(8), nn.Sequential(nn.LayerNorm(8, eps=0.1)))
    torch.nn.init.uniform_(network[0].weight)
    x = torch.randn(5, 8)
    expected, names = network(x), list(network.state_dict())
    norms.replace_norms(network)
    assert [type(m) for m in network.modules() if isinstance(m, nn.LayerNorm)] == [norms.LayerNorm] * 2
    assert torch.equal(network(x), expected) and list(network.state_dict()) == names


def test_a_group_norm_is_as_exact_in_inference_as_in_training():
    """Torch's own is off by 8e-4 for this volume."""
    x = (2 * torch.randn(1, 16, 32, 32, 32) + 5).to(memory_format=torch.channels_last_3d)
    exact = torch.nn.functional.group_norm(x.double().contiguous(), 16)
    with torch.inference_mode():
        y = norms.GroupNorm(16, 16)(x)
    assert (y - exact).abs().max() < 1e-5
