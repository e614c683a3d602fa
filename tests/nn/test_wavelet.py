"""The first level of the wavelet encoder is an orthonormal Haar transform without weights, local to its blocks."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medssl.nn.encoders.wavelet import Config, transform_haar
from medssl.nn.executor import MaskedExecutor, upsample_mask
from medssl.nn.interop.weight_transfer import fill_parts
from medssl.nn.sparse import VisibleBlocks


def make_encoder(strides=(2, 2), **settings):
    torch.manual_seed(0)
    return Config(channels=(5, 7), strides=strides, **settings).build(2)


def transform_with_numpy(x):
    """Returns the bands by the definition: each is a product of a low-pass or high-pass filter along each axis."""
    filters = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    b, c, i, j, k = x.shape
    blocks = x.reshape(b, c, i // 2, 2, j // 2, 2, k // 2, 2)
    bands = np.einsum("bcpxqyrz,dx,ey,fz->bcdefpqr", blocks, filters, filters, filters)
    return bands.reshape(b, c, 8, i // 2, j // 2, k // 2)


def test_bands_are_those_of_the_definition():
    x = torch.rand(2, 3, 4, 6, 8, dtype=torch.float64)
    np.testing.assert_allclose(transform_haar(x).numpy(), transform_with_numpy(x.numpy()), rtol=0, atol=1e-14)


def test_the_transform_keeps_energy_and_distances():
    x, y = torch.rand(2, 3, 2, 4, 6, 8, dtype=torch.float64)
    bands, others = transform_haar(x), transform_haar(y)
    torch.testing.assert_close(bands.square().sum(), x.square().sum(), rtol=1e-13, atol=0)
    torch.testing.assert_close((bands * others).sum(), (x * y).sum(), rtol=1e-13, atol=0)


def test_a_constant_volume_has_a_low_pass_band_only():
    bands = transform_haar(torch.full((1, 1, 4, 4, 4), 0.3))
    torch.testing.assert_close(bands[:, :, 0], torch.full((1, 1, 2, 2, 2), 0.3 * 8**0.5))
    assert not bands[:, :, 1:].any()


def test_the_network_reads_moduli_of_the_high_pass_bands():
    """An inverted contrast changes the low-pass band only, so an encoder that does not read it sees no difference."""
    net = make_encoder()
    x = torch.rand(1, 2, 8, 8, 8)
    assert not torch.equal(net(x)[0], net(-x)[0])
    with torch.no_grad():
        net.stem.conv.weight[:, ::8] = 0
    assert torch.equal(net(x)[0], net(-x)[0]) and net(x)[0].abs().max() > 0.1


def test_small_differences_survive_in_half_precision():
    x = 100 + torch.rand(1, 1, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transform_haar(x), transform_haar(x.clone())) and transform_haar(x).dtype == torch.float32
        assert transform_haar(x)[:, :, 1:].abs().max() > 0.1


def test_the_transform_has_no_weights():
    assert {key.partition(".")[0] for key in make_encoder().state_dict()} == {"stem", "levels"}


@pytest.mark.parametrize("strides", [(2, 2), ((4, 2, 2), 1)])
def test_visible_patches_alone_give_the_features_of_the_masked_volume(strides):
    net = make_encoder(strides).double()
    x = torch.rand(2, 2, *(3 * side for side in net.patch), dtype=torch.float64)
    visible = torch.rand(2, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    other = torch.where(upsample_mask(visible, tuple(x.shape[2:])), x, torch.nan)
    sparse = net(other, visible)
    assert isinstance(net.build_executor(x, visible), VisibleBlocks)
    net.dense = True
    assert isinstance(net.build_executor(x, visible), MaskedExecutor)
    for actual, expected in zip(sparse, net(x, visible), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strides", [(1, 2), (3, 2), ((2, 2, 1), 2)])
def test_a_first_stride_that_is_odd_is_refused(strides):
    with pytest.raises(ValidationError, match=r"strides\[0\] is .* even stride"):
        Config(channels=(5, 7), strides=strides)


def test_more_input_channels_share_the_weights_of_each_band():
    whole, single = (Config(channels=(5,), strides=(2,)).build(n).eval() for n in (2, 1))
    fill_parts({f"encoder.{k}": v for k, v in single.state_dict().items()}, {"encoder": whole}, "here")
    x = torch.rand(1, 1, 4, 4, 4)
    torch.testing.assert_close(whole(x.expand(-1, 2, -1, -1, -1))[0], single(x)[0], rtol=0, atol=1e-5)
