"""Kernels before a norm may have any length: what the network says does not change."""

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.encoder import EncoderConfig, build
from medssl.nn.encoders.convnext import Config as ConvNeXt
from medssl.nn.kernel_norms import lengths, rescale


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_kernels_get_the_lengths_they_are_told_and_say_the_same(norm, bias):
    torch.manual_seed(0)
    one, other = (build(EncoderConfig(channels=(8, 16), strides=(1, 2), norm=norm, bias=bias), 1) for _ in range(2))
    for pair in one.modules():
        if hasattr(pair, "conv"):
            for weight in pair.conv.parameters():
                weight.data.mul_(3)
    x = torch.rand(2, 1, 8, 8, 8)
    before = one(x)
    rescale(one, lengths(other))
    assert lengths(one) == pytest.approx(lengths(other), rel=1e-5)
    for then, now in zip(before, one(x), strict=True):
        assert torch.allclose(then, now, atol=1e-3)


def test_an_encoder_whose_kernels_no_norm_follows_is_refused():
    with pytest.raises(BadInput, match="rescale=true: is for residual encoders"):
        lengths(build(ConvNeXt(channels=(8, 16), strides=(1, 2), blocks=(1, 1)), 1))
