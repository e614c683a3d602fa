"""Tests that whole U-Nets of nnU-Net compute the same outputs here, from the tensors of their checkpoints."""

import pytest
import torch
from torch import nn

from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoders import plainconv, residual
from medssl.nn.interop import nnunet_network
from medssl.nn.interop.weight_transfer import load_named_tensors
from medssl.tasks.segment import Config as SegmentConfig

# In nnU-Net's axis order z, y, x.
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1))
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
CHANNELS = (8, 12, 16, 16)


def make_unet(kind, in_channels=2, num_classes=3, bias=True, norm=nn.InstanceNorm3d, decoder_convs=None, seed=0):
    """Builds a U-Net of dynamic-network-architectures with random weights, including norms and biases."""
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="needs dynamic-network-architectures (the `test` extra)",
    )
    torch.manual_seed(seed)
    network = getattr(unet, kind)
    convs = decoder_convs or ([1] * 3 if kind == "ResidualEncoderUNet" else [2] * 3)
    net = network(
        in_channels, 4, CHANNELS, nn.Conv3d, KERNELS, STRIDES, (1, 2, 2, 2), num_classes, convs, bias, norm,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    for name, p in net.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(p, 0.2, 0.9)
    return net.eval()


def build_task(network, tensors):
    """Builds the segmentation network of medssl with the weights of a U-Net."""
    model = TrainedModel(
        encoder=network.encoder,
        in_channels=network.in_channels,
        normalization=IntensityNormalization(),
        spacing_mm=None,
        patch_size=(16, 16, 16),
        task=SegmentConfig(
            deep_supervision_levels=network.num_heads,
            decoder_convs=network.decoder_convs,
            preactivation_head=False,
        ),
        labels={n: f"class {n}" for n in range(1, network.num_outputs)},
    )
    task = model.build_task()
    report = load_named_tensors(task.transferable(), network.tensors, network.names, tensors, network.unused, "here")
    return task.eval(), report


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_a_whole_network_computes_the_outputs_of_nnunet(kind, bias):
    net = make_unet(kind, bias=bias)
    state = net.state_dict()
    network = nnunet_network.read_network(state, "here", input_mean_std=((0.4, 0.2), (0.1, 0.3)))
    assert isinstance(network.encoder, plainconv.Config if kind == "PlainConvUNet" else residual.Config)
    task, report = build_task(network, state)
    x = torch.rand(1, 2, 16, 32, 8)  # along x, y, z
    mean, std = (torch.tensor(v).view(1, 2, 1, 1, 1) for v in ((0.4, 0.1), (0.2, 0.3)))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        task, net = task.to(dtype), net.to(dtype)
        maps = task.decoder(task.encoder(x.to(dtype)))
        outputs = [head(m) for head, m in zip(task.heads, maps, strict=False)]
        upstream = net(((x.to(dtype) - mean) / std).permute(0, 1, 4, 3, 2))
        assert len(outputs) == len(upstream) == 3
        for a, b in zip(outputs, upstream, strict=True):
            assert (a - b.permute(0, 1, 4, 3, 2)).abs().max() <= tolerance * b.abs().max()
    assert {name for name in state if name not in network.names.values()} == set(network.unused)
    assert len([e for e in report.entries if e.key in state or e.status == "loaded"]) >= len(state)


def test_tensors_that_are_not_used_have_a_reason():
    network = nnunet_network.read_network(make_unet("PlainConvUNet").state_dict(), "here")
    reasons = {reason.partition(" of ")[0] for reason in network.unused.values()}
    assert reasons == {"a copy", nnunet_network.REMOVED_BIAS}


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_a_decoder_that_cannot_be_used_leaves_the_encoder(kind):
    batch = nnunet_network.read_network(make_unet(kind, norm=nn.BatchNorm3d).state_dict(), "here")
    mixed = nnunet_network.read_network(make_unet(kind, decoder_convs=[2, 2, 1]).state_dict(), "here")
    for network, word in ((batch, "batch norm"), (mixed, "same number of convolutions")):
        assert (network.decoder_convs, network.num_outputs) == (0, 0)
        assert {key.partition(".")[0] for key in network.tensors} == {"encoder"}
        assert any(word in reason for reason in network.unused.values())


def test_transposed_axes_are_put_in_the_order_of_a_store():
    """nnU-Net's plans may turn the arrays, here to y, z, x, so that the axis of thick slices comes first."""
    net = make_unet("PlainConvUNet", in_channels=1)
    network = nnunet_network.read_network(net.state_dict(), "here", axes=(2, 0, 1))
    task, _ = build_task(network, net.state_dict())
    x = torch.rand(1, 1, 16, 8, 16)
    output = task.heads[0](task.decoder(task.encoder(x))[0])
    upstream = net(x.permute(0, 1, 3, 4, 2))[0].permute(0, 1, 4, 2, 3)
    assert (output - upstream).abs().max() <= 1e-5 * upstream.abs().max()


def test_a_missing_layer_is_named():
    state = make_unet("PlainConvUNet").state_dict()
    hole = {name: value for name, value in state.items() if ".stages.2." not in name or name.startswith("decoder.")}
    with pytest.raises(BadInput, match="stage 2 has no layer; the checkpoint is incomplete"):
        nnunet_network.read_network({k: v for k, v in hole.items() if "decoder.encoder" not in k}, "here")
