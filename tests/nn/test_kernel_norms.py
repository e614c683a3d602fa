"""Tests that rescaling kernels before a norm does not change the output of the network."""

import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.nn.encoders.convnext import Config as ConvNeXt
from medssl.nn.kernel_norms import compute_kernel_norms, rescale_kernels


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_rescaled_kernels_have_the_given_norms_and_the_same_output(norm, bias):
    torch.manual_seed(0)
    encoder, other = (
        build_encoder(EncoderConfig(channels=(8, 16), strides=(1, 2), norm=norm, bias=bias), 1) for _ in range(2)
    )
    for pair in encoder.modules():
        if hasattr(pair, "conv"):
            for weight in pair.conv.parameters():
                weight.data.mul_(3)
    x = torch.rand(2, 1, 8, 8, 8)
    before = encoder(x)
    rescale_kernels(encoder, compute_kernel_norms(other))
    assert compute_kernel_norms(encoder) == pytest.approx(compute_kernel_norms(other), rel=1e-5)
    for expected, actual in zip(before, encoder(x), strict=True):
        assert torch.allclose(expected, actual, atol=1e-3)


def test_an_encoder_whose_kernels_no_norm_follows_is_refused():
    with pytest.raises(BadInput, match="rescale_kernel_norms=true: needs a residual encoder"):
        compute_kernel_norms(build_encoder(ConvNeXt(channels=(8, 16), strides=(1, 2), blocks=(1, 1)), 1))
