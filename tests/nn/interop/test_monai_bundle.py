"""Tests that the encoder of a MONAI bundle is imported and no code of the bundle is run."""

import json

import pytest
import torch
from monai.networks import nets

from medssl import cli
from medssl.errors import BadInput
from medssl.nn.encoders import segresnet
from medssl.nn.interop import monai_bundle
from medssl.nn.interop.bundle_config import BundleConfig
from medssl.run import Run

SEG = {"_target_": "SegResNet", "in_channels": 2, "init_filters": 8, "blocks_down": [1, 2, 1], "blocks_up": [1, 1]}
DYN = {
    "_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
    "kernel_size": [3, [3, 3, 3], 3], "strides": [1, 2, [2, 2, 1]], "upsample_kernel_size": [2, [2, 2, 1]],
    "filters": [4, 8, 8], "res_block": True,
}  # fmt: skip
SWIN = {
    "_target_": "SwinUNETR", "in_channels": 1, "out_channels": 3, "feature_size": 12, "num_heads": [1, 2, 4, 8],
    "depths": [1, 1, 1, 1], "use_checkpoint": True,
}  # fmt: skip


def make_bundle(folder, network, **values):
    """Writes a bundle with random weights of a MONAI network, which is returned."""
    torch.manual_seed(0)
    arguments = {key: value for key, value in network.items() if key != "_target_"}
    net = getattr(nets, network["_target_"].rpartition(".")[2])(**arguments).eval()
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    configuration = {"imports": ["$import os"], "network_def": network, "network": "$@network_def.to(@device)"} | values
    (folder / "configs/inference.json").write_text(json.dumps(configuration))
    torch.save(net.state_dict(), folder / "models/model.pt")
    return net


def import_encoder(folder):
    return monai_bundle.import_encoder(BundleConfig.read(folder), monai_bundle.read_weights(folder))


@pytest.mark.parametrize(
    "network",
    [SEG, SEG | {"norm": ["instance", {"affine": True}]}, DYN, DYN | {"res_block": False, "norm_name": "batch"}, SWIN],
    ids=["segresnet", "instance", "dynunet", "plain", "swinunetr"],
)
def test_every_tensor_of_the_encoder_comes_from_the_bundle(tmp_path, network):
    net = make_bundle(tmp_path, network)
    imported = import_encoder(tmp_path)
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in imported.encoder.state_dict().items())
    assert imported.encoder.in_channels == network["in_channels"]
    assert {e.key.partition(".")[0] for e in imported.report.entries if e.status == "loaded"} == {"encoder"}


def test_the_features_are_those_of_the_network(tmp_path):
    net = make_bundle(tmp_path, SEG)
    x = torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        _, expected = net.encode(x)
        features = import_encoder(tmp_path).encoder.eval()(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(features, expected, strict=True))


def test_the_command_writes_a_run_that_records_the_source(tmp_path, capsys):
    (tmp_path / "brats").mkdir()
    make_bundle(tmp_path / "brats", SEG | {"in_channels": 1})
    arguments = [str(tmp_path / "brats"), "--out", str(tmp_path / "run"), "--licence", "Apache-2.0"]
    assert cli.run("import-weights", arguments) == 2 and "--encoder-only" in capsys.readouterr().err
    arguments.append("--encoder-only")
    assert cli.run("import-weights", arguments) == 0
    assert "encoder.name=segresnet" in capsys.readouterr().out
    source = Run.open(tmp_path / "run").metadata["data"]
    assert (source["file"], source["licence"], len(source["sha256"])) == ("brats", "Apache-2.0", 64)
    assert (
        cli.run("import-weights", [*arguments[:2], str(tmp_path / "more"), *arguments[3:], "--strides", "[1,2,2]"]) == 2
    )


def test_a_reference_to_a_top_level_value_is_resolved(tmp_path):
    make_bundle(tmp_path, SEG)
    configuration = json.loads((tmp_path / "configs/inference.json").read_text())
    configuration |= {"filters": 8, "network_def": SEG | {"init_filters": "@filters"}}
    (tmp_path / "configs/inference.json").write_text(json.dumps(configuration))
    assert import_encoder(tmp_path).config == segresnet.Config(init_filters=8, blocks_down=(1, 2, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_target_": "UNet"}, "the network is UNet"),
        ({"_target_": "os.system"}, "the network is os.system"),
        ({"_target_": "evil.SegResNet"}, "the network is evil.SegResNet"),
        ({"in_channels": "$__import__('os').mkdir('owned')"}, "network_def#in_channels is the expression"),
        ({"init_filters": "@nowhere"}, "network_def#init_filters refers to nowhere"),
        ({"spatial_dims": 2}, "network_def: spatial_dims"),
        ({"act": ["relu", {"threshold": 2}]}, "network_def: act"),
        ({"norm": {"name": "group"}}, "network_def: norm"),
        ({"magic": 1}, "network_def: magic"),
        ({"init_filters": 4}, "init_filters 4: MONAI's group norm has eight groups"),
        ({"init_filters": 16}, "none of its 27 tensors fits"),
        ({"norm": "instance", "blocks_down": [1, 2, 2]}, "tensors are missing or have another shape"),
    ],
)
def test_anything_but_plain_values_is_refused_and_never_run(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path, SEG)
    configuration = json.loads((tmp_path / "configs/inference.json").read_text())
    (tmp_path / "configs/inference.json").write_text(json.dumps(configuration | {"network_def": SEG | change}))
    with pytest.raises(BadInput, match=message.replace("(", r"\(")):
        import_encoder(tmp_path)
    assert not (tmp_path / "owned").exists()


class MakeFolder:
    """An object that makes a folder when it is unpickled."""

    def __reduce__(self):
        return __import__("os").mkdir, ("owned",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[1]", "holds no table"),
        ("{", "is damaged"),
        ('{"network_def": 3}', "has no network"),
        ('{"network_def": {}}', "has no network"),
    ],
)
def test_a_folder_that_is_no_bundle_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="not a MONAI bundle"):
        import_encoder(tmp_path)
    make_bundle(tmp_path, SEG)
    torch.save({"convInit": MakeFolder()}, tmp_path / "models/model.pt")
    with pytest.raises(BadInput, match="objects other than tensors"):
        import_encoder(tmp_path)
    assert not (tmp_path / "owned").exists()
    (tmp_path / "models/model.pt").unlink()
    with pytest.raises(BadInput, match=r"TorchScript \(model.ts\) is code"):
        import_encoder(tmp_path)
    (tmp_path / "configs/inference.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        monai_bundle.read_network(BundleConfig.read(tmp_path))
