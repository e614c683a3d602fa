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
    assert ours(x).is_contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert torch.equal(ours(x), nn.GroupNorm.forward(ours, x)) and ours(x).grad_fn is None
