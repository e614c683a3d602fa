"""The transformer over patches drops hidden tokens, which equals attention that does not read them."""

import pytest
import torch

from medssl.nn.encoders.primus import Config
from medssl.nn.sparse import VisibleBlocks


def make_encoder(**settings):
    torch.manual_seed(0)
    small = {"channels": (4, 24), "strides": (1, 4), "depth": 2, "num_heads": 2}
    return Config(**small | settings).build(1).eval()


def make_crops_and_mask():
    x = torch.rand(2, 1, 16, 16, 16)
    visible = torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    visible[0, :, 0], visible[1, :, 2, :2] = True, True
    return x, visible


@pytest.mark.parametrize(
    "settings",
    [
        {"gate": "none"},
        {"gate": "conv"},
        {"reach": "halo", "window": 2},
        {"reach": "halo", "window": 2, "halo": 0, "gate": "conv"},
        {"reach": "cross", "window": 2, "num_heads": 3, "channels": (4, 36)},
        {"reach": "outlook"},
    ],
)
def test_dropping_hidden_tokens_equals_not_reading_them(settings):
    net = make_encoder(grid=(4, 4, 4), **settings)
    x, visible = make_crops_and_mask()
    tokens = net(x, visible)[-1]

    def mask_keys(block, inputs):
        keys = visible.flatten(1)[:, None, None]
        if settings.get("reach"):
            keys = inputs[2] & keys | torch.eye(64, dtype=torch.bool)  # attention to nothing is not a number
        return *inputs[:2], keys, *inputs[3:]

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


def test_without_a_gate_no_tensor_is_added():
    keys, others = (set(make_encoder(gate=gate).state_dict()) for gate in ("none", "conv"))
    assert {key.rpartition(".local.")[2] for key in others - keys} == {"weight", "gate"} and keys < others
