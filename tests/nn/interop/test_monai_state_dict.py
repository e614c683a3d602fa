"""Tests that bare state dicts of MONAI's networks, wrapped as projects publish them, give MONAI's features."""

import pytest
import torch
from monai.networks.nets import SegResNet, SwinUNETR

from medssl.errors import BadInput
from medssl.nn.interop import monai_state_dict
from medssl.nn.interop.checkpoint_file import read_checkpoint

SMALL_SWIN = {"feature_size": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4), "window_size": 3}


def make_swin():
    torch.manual_seed(0)
    return SwinUNETR(1, 14, **SMALL_SWIN).eval()


def swin_features(net, x):
    stages = net.swinViT(x, True)
    finer = (net.encoder1(x), *(b(s) for b, s in zip((net.encoder2, net.encoder3, net.encoder4), stages, strict=False)))
    return [*finer, stages[3], net.encoder10(stages[4])]


WRAPPINGS = {
    "bare": lambda state: state,
    "SuPreM": lambda state: {"net": {f"module.backbone.{k}": v for k, v in state.items()}, "epoch": 3},
    "VoCo": lambda state: {
        "state_dict": {f"module.student.backbone.{k}": v for k, v in state.items()}
        | {"module.teacher.backbone.swinViT.patch_embed.proj.bias": torch.ones(3)}
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_swinunetr_computes_the_features_of_monai_and_lists_what_it_drops(wrapping, tmp_path):
    net = make_swin()
    torch.save(WRAPPINGS[wrapping](net.state_dict()), tmp_path / "swin.pt")
    tensors = read_checkpoint(tmp_path / "swin.pt").tensors
    assert monai_state_dict.is_monai(tensors)
    imported = monai_state_dict.import_state_dict(tensors, "here")
    values = imported.config.model_dump(include=set(SMALL_SWIN))
    assert values == SMALL_SWIN
    x = torch.rand(1, 1, 64, 32, 32)
    for a, b in zip(imported.encoder.eval()(x), swin_features(net, x), strict=True):
        assert (a - b).abs().max() <= 1e-5
    dropped = {e.key for e in imported.report.entries if e.status == "skipped"}
    assert {"decoder5.transp_conv.conv.weight", "out.conv.conv.weight"} <= dropped
    assert ("teacher.backbone.swinViT.patch_embed.proj.bias" in dropped) == (wrapping == "VoCo")


def test_a_transformer_alone_leaves_the_convolution_blocks_fresh():
    """The file of Tang et al. (2022) holds the transformer, with other names of the linear layers."""
    net = make_swin()
    names = {k: k.replace(".mlp.linear", ".mlp.fc") for k in net.swinViT.state_dict()}
    tensors = {names[k]: v for k, v in net.swinViT.state_dict().items()}
    assert monai_state_dict.is_monai(tensors)
    imported = monai_state_dict.import_state_dict(tensors, "here")
    x = torch.rand(1, 1, 64, 32, 32)
    assert (imported.encoder.eval()(x)[4] - net.swinViT(x, True)[3]).abs().max() <= 1e-5
    fresh = [e for e in imported.report.entries if e.reason.startswith("not in the file")]
    assert fresh and all(e.key.startswith("encoder.encoder") for e in fresh)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_segresnet_computes_the_features_of_monai(norm):
    torch.manual_seed(0)
    options = {"num_groups": 8} if norm == "group" else {}
    net = SegResNet(init_filters=8, in_channels=2, blocks_down=(1, 2, 1), blocks_up=(1, 1), norm=(norm, options)).eval()
    imported = monai_state_dict.import_state_dict(net.state_dict(), "here")
    x = torch.rand(1, 2, 16, 16, 16)
    coarse, finer = net.encode(x)
    for a, b in zip(imported.encoder.eval()(x), finer, strict=True):
        assert (a - b).abs().max() <= 1e-5
    assert torch.equal(coarse, finer[-1])


def test_a_missing_tensor_is_named():
    state = make_swin().state_dict()
    del state["encoder1.layer.conv1.conv.weight"]
    with pytest.raises(BadInput, match=r"1 tensors are missing.*encoder1\.layer\.conv1\.conv\.weight"):
        monai_state_dict.import_state_dict(state, "here")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"eva.blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, "a Primus of version 2 or 3"),
        ({"down_tr64.ops.0.conv1.weight": torch.zeros(1, 1, 3, 3, 3)}, "the U-Net of Models Genesis"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "a network for 2D images"),
        ({"stem.weight": torch.zeros(3)}, "tensors such as stem.weight"),
        ({}, "no tensors"),
    ],
)
def test_another_network_is_described(tensors, words):
    assert not monai_state_dict.is_monai(tensors)
    assert monai_state_dict.describe_network(tensors) == words
