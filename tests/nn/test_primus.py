"""The transformer over patches drops hidden tokens, which equals attention that does not read them."""

import pytest
import torch
from torch.nn import functional as F

from medssl.nn.encoders.primus import Attention, Config, list_neighbours, list_places
from medssl.nn.sparse import VisibleBlocks


def make_encoder(**settings):
    torch.manual_seed(0)
    return Config(channels=(4, 24), strides=(1, 4), depth=2, num_heads=2, **settings).build(1).eval()


def make_crops_and_mask():
    x = torch.rand(2, 1, 16, 16, 16)
    visible = torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    visible[0, :, 0], visible[1, :, 2, :2] = True, True
    return x, visible


@pytest.mark.parametrize("gate", ["none", "conv"])
def test_dropping_hidden_tokens_equals_not_reading_them(gate):
    net = make_encoder(grid=(4, 4, 4), gate=gate)
    x, visible = make_crops_and_mask()
    tokens = net(x, visible)[-1]

    def mask_keys(block, inputs):
        return *inputs[:2], visible.flatten(1)[:, None, None], *inputs[3:]

    handles = [block.register_forward_pre_hook(mask_keys) for block in net.blocks]
    expected = torch.where(visible, net(x)[-1], 0)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-6)
    assert (tokens - torch.where(visible, net(x)[-1], 0)).abs().max() > 1e-3


def test_blocks_compute_visible_tokens_only():
    net, lengths = make_encoder(), []
    net.blocks[0].register_forward_pre_hook(lambda block, inputs: lengths.append(inputs[0].shape[1]))
    x, visible = make_crops_and_mask()
    assert isinstance(net.build_executor(x, visible), VisibleBlocks)
    net(x, visible)
    net(x)
    assert lengths == [16, 64]


def test_a_crop_without_visible_patches_has_no_features():
    net = make_encoder()
    x, visible = make_crops_and_mask()
    visible[1] = False
    tokens = net(x, visible)[-1]
    assert tokens.isfinite().all() and (tokens[1] == 0).all() and tokens[0].abs().max() > 0.1


def test_rotary_positions_see_distances_and_learned_ones_see_places():
    x = torch.rand(1, 1, 16, 16, 16)
    _, visible = make_crops_and_mask()
    here, there = visible[:1], visible[:1].roll(2, 2)
    for grid, is_equal in ((None, True), ((4, 4, 4), False), ((2, 2, 2), False)):
        net = make_encoder(grid=grid)
        first, second = net(x, here)[-1], net(x.roll(8, 2), there)[-1].roll(-2, 2)
        assert torch.allclose(first, second, atol=1e-5) == is_equal
    assert (net(x)[-1] - net(x.flip(2))[-1].flip(2)).abs().max() > 1e-3


def make_attention(gate, num_heads=27, **settings):
    """Returns an attention layer with 6 dimensions for each head, whose gates let attention by position through."""
    torch.manual_seed(0)
    width = 6 * num_heads
    config = Config(channels=(width,), strides=(1,), num_heads=num_heads, gate="conv", attention_norm=False, **settings)
    layer = Attention(config)
    torch.nn.init.constant_(layer.local.gate, gate)
    return layer


@torch.no_grad()
def test_attention_by_position_starts_as_a_convolution():
    layer, grid = make_attention(gate=100.0), (5, 3, 4)
    x = torch.randn(2, 162, *grid)
    places = list_places(grid, x.device)[None]
    tokens = layer(x.flatten(2).mT, torch.zeros(1, 1, len(places[0]), 6), None, places)
    kernel = torch.zeros(162, 162, 3, 3, 3)
    for head, (i, j, k) in enumerate(list_neighbours(27) + 1):
        rows = slice(6 * head, 6 * head + 6)
        kernel[:, :, i, j, k] = layer.proj.weight[:, rows] @ layer.v_proj.weight[rows]
    bias = layer.proj.bias + layer.proj.weight @ layer.v_proj.bias
    expected = F.conv3d(F.pad(x, (1,) * 6, mode="replicate"), kernel, bias)
    assert expected.std() > 0.1
    torch.testing.assert_close(tokens.mT.unflatten(2, grid), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_gate_mixes_attention_by_content_and_by_position():
    shut, half, wide = (make_attention(gate, num_heads=2) for gate in (-100.0, 0.0, 100.0))
    places = list_places((3, 3, 3), torch.device("cpu"))[None]
    inputs = torch.randn(1, 27, 12), torch.rand(1, 1, 27, 6), None, places
    torch.testing.assert_close(half(*inputs), (shut(*inputs) + wide(*inputs)) / 2, rtol=0, atol=1e-6)
    shut.local = None
    content = shut(*inputs)
    torch.testing.assert_close(half(*inputs), (content + wide(*inputs)) / 2, rtol=0, atol=1e-6)
    assert (content - wide(*inputs)).abs().max() > 0.1


@torch.no_grad()
def test_attention_by_position_is_as_exact_in_half_precision_far_from_the_origin():
    layer = make_attention(gate=100.0, num_heads=7)
    places = list_places((2, 2, 40), torch.device("cpu"))[None]
    inputs = torch.randn(1, 160, 42), torch.zeros(1, 1, 160, 6), None, places
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(*inputs)
    torch.testing.assert_close(half.float(), layer(*inputs), rtol=0, atol=0.02)


@pytest.mark.parametrize("count", [1, 4, 7, 27, 30])
def test_heads_start_at_different_neighbours_the_nearest_first(count):
    offsets = list_neighbours(count)
    lengths = offsets.square().sum(1)
    assert len(offsets.unique(dim=0)) == count and lengths[0] == 0 and (lengths.diff() >= 0).all()
    assert count != 27 or offsets.abs().max() == 1


def test_without_a_gate_no_tensor_is_added():
    keys, others = (set(make_encoder(gate=gate).state_dict()) for gate in ("none", "conv"))
    assert {key.rpartition(".local.")[2] for key in others - keys} == {"weight", "gate"} and keys < others
