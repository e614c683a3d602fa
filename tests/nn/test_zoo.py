"""Tests that every encoder fulfils the same contract, and warns if a mask does not reach all of its layers."""

import copy
import math

import pytest
import torch
from pydantic import TypeAdapter

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import EncoderChoice, build_encoder
from medssl.nn.encoders import (
    convnext,
    dynunet,
    fusion,
    plainconv,
    primus,
    resenc,
    residual,
    segresnet,
    swinunetr,
    wavelet,
)
from medssl.nn.executor import Executor, MaskedExecutor, upsample_mask
from medssl.nn.interop import weight_transfer
from medssl.nn.sparse import VisibleBlocks
from medssl.settings import find_modules
from medssl.tasks.segment import Config as Segment

ODD = {"channels": (5, 7, 9), "strides": (1, 2, (1, 2, 2))}
SMALL = {
    "residual": residual.Config(**ODD),
    "resenc": resenc.Config(size="S"),
    "plainconv": plainconv.Config(**ODD),
    "convnext": convnext.Config(**ODD, kernel=3),
    "segresnet": segresnet.Config(init_filters=9, blocks_down=(1, 1, 1)),
    "dynunet": dynunet.Config(**ODD),
    "primus": primus.Config(channels=(5, 7, 24), strides=(1, 2, (2, 4, 4)), depth=2, num_heads=2),
    "swinunetr": swinunetr.Config(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2),
    "fusion": fusion.Config(**ODD),
    "wavelet": wavelet.Config(channels=(5, 7, 9), strides=(2, 2, (1, 2, 2))),
}
THICK = {"strides": (1, (2, 2, 1), (2, 2, 1)), "kernels": ((3, 3, 1), (3, 3, 1), 3)}
SMALL |= {
    "residual-thick": residual.Config(channels=(5, 7, 9), **THICK),
    "resenc-thick": resenc.Config(size="S", strides=(*THICK["strides"], 2), kernels=(*THICK["kernels"], 3)),
    "plainconv-thick": plainconv.Config(channels=(5, 7, 9), **THICK),
    "dynunet-thick": dynunet.Config(channels=(5, 7, 9), **THICK),
    "primus-gate": primus.Config(channels=(5, 24), strides=(1, (2, 4, 4)), depth=2, num_heads=2, gate="conv"),
    "primus-halo": primus.Config(
        channels=(5, 24), strides=(1, (2, 4, 4)), depth=2, num_heads=2, reach="halo", window=2
    ),
    "primus-cross": primus.Config(channels=(5, 36), strides=(1, (2, 4, 4)), depth=2, num_heads=3, reach="cross"),
    "primus-outlook": primus.Config(channels=(5, 24), strides=(1, (2, 4, 4)), depth=2, num_heads=2, reach="outlook"),
    "fusion-thick": fusion.Config(channels=(5, 7, 9), **THICK),
}
SPARSE = [name for name in SMALL if name != "swinunetr"]


def make_network(name, in_channels=3):
    torch.manual_seed(0)
    return build_encoder(SMALL[name], in_channels)


def volumes(net, batch=1):
    """Returns volumes of two patches along each axis, or the smallest that the network accepts."""
    size = (64, 32, 32) if net.patch == (32, 32, 32) else [2 * c for c in net.patch]
    return torch.rand(batch, net.in_channels, *size, generator=torch.Generator().manual_seed(1))


def loss_of(pyramid):
    return sum((p.float() * torch.sin(torch.arange(p.numel())).view_as(p)).sum() for p in pyramid)


def test_every_encoder_that_can_be_chosen_is_tried_here():
    assert {config.name for config in SMALL.values()} == find_modules("medssl.nn.encoders").keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_stored_config_rebuilds_the_same_network(name):
    choice = TypeAdapter(EncoderChoice).validate_python(SMALL[name].model_dump(mode="json"))
    assert choice == SMALL[name] and choice.name == SMALL[name].name
    first, again = make_network(name).state_dict(), make_network(name).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", SMALL)
def test_the_pyramid_has_the_stated_channels_and_strides_and_decodes(name):
    net = make_network(name)
    x = volumes(net)
    size = list(x.shape[2:])
    pyramid = net(x)
    for level, channels, stride in zip(pyramid, net.channels, net.strides, strict=True):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        assert level.shape == (1, channels, *size)
    assert net.patch == tuple(math.prod(axis) for axis in zip(*net.strides, strict=True))
    maps = UNetDecoder(net.channels, net.strides, net.kernels)(pyramid)
    assert [m.shape for m in maps] == [level.shape for level in pyramid]
    assert all(torch.equal(a, b) for a, b in zip(pyramid, net(x), strict=True))


@pytest.mark.parametrize("name", [name for name in SMALL if name.endswith("thick")])
def test_kernels_of_one_voxel_keep_thick_slices_apart(name):
    """Until the first kernel or stride across them, and in the decoder too, no slice reads another one."""
    torch.manual_seed(0)
    net = SMALL[name].model_copy(update={"norm": "batch"}).build(1).eval()  # without moments over all slices
    x = volumes(net)
    other = x.clone()
    other[..., 1] += 1
    is_changed = [(a != b).flatten(0, 3).any(0) for a, b in zip(net(x), net(other), strict=True)]
    assert [changed.sum().item() for changed in is_changed[:2]] == [1, 1] and is_changed[2].sum() > 1
    convs = [m for m in UNetDecoder(net.channels, net.strides, net.kernels).merges[0] if hasattr(m, "kernel_size")]
    assert {conv.kernel_size for conv in convs} == {(3, 3, 1)}


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_gets_a_finite_gradient(name):
    net = make_network(name)
    loss_of(net(volumes(net))).backward()
    check_gradients(net)


def check_gradients(net):
    for key, p in net.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), key
        assert p.ndim == 1 or p.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_learns_the_same_within_its_precision(name):
    net = make_network(name)
    x = torch.rand(1, 3, 3 * net.patch[0], *volumes(net).shape[3:])
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x)
    for a, b in zip(half, net(x), strict=True):
        assert (a.float() - b).square().mean() < 0.02 * b.square().mean()
    loss_of(half).backward()
    check_gradients(net)


def test_a_depth_with_wrong_gradients_in_half_precision_is_refused():
    net = make_network("residual")
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            net(volumes(net))
        with pytest.raises(BadInput, match=r"use a crop of 6 there, or train\.precision=32"):
            net(volumes(net))


def hide_first_patch(x, net):
    visible = torch.ones(len(x), 1, *(n // c for n, c in zip(x.shape[2:], net.patch, strict=True)), dtype=torch.bool)
    visible[:, :, 0, 0, 0] = False
    return visible


@pytest.mark.parametrize("name", SMALL)
def test_hidden_voxels_have_no_effect_and_hidden_patches_are_zero(name):
    net = make_network(name)
    x = volumes(net)
    visible = hide_first_patch(x, net)
    other = torch.where(upsample_mask(visible, tuple(x.shape[2:])), x, torch.nan)
    for a, b in zip(net(x, visible), net(other, visible), strict=True):
        assert (a - b).abs().max() == 0
        assert not (a != 0).any(1, keepdim=True)[~upsample_mask(visible, tuple(a.shape[2:]))].any()


@pytest.mark.parametrize("name", SMALL)
def test_a_sparse_encoder_runs_visible_patches_only_and_another_warns(name, caplog):
    net = make_network(name)
    x = volumes(net)
    assert type(net.build_executor(x, None)) is Executor
    assert type(net.build_executor(x, hide_first_patch(x, net))) is (
        VisibleBlocks if name in SPARSE else MaskedExecutor
    )
    net.build_executor(x, hide_first_patch(x, net))
    assert net.sparse == (name in SPARSE)
    assert caplog.text.count("treat hidden patches as zeros") == (0 if net.sparse else 1)


@pytest.mark.parametrize("name", SMALL)
def test_only_a_sparse_encoder_excludes_hidden_patches_from_its_norms(name):
    """Additional hidden patches next to a volume must not change a sparse encoder, in particular not its norms."""
    net = make_network(name, in_channels=1).double()
    x = volumes(net).double()
    wide = torch.nn.functional.pad(x, (0, net.patch[2]))
    visible = torch.ones(1, 1, *(n // c for n, c in zip(wide.shape[2:], net.patch, strict=True)), dtype=torch.bool)
    visible[..., -1] = False
    narrow, wider = net(x, visible[..., :-1])[-1], net(wide, visible)[-1]
    assert torch.allclose(narrow, wider[..., : narrow.shape[-1]], atol=1e-9) == net.sparse


@pytest.mark.parametrize("name", SMALL)
def test_a_finetuning_step_reduces_the_loss(name):
    net = make_network(name, in_channels=1)
    x = volumes(net)[:, None]
    size = torch.tensor([x.shape[3:]])
    crops = Crops(
        x, torch.zeros(1, 1, 3, dtype=torch.int64), size, torch.eye(4)[None, None], torch.zeros(1, dtype=torch.int64),
        label=(x[:, :, 0] > 0.5).long(),
    )  # fmt: skip
    chosen = Segment()
    task = config.class_for_config(chosen)(chosen, net, 2, tuple(x.shape[3:]))
    optimiser = torch.optim.AdamW(task.parameters(), 1e-3)
    before = task.step(crops).loss
    before.backward()
    optimiser.step()
    assert task.step(crops).loss < before


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "resenc", "strides": [1, 2]},
        {"name": "convnext", "blocks": [1]},
        {"name": "dynunet", "channels": [8, 16], "strides": [1, 2]},
        {"name": "dynunet", "strides": [1, 2, 2, 4]},
        {"name": "residual", "kernels": [3, 3]},
        {"name": "fusion", "blocks": [1, 1]},
        {"name": "wavelet", "channels": [8, 16], "strides": [1, 2]},
        {"name": "resenc", "kernels": [3] * 5 + [[3, 3, 2]]},
        {"name": "dynunet", "kernels": [3, 3, 3, 0]},
        {"name": "segresnet", "norm": "layer"},
        {"name": "primus", "num_heads": 5},
        {"name": "primus", "channels": [192]},
        {"name": "swinunetr", "feature_size": 20},
    ],
    ids=lambda w: "-".join(map(str, w.values())),
)
def test_an_impossible_network_is_refused(wrong):
    with pytest.raises(ValueError, match=r"level|no multiple of|1 or 2|at least 3|Input should be|must be odd"):
        TypeAdapter(EncoderChoice).validate_python(wrong)


def test_a_crop_too_small_for_swin_is_refused():
    with pytest.raises(BadInput, match="64 voxels"):
        make_network("swinunetr")(torch.rand(1, 3, 32, 32, 32))


@pytest.mark.parametrize("name", ["residual", "convnext", "segresnet", "dynunet", "wavelet"])
def test_gradients_in_bf16_are_those_of_double_precision(name):
    net = make_network(name, in_channels=1)
    x = torch.rand(2, 1, *(3 * c for c in net.patch), generator=torch.Generator().manual_seed(1))
    weights = [torch.rand(level.shape).double() + torch.randn(1, level.shape[1], 1, 1, 1) for level in net(x)]
    gradients = []
    for network, volume, is_half in ((net, x, True), (copy.deepcopy(net).double(), x.double(), False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            pyramid = network(volume)
        sum((level.double() * w).mean() for level, w in zip(pyramid, weights, strict=True)).backward()
        gradients.append([p.grad.double() for p in network.parameters() if p.grad is not None])
    half, exact = (torch.cat([g.flatten() for g in tensors]) for tensors in gradients)
    assert torch.nn.functional.cosine_similarity(half, exact, dim=0) > 0.95
    large = max(g.norm() for g in gradients[1]) / 20
    assert all(0.6 < a.norm() / b.norm() < 1.6 for a, b in zip(*gradients, strict=True) if b.norm() > large)


def test_no_layer_norm_of_an_encoder_is_torchs_own():
    """Its gradients saturate in bf16 on a CPU."""
    assert not [m for name in SMALL for m in make_network(name).modules() if type(m) is torch.nn.LayerNorm]


@pytest.mark.parametrize("size", [3, 4, 6])
def test_a_depthwise_convolution_wider_than_its_volume_has_exact_gradients_in_bf16(size):
    """On some processors torch reads uninitialised memory there."""
    conv = torch.nn.Conv3d(8, 8, 7, padding=3, groups=8)
    x, grad = torch.randn(1, 8, size, size, size), torch.randn(1, 8, size, size, size)
    (expected,) = torch.autograd.grad(conv(x), conv.weight, grad)
    with torch.autocast("cpu", torch.bfloat16):
        y = Executor().conv(conv, x)
    assert y.dtype == torch.bfloat16
    (actual,) = torch.autograd.grad(y, conv.weight, grad.bfloat16())
    assert (actual - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("kind", [residual, plainconv])
def test_an_encoder_standardizes_its_own_input_and_hidden_voxels_stay_hidden(kind):
    torch.manual_seed(0)
    plain = kind.Config(**ODD, norm="batch").build(2).eval()
    own = kind.Config(**ODD, norm="batch", input_mean_std=((0.4, 0.1), (0.2, 0.5))).build(2).eval()
    own.load_state_dict(plain.state_dict(), strict=True)
    x = volumes(plain)
    mean, std = torch.tensor([0.4, 0.2]).view(1, 2, 1, 1, 1), torch.tensor([0.1, 0.5]).view(1, 2, 1, 1, 1)
    visible = hide_first_patch(x, plain)
    for mask in (None, visible):
        for a, b in zip(own(x, mask), plain((x - mean) / std, mask), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(BadInput, match="1 input channels; give one pair"):
        kind.Config(**ODD, input_mean_std=((0.4, 0.1), (0.2, 0.5))).build(1)


@pytest.mark.parametrize("name", SMALL)
def test_weights_for_channels_in_another_order_give_the_same_features(name):
    whole, other = (make_network(name).eval() for _ in range(2))
    spec = TrainedModel.model_validate(
        {"encoder": SMALL[name], "in_channels": 3, "normalization": {}, "patch_size": (32, 32, 32), "spacing_mm": None}
    )
    for weight in whole.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    tensors = {f"encoder.{key}": value for key, value in whole.state_dict().items()}
    layers = spec.find_input_layers()
    assert bool(layers) or name.startswith("fusion")  # which has layers for each channel
    report = weight_transfer.fill_parts(tensors, {"encoder": other}, "here", (2, 0, 1), layers)
    assert report.count("skipped") == 0
    x = volumes(whole)
    with torch.no_grad():
        for first, second in zip(whole(x), other(x[:, [2, 0, 1]]), strict=True):
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(whole(x)[-1], other(x)[-1], atol=1e-4)
