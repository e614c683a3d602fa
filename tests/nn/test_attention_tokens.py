"""Attention of tokens by place, gated as a convolution or in blocks, bars and neighbourhoods, is that of a loop."""

import pytest
import torch
from torch.nn import functional as F

from medssl import config
from medssl.errors import BadInput
from medssl.nn.attention.tokens import Attention, OutlookAttention, find_readable, list_neighbours, list_places
from medssl.nn.encoders.primus import Config

GRID = (5, 4, 3)


def make_attention(gate, num_heads=27):
    """Returns an attention layer with 6 dimensions for each head, whose gates let attention by position through."""
    torch.manual_seed(0)
    width = 6 * num_heads
    layer = Attention(width, num_heads, normalize=False, is_gated=True)
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


def reads(reach, query, key, head, window, halo):
    """Whether a patch reads another one, by the words of the papers."""
    if reach == "halo":
        firsts = [place // window * window for place in query]
        return all(first - halo <= k < first + window + halo for first, k in zip(firsts, key, strict=True))
    if reach == "cross":
        across = [axis for axis in range(3) if axis != head % 3]
        return all(query[axis] // window == key[axis] // window for axis in across)
    return all(abs(q - k) <= window // 2 for q, k in zip(query, key, strict=True))


@pytest.mark.parametrize("reach", ["halo", "cross", "outlook"])
@pytest.mark.parametrize(("window", "halo"), [(1, 0), (3, 1), (3, 2), (9, 0)])
def test_what_a_patch_reads_is_what_the_papers_say(reach, window, halo):
    places = list_places(GRID, torch.device("cpu"))
    readable = find_readable(reach, places[None], 6, window, halo)[0].expand(6, -1, -1)
    rows = places.tolist()
    expected = [[[reads(reach, q, k, head, window, halo) for k in rows] for q in rows] for head in range(6)]
    assert readable.tolist() == expected
    assert readable.diagonal(dim1=1, dim2=2).all(), "each reads itself"
    assert reach == "cross" or window < 9 or readable.all()


@torch.no_grad()
@pytest.mark.parametrize("settings", [{"reach": "halo", "window": 4}, {"reach": "cross", "window": 4}])
def test_windows_of_the_whole_grid_are_global_attention(settings):
    nets = []
    for options in ({}, settings):
        torch.manual_seed(0)
        nets.append(Config(channels=(4, 36), strides=(1, 4), depth=2, num_heads=3, **options).build(1).eval())
    x = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(nets[0](x)[-1], nets[1](x)[-1], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("is_masked", [False, True])
def test_outlook_attention_is_a_loop_over_the_neighbours(is_masked):
    torch.manual_seed(0)
    layer = OutlookAttention(8, num_heads=2, normalize=False, window=3)
    places = list_places(GRID, torch.device("cpu"))[torch.randperm(60)[:25]]  # some tokens are dropped
    x = torch.randn(1, 25, 8)
    keys = torch.rand(25) < 0.6 if is_masked else torch.ones(25, dtype=torch.bool)
    near = find_readable("outlook", places[None], 2, 3, 0)
    mask = near & keys | torch.eye(25, dtype=torch.bool)
    read = layer(x, torch.zeros(1, 1, 25, 4), mask, places[None])[0]
    values, weights = layer.v_proj(x)[0].view(25, 2, 4), layer.weights(x)[0].view(25, 2, 3, 3, 3)
    for n in range(25):
        seen = [m for m in range(25) if m == n or (keys[m] and (places[m] - places[n]).abs().max() <= 1)]
        offsets = [(places[m] - places[n] + 1).tolist() for m in seen]
        heads = []
        for head in range(2):
            scores = torch.stack([weights[n, head, i, j, k] for i, j, k in offsets]).softmax(0)
            heads.append(sum(score * values[m, head] for score, m in zip(scores, seen, strict=True)))
        torch.testing.assert_close(read[n], layer.proj(torch.cat(heads)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reach": "cross", "num_heads": 4}, "reach=cross has a third of the heads for each axis; give 3, 6 or more"),
        ({"reach": "outlook", "window": 4}, "reach=outlook needs an odd window and gate=none"),
        ({"reach": "outlook", "gate": "conv"}, "reach=outlook needs an odd window and gate=none"),
        ({"reach": "halo", "window": 0}, "window"),
        ({"reach": "halo", "halo": -1}, "halo"),
        ({"reach": "axial"}, "reach"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        config.check({"name": "primus", **settings}, Config, "test")
