"""Weights of other people's networks come in, ours go out, and both compute the same there and here."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medssl.errors import BadInput
from medssl.nn.encoder import triples
from medssl.nn.encoders import convnext, dynunet, resenc, residual, segresnet, swinunetr
from medssl.nn.interop import state_dict_names as keymap

ROOT = Path(__file__).resolve().parents[3]
DEEP = {"channels": (8, 16, 16), "blocks": (1, 2, 1)}
STRIDES = {"isotropic": ((1, 1, 1), (2, 2, 2), (2, 2, 2)), "anisotropic": ((1, 1, 1), (1, 2, 2), (2, 2, 1))}


def theirs(strides=STRIDES["isotropic"], channels=(8, 16, 16), blocks=(1, 2, 1), bias=True, norm=nn.InstanceNorm3d):
    """nnU-Net's residual U-Net with random weights, norms included."""
    why = "needs the layer names of dynamic-network-architectures (the `test` extra)"
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet", reason=why)
    torch.manual_seed(0)
    net = unet.ResidualEncoderUNet(
        1, len(channels), channels, nn.Conv3d, 3, strides, blocks, 2, [1] * (len(channels) - 1), bias, norm,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    )  # fmt: skip
    for name, p in net.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(p, 0.2, 0.9)
    return net.eval()


def same_features(ours, net):
    """To 1e-5 as they run, and exactly but for what double precision rounds off."""
    x = torch.randn(1, 1, 16, 16, 16)
    for kind, apart in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        for a, b in zip(ours.to(kind).eval()(x.to(kind)), net.to(kind).encoder(x.to(kind)), strict=True):
            assert torch.allclose(a, b, atol=apart)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("norm", [nn.InstanceNorm3d, nn.BatchNorm3d], ids=["instance", "batch"])
def test_an_adopted_encoder_computes_what_nnunets_does(strides, bias, norm):
    net = theirs(STRIDES[strides], bias=bias, norm=norm)
    adopted = keymap.adopt(net.state_dict(), None, "here")
    assert triples(adopted.choice.strides) == STRIDES[strides] and adopted.choice.bias == bias
    same_features(adopted.encoder, net)


def test_every_tensor_of_their_file_is_told_of():
    state = theirs().state_dict()
    ledger = keymap.adopt(state, None, "here").ledger
    fates = {"loaded": 0, "copy": 0, "decoder": 0}
    for e in ledger.entries:
        fates["loaded" if e.fate == "loaded" else "copy" if e.reason.startswith("a copy of") else "decoder"] += 1
        assert e.fate == "loaded" or e.reason.startswith("a copy of encoder.") or e.key.startswith("decoder.")
    assert len(ledger.entries) == len(state) == sum(fates.values()) and min(fates.values()) > 0
    assert {e.reason for e in ledger.entries if e.fate == "loaded"} >= {"is encoder.stem.convs.0.conv.weight there"}


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("strides", STRIDES)
def test_ours_loads_strictly_into_nnunets_encoder_and_computes_the_same_there(strides, norm):
    torch.manual_seed(1)
    ours = residual.Config(**DEEP, strides=STRIDES[strides], norm=norm, bias=True).build(1)
    net = theirs(STRIDES[strides], norm={"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}[norm])
    state = keymap.export(ours, "nnunet")
    encoder = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    net.encoder.load_state_dict(encoder, strict=True)
    missed = net.load_state_dict(state, strict=False)
    assert not missed.unexpected_keys and not [k for k in missed.missing_keys if "encoder." in k]
    same_features(ours, net)


def test_the_published_architecture_is_preset_l():
    """Names and shapes alone, on no memory: stages, widths and depths of the published weights."""
    with torch.device("meta"):
        net = theirs(((1, 1, 1), *[(2, 2, 2)] * 5), (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6))
        choice = keymap.describe(net.state_dict(), None, "here")
        assert choice == resenc.Config(size="L")
        ours = choice.build(1)
    shapes = {k: tuple(v.shape) for k, v in net.encoder.state_dict().items()}
    for key, name in keymap.names(ours).items():
        assert tuple(ours.state_dict()[key].shape) == shapes[name.removeprefix("encoder.")]
    assert {f"encoder.{k}" for k in shapes if "all_modules" not in k} == set(keymap.names(ours).values())


def test_a_checkpoint_as_trainers_write_it_is_read_and_nothing_in_it_runs(tmp_path):
    net = theirs()
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    log = {"dice": [np.float64(0.5), np.float32(0.25)], "epoch": 3, "trainer": "name"}
    torch.save({"network_weights": state, "logging": log, "_best_ema": np.float64(0.5)}, tmp_path / "final.pth")
    assert keymap.read(tmp_path / "final.pth").keys() == net.state_dict().keys()
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"network_weights": state, "init_args": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(BadInput, match=r"evil.pth: more than tensors.*safetensors"):
        keymap.read(tmp_path / "evil.pth")
    assert not ran.exists()


def test_safetensors_are_read_as_well(tmp_path):
    net = theirs()
    save_file({k: v.clone() for k, v in net.state_dict().items()}, tmp_path / "net.safetensors")
    same_features(keymap.adopt(keymap.read(tmp_path / "net.safetensors"), None, "here").encoder, net)


def test_strides_that_nothing_tells_of_can_be_given(caplog):
    net = theirs(STRIDES["anisotropic"])
    alone = {k: v for k, v in net.state_dict().items() if k.startswith("encoder.")}
    same_features(keymap.adopt(alone, STRIDES["anisotropic"], "here").encoder, net)
    keymap.adopt(alone, None, "here")
    assert "taken for 2" in caplog.text


@pytest.fixture
def state():
    return theirs().state_dict()


def test_what_is_missing_or_misshapen_is_named(state):
    plain = {k: v for k, v in state.items() if "all_modules" not in k}
    cut = {k: v for k, v in plain.items() if "stages.1.blocks.1.conv2.norm.weight" not in k}
    with pytest.raises(
        BadInput, match=r"1 tensors of the encoder.*levels\.1\.1\.second\.norm\.weight \(not in the file"
    ):
        keymap.adopt(cut, None, "here")
    plain["encoder.stages.2.blocks.0.conv2.conv.weight"] = torch.zeros(16, 9, 3, 3, 3)
    with pytest.raises(BadInput, match=r"1 tensors of the encoder.*levels\.2\.0\.second\.conv\.weight"):
        keymap.adopt(plain, None, "here")


def test_a_copy_that_differs_is_told_of(state):
    state = {k: v.clone() for k, v in state.items()}
    copy = "encoder.stem.convs.0.all_modules.0.weight"
    state[copy] += 1
    ledger = keymap.adopt(state, None, "here").ledger
    assert [e.key for e in ledger.entries if e.reason.startswith("differs")] == [copy]


@pytest.mark.parametrize("change", ["kernels", "hole", "another"])
def test_what_is_no_residual_encoder_of_cubes_is_refused(change, state):
    if change == "kernels":
        state = {k: v[..., :1] if v.ndim == 5 else v for k, v in state.items()}
    elif change == "hole":
        state = {k: v for k, v in state.items() if "stages.1" not in k}
    else:
        state = {"backbone.weight": torch.zeros(3)}
    with pytest.raises(BadInput, match="here: "):
        keymap.adopt(state, None, "here")


def monai_network(choice):
    from monai.networks import nets

    if isinstance(choice, segresnet.Config):
        return nets.SegResNet(init_filters=8, blocks_down=(1, 2), blocks_up=(1,), norm=("group", {"num_groups": 8}))
    if isinstance(choice, dynunet.Config):
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
    ours, net = MONAI[name].build(1), monai_network(MONAI[name])
    keymap.write(keymap.export(ours, "monai"), tmp_path / "w.safetensors")
    missed = net.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=False)
    assert not missed.unexpected_keys
    state = net.state_dict()
    for key, value in ours.state_dict().items():
        assert torch.equal(state[key], value), key
    rebuilt = MONAI[name].build(1)
    rebuilt.load_state_dict({k: state[k] for k in rebuilt.state_dict()}, strict=True)


def test_torch_files_hold_what_nnunet_looks_for(tmp_path):
    ours = residual.Config(**DEEP, strides=(1, 2, 2)).build(1)
    keymap.write(keymap.export(ours, "nnunet"), tmp_path / "w.pth")
    assert keymap.read(tmp_path / "w.pth").keys() == keymap.export(ours, "nnunet").keys()
    with pytest.raises(BadInput, match=r"\.safetensors, \.pth or \.pt"):
        keymap.write({}, tmp_path / "w.onnx")


def test_weights_that_have_no_name_there_are_refused():
    foreign = [(convnext.Config(), "monai"), (residual.Config(norm="group"), "nnunet"), (MONAI["dynunet"], "nnunet")]
    for config, to in foreign:
        with pytest.raises(BadInput, match=f"no names in {to}"):
            keymap.export(config.build(1), to)


def calls(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]


def unsafe(text):
    """Every call in a file that could unpickle."""
    found = []
    for call in calls(ast.parse(text)):
        owner = getattr(call.func.value, "id", "")
        safe = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
        if owner == "torch" and call.func.attr == "load" and safe.get("weights_only") is not True:
            found.append(call.lineno)
        if owner in ("pickle", "dill", "joblib", "cloudpickle") and call.func.attr in ("load", "loads", "Unpickler"):
            found.append(call.lineno)
        if safe.get("allow_pickle") is True or safe.get("weights_only") is False:
            found.append(call.lineno)
    return found


def test_loading_never_unpickles():
    files = [p for top in ("medssl", "pipelines", "app", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    assert not {p.name: lines for p in files if (lines := unsafe(p.read_text()))}
    faults = "torch.load(p)", "torch.load(p, weights_only=False)", "pickle.loads(b)", "np.load(p, allow_pickle=True)"
    for fault in faults:
        assert unsafe(fault)
