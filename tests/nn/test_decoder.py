"""Tests that decoders return one map for each level at the resolution of the level."""

import pytest
import torch
from torch.nn import functional as F

from medssl.nn.decoder import LightDecoder, SegmentationHead, UNetDecoder, choose_light_widths
from tests.helpers.small_networks import STRIDES, make_encoder, masked_volumes


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("kind", [UNetDecoder, LightDecoder])
def test_maps_have_the_resolutions_of_the_pyramid(kind, strides):
    net = make_encoder(strides=strides)
    x, _ = masked_volumes(net)
    decoder = kind(net.channels, net.strides)
    maps = decoder(net(x))
    for decoded, level, width in zip(maps, net(x), decoder.channels, strict=True):
        assert decoded.shape == (len(x), width, *level.shape[2:])
    assert SegmentationHead(decoder.channels[0], 3, net.strides[0])(maps[0]).shape == (len(x), 3, *x.shape[2:])


@pytest.mark.parametrize("kind", [UNetDecoder, LightDecoder])
def test_every_level_and_every_weight_gets_a_gradient(kind):
    pyramid = [torch.rand(1, c, n, n, n, requires_grad=True) for c, n in ((4, 8), (6, 4), (8, 2))]
    decoder = kind((4, 6, 8), (1, 2, 2))
    decoder(pyramid)[0].square().sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in pyramid)
    assert all(p.grad.abs().sum() > 0 for n, p in decoder.named_parameters() if not n.endswith("ups.bias"))


def test_light_widths_halve_from_a_quarter_of_the_deepest_one():
    assert choose_light_widths((32, 64, 128, 256)) == (8, 16, 32, 64)
    assert choose_light_widths((4, 4, 8)) == (4, 4, 4)


def test_a_linear_decoder_has_the_same_weights_and_only_lacks_the_last_activation():
    plain, linear = UNetDecoder((4, 8, 8), (1, 2, 2)), UNetDecoder((4, 8, 8), (1, 2, 2), linear=True)
    linear.load_state_dict(plain.state_dict())
    pyramid = [torch.randn(1, c, side, side, side) for c, side in ((4, 16), (8, 8), (8, 4))]
    plain_maps, linear_maps = plain(pyramid), linear(pyramid)
    assert torch.equal(plain_maps[0], F.leaky_relu(linear_maps[0], 0.01)) and (linear_maps[0] < -1).any()
    assert all(torch.equal(a, b) for a, b in zip(plain_maps[1:], linear_maps[1:], strict=True))
