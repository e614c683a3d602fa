"""The group norm that learns fast is torch's own in every order of memory, in value and in gradient."""

import pytest
import torch
from torch import nn

from medssl.nn import norms

ORDERS = {"usual": torch.contiguous_format, "channels last": torch.channels_last_3d}
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}


def learnt(norm, x, pull):
    x = x.detach().clone().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    y.backward(pull)
    return y, x.grad, norm.weight.grad, norm.bias.grad


@pytest.mark.parametrize("kind", CLOSE)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["instance", "group"])
def test_values_and_gradients_are_torchs(name, order, kind):
    torch.manual_seed(0)
    made = norms.make(name, 12)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    own = nn.GroupNorm(made.num_groups, 12)
    own.load_state_dict(made.state_dict())
    both = torch.float32 if kind == torch.bfloat16 else kind
    made, own = made.to(both), own.to(both)
    x, pull = ((away + torch.randn(2, 12, 5, 6, 4)).to(kind).to(memory_format=ORDERS[order]) for away in (3, 0))
    for mine, theirs in zip(learnt(made, x, pull), learnt(own, x, pull), strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - theirs).abs().max() <= CLOSE[kind] * theirs.abs().max()


def test_the_order_of_memory_is_kept_and_nothing_is_kept_for_learning_where_none_happens():
    made, x = norms.make("instance", 4), torch.randn(2, 4, 5, 6, 4).to(memory_format=torch.channels_last_3d)
    assert made(x).is_contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert torch.equal(made(x), nn.GroupNorm.forward(made, x)) and made(x).grad_fn is None
