"""Tests that weights of other projects are imported and exported, and compute the same features in both."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medssl.errors import BadInput
from medssl.nn.encoder import as_triples
from medssl.nn.encoders import convnext, dynunet, resenc, residual, segresnet, swinunetr
from medssl.nn.interop import nnunet_network, state_dict_names
from medssl.nn.interop.checkpoint_file import read_checkpoint
from medssl.nn.interop.weight_transfer import load_named_tensors

ROOT = Path(__file__).resolve().parents[3]
DEEP = {"channels": (8, 16, 16), "blocks": (1, 2, 1)}
# In nnU-Net's axis order z, y, x.
STRIDES = {"isotropic": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "anisotropic": ((1, 1, 1), (1, 2, 2), (2, 2, 1))}
KERNELS = {"isotropic": ((3, 3, 3),) * 3, "anisotropic": ((1, 3, 3), (1, 3, 3), (3, 3, 5))}


def read_tensors_of(path):
    return read_checkpoint(path).tensors


def import_encoder(tensors, strides, where):
    """Builds the encoder of a U-Net of nnU-Net, with the report of a transfer of that part alone."""
    network = nnunet_network.read_network(tensors, where, strides)
    encoder = network.encoder.build(network.in_channels)
    renamed = {key: value for key, value in network.tensors.items() if key.startswith("encoder.")}
    unused = network.unused | {network.names[key]: "decoder" for key in network.names.keys() - renamed.keys()}
    unused = {name: reason for name, reason in unused.items() if name in tensors}
    report = load_named_tensors({"encoder": encoder}, renamed, network.names, tensors, unused, where)
    return state_dict_names.ImportedEncoder(network.encoder, encoder, report)


def reversed_axes(triples):
    return tuple(triple[::-1] for triple in triples)


def make_nnunet(
    strides=STRIDES["isotropic"],
    channels=(8, 16, 16),
    blocks=(1, 2, 1),
    bias=True,
    norm=nn.InstanceNorm3d,
    kernels=3,
):
    """Builds nnU-Net's residual U-Net with random weights, including norms and biases."""
    reason = "needs the layer names of dynamic-network-architectures (the `test` extra)"
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet", reason=reason)
    torch.manual_seed(0)
    net = unet.ResidualEncoderUNet(
        1, len(channels), channels, nn.Conv3d, kernels, strides, blocks, 2, [1] * (len(channels) - 1), bias, norm,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    )  # fmt: skip
    for name, p in net.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(p, 0.2, 0.9)
    return net.eval()


def check_same_features(encoder, net):
    """Compares features of one volume to 1e-5 in single precision and to rounding errors in double precision.

    The encoder reads it along x, y, z, nnU-Net along z, y, x.
    """
    x = torch.randn(1, 1, 16, 8, 24)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        features, upstream = (
            encoder.to(dtype).eval()(x.to(dtype)),
            net.to(dtype).encoder(x.to(dtype).permute(0, 1, 4, 3, 2)),
        )
        for a, b in zip(features, upstream, strict=True):
            assert torch.allclose(a, b.permute(0, 1, 4, 3, 2), atol=tolerance)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("norm", [nn.InstanceNorm3d, nn.BatchNorm3d], ids=["instance", "batch"])
@pytest.mark.parametrize("kernels", KERNELS)
def test_an_imported_encoder_computes_the_features_of_nnunet(strides, bias, norm, kernels):
    net = make_nnunet(STRIDES[strides], bias=bias, norm=norm, kernels=KERNELS[kernels])
    imported = import_encoder(net.state_dict(), None, "here")
    assert as_triples(imported.config.strides) == reversed_axes(STRIDES[strides]) and imported.config.bias == bias
    assert imported.encoder.kernels == reversed_axes(KERNELS[kernels])
    check_same_features(imported.encoder, net)


def test_every_tensor_of_the_file_is_reported():
    state = make_nnunet().state_dict()
    report = import_encoder(state, None, "here").report
    counts = {"loaded": 0, "copy": 0, "decoder": 0}
    for e in report.entries:
        counts["loaded" if e.status == "loaded" else "copy" if e.reason.startswith("a copy of") else "decoder"] += 1
        assert e.status == "loaded" or e.reason.startswith("a copy of encoder.") or e.key.startswith("decoder.")
    assert len(report.entries) == len(state) == sum(counts.values()) and min(counts.values()) > 0
    assert {e.reason for e in report.entries if e.status == "loaded"} >= {
        "named encoder.stem.convs.0.conv.weight in the file"
    }


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("strides", STRIDES)
def test_exported_weights_load_strictly_into_nnunets_encoder_and_compute_the_same(strides, norm):
    torch.manual_seed(1)
    axes = {"strides": reversed_axes(STRIDES[strides]), "kernels": reversed_axes(KERNELS[strides])}
    encoder = residual.Config(**DEEP, **axes, norm=norm, bias=True).build(1)
    norms = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
    net = make_nnunet(STRIDES[strides], norm=norms[norm], kernels=KERNELS[strides])
    state = state_dict_names.export_tensors(encoder, "nnunet")
    encoder_state = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    net.encoder.load_state_dict(encoder_state, strict=True)
    result = net.load_state_dict(state, strict=False)
    assert not result.unexpected_keys and not [k for k in result.missing_keys if "encoder." in k]
    check_same_features(encoder, net)


def test_a_preset_with_other_kernels_is_still_a_preset():
    """nnU-Net's plan for thick slices: kernels of 1 x 3 x 3, and no stride across the slices, at the fine stages."""
    strides, kernels = ((1, 1, 1), (1, 2, 2), *[(2, 2, 2)] * 2), ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 2)
    with torch.device("meta"):
        net = make_nnunet(strides, resenc.CHANNELS[:4], resenc.BLOCKS[:4], kernels=kernels)
        state = {k: v.permute(0, 1, 4, 3, 2) if v.ndim == 5 else v for k, v in net.state_dict().items()}
        settings = nnunet_network.infer_encoder_config(state, None, "here")
    assert isinstance(settings, resenc.Config) and settings.size == "S"
    assert settings.kernels == reversed_axes(kernels) and settings.build(1).patch == (8, 8, 4)


def test_the_published_architecture_is_preset_l():
    """Compares names and shapes with the stages, widths and depths of the published weights, without memory."""
    with torch.device("meta"):
        net = make_nnunet(((1, 1, 1), *[(2, 2, 2)] * 5), (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6))
        settings = nnunet_network.infer_encoder_config(net.state_dict(), None, "here")
        assert settings == resenc.Config(size="L")
        encoder = settings.build(1)
    shapes = {k: tuple(v.shape) for k, v in net.encoder.state_dict().items()}
    for key, name in state_dict_names.get_upstream_names(encoder).items():
        assert tuple(encoder.state_dict()[key].shape) == shapes[name.removeprefix("encoder.")]
    assert {f"encoder.{k}" for k in shapes if "all_modules" not in k} == set(
        state_dict_names.get_upstream_names(encoder).values()
    )


def test_a_checkpoint_as_trainers_write_it_is_read_and_nothing_in_it_runs(tmp_path):
    net = make_nnunet()
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    log = {"dice": [np.float64(0.5), np.float32(0.25)], "epoch": 3, "trainer": "name"}
    torch.save({"network_weights": state, "logging": log, "_best_ema": np.float64(0.5)}, tmp_path / "final.pth")
    assert read_tensors_of(tmp_path / "final.pth").keys() == net.state_dict().keys()
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (marker,))

    torch.save({"network_weights": state, "init_args": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(BadInput, match=r"evil.pth: holds objects other than tensors.*safetensors"):
        read_tensors_of(tmp_path / "evil.pth")
    assert not marker.exists()


def test_safetensors_are_read_as_well(tmp_path):
    net = make_nnunet()
    save_file({k: v.clone() for k, v in net.state_dict().items()}, tmp_path / "net.safetensors")
    check_same_features(
        import_encoder(read_tensors_of(tmp_path / "net.safetensors"), None, "here").encoder,
        net,
    )


def test_strides_that_cannot_be_inferred_can_be_given(caplog):
    net = make_nnunet(STRIDES["anisotropic"])
    encoder_tensors = {k: v for k, v in net.state_dict().items() if k.startswith("encoder.")}
    check_same_features(import_encoder(encoder_tensors, STRIDES["anisotropic"], "here").encoder, net)
    import_encoder(encoder_tensors, None, "here")
    assert "assuming 2" in caplog.text


@pytest.fixture
def state():
    return make_nnunet().state_dict()


def test_missing_or_misshapen_tensors_are_named(state):
    plain = {k: v for k, v in state.items() if "all_modules" not in k}
    incomplete = {k: v for k, v in plain.items() if "stages.1.blocks.1.conv2.norm.weight" not in k}
    with pytest.raises(
        BadInput, match=r"1 tensors are missing.*stages\.1\.blocks\.1\.conv2\.norm\.weight \(not in the file"
    ):
        import_encoder(incomplete, None, "here")
    plain["encoder.stages.2.blocks.0.conv2.conv.weight"] = torch.zeros(16, 9, 3, 3, 3)
    with pytest.raises(BadInput, match=r"1 tensors are missing.*stages\.2\.blocks\.0\.conv2\.conv\.weight"):
        import_encoder(plain, None, "here")


def test_a_copy_that_differs_is_reported(state):
    state = {k: v.clone() for k, v in state.items()}
    copy = "encoder.stem.convs.0.all_modules.0.weight"
    state[copy] += 1
    report = import_encoder(state, None, "here").report
    assert [e.key for e in report.entries if e.reason.startswith("differs")] == [copy]


@pytest.mark.parametrize("change", ["kernels", "hole", "another"])
def test_a_checkpoint_without_a_supported_encoder_is_refused(change, state):
    if change == "kernels":
        state = {k: v[..., :2] if v.ndim == 5 else v for k, v in state.items()}
    elif change == "hole":
        state = {k: v for k, v in state.items() if "stages.1" not in k}
    else:
        state = {"backbone.weight": torch.zeros(3)}
    with pytest.raises(BadInput, match="here: "):
        import_encoder(state, None, "here")


def monai_network(settings):
    from monai.networks import nets

    if isinstance(settings, segresnet.Config):
        return nets.SegResNet(init_filters=8, blocks_down=(1, 2), blocks_up=(1,), norm=("group", {"num_groups": 8}))
    if isinstance(settings, dynunet.Config):
        return nets.DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[8, 16, 16], res_block=True)
    return nets.SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2)


MONAI = {
    "segresnet": segresnet.Config(init_filters=8, blocks_down=(1, 2)),
    "dynunet": dynunet.Config(channels=(8, 16, 16), strides=(1, 2, 2)),
    "swinunetr": swinunetr.Config(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2),
}


@pytest.mark.parametrize("name", MONAI)
def test_weights_go_to_monais_network_by_name(name, tmp_path):
    torch.manual_seed(0)
    encoder, net = MONAI[name].build(1), monai_network(MONAI[name])
    state_dict_names.write_checkpoint(state_dict_names.export_tensors(encoder, "monai"), tmp_path / "w.safetensors")
    result = net.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=False)
    assert not result.unexpected_keys
    state = net.state_dict()
    for key, value in encoder.state_dict().items():
        assert torch.equal(state[key], value), key
    rebuilt = MONAI[name].build(1)
    rebuilt.load_state_dict({k: state[k] for k in rebuilt.state_dict()}, strict=True)


def test_torch_files_hold_the_keys_of_nnunet(tmp_path):
    encoder = residual.Config(**DEEP, strides=(1, 2, 2)).build(1)
    state_dict_names.write_checkpoint(state_dict_names.export_tensors(encoder, "nnunet"), tmp_path / "w.pth")
    assert read_tensors_of(tmp_path / "w.pth").keys() == state_dict_names.export_tensors(encoder, "nnunet").keys()
    with pytest.raises(BadInput, match=r"\.safetensors, \.pth or \.pt"):
        state_dict_names.write_checkpoint({}, tmp_path / "w.onnx")


def test_weights_without_a_name_in_the_other_project_are_refused():
    impossible = [(convnext.Config(), "monai"), (residual.Config(norm="group"), "nnunet"), (MONAI["dynunet"], "nnunet")]
    for config, to in impossible:
        with pytest.raises(BadInput, match=f"no names in {to}"):
            state_dict_names.export_tensors(config.build(1), to)


def find_method_calls(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]


def find_unsafe_calls(text):
    """Returns the lines of calls that could unpickle."""
    lines = []
    for call in find_method_calls(ast.parse(text)):
        module = getattr(call.func.value, "id", "")
        keywords = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
        if module == "torch" and call.func.attr == "load" and keywords.get("weights_only") is not True:
            lines.append(call.lineno)
        if module in ("pickle", "dill", "joblib", "cloudpickle") and call.func.attr in ("load", "loads", "Unpickler"):
            lines.append(call.lineno)
        if keywords.get("allow_pickle") is True or keywords.get("weights_only") is False:
            lines.append(call.lineno)
    return lines


def test_loading_never_unpickles():
    files = [p for top in ("medssl", "pipelines", "app", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    assert not {p.name: lines for p in files if (lines := find_unsafe_calls(p.read_text()))}
    unsafe_code = (
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "pickle.loads(b)",
        "np.load(p, allow_pickle=True)",
    )
    for code in unsafe_code:
        assert find_unsafe_calls(code)
