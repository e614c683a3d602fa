"""A MONAI bundle gives its encoder, and nothing it says is ever run."""

import json

import pytest
import torch
from monai.networks import nets

from medssl import cli
from medssl.errors import BadInput
from medssl.nn.encoders import segresnet
from medssl.nn.interop import monai_bundle as bundle
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


def made(folder, told, **more):
    """A bundle with weights of a network as MONAI builds it."""
    torch.manual_seed(0)
    words = {key: value for key, value in told.items() if key != "_target_"}
    net = getattr(nets, told["_target_"].rpartition(".")[2])(**words).eval()
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    said = {"imports": ["$import os"], "network_def": told, "network": "$@network_def.to(@device)"} | more
    (folder / "configs/inference.json").write_text(json.dumps(said))
    torch.save(net.state_dict(), folder / "models/model.pt")
    return net


@pytest.mark.parametrize(
    "told",
    [SEG, SEG | {"norm": ["instance", {"affine": True}]}, DYN, DYN | {"res_block": False, "norm_name": "batch"}, SWIN],
    ids=["segresnet", "instance", "dynunet", "plain", "swinunetr"],
)
def test_every_tensor_of_the_encoder_is_the_bundles(tmp_path, told):
    net = made(tmp_path, told)
    adopted = bundle.adopt(tmp_path)
    theirs = net.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in adopted.encoder.state_dict().items())
    assert adopted.encoder.in_channels == told["in_channels"]
    assert {e.key.partition(".")[0] for e in adopted.ledger.entries if e.fate == "loaded"} == {"encoder"}


def test_the_features_are_those_of_the_network(tmp_path):
    net = made(tmp_path, SEG)
    x = torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        _, theirs = net.encode(x)
        ours = bundle.adopt(tmp_path).encoder.eval()(x)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(ours, theirs, strict=True))


def test_the_command_makes_a_run_of_it_that_knows_where_it_came_from(tmp_path, capsys):
    (tmp_path / "brats").mkdir()
    made(tmp_path / "brats", SEG | {"in_channels": 1})
    words = [str(tmp_path / "brats"), "--out", str(tmp_path / "run"), "--licence", "Apache-2.0"]
    assert cli.run("import-weights", words) == 0
    assert "encoder.name=segresnet" in capsys.readouterr().out
    told = Run.open(tmp_path / "run").card["data"]
    assert (told["file"], told["licence"], len(told["sha256"])) == ("brats", "Apache-2.0", 64)
    assert cli.run("import-weights", [*words[:2], str(tmp_path / "more"), *words[3:], "--strides", "[1,2,2]"]) == 2


def test_a_value_that_stands_elsewhere_in_the_configuration_is_found(tmp_path):
    made(tmp_path, SEG)
    told = json.loads((tmp_path / "configs/inference.json").read_text())
    told |= {"filters": 8, "network_def": SEG | {"init_filters": "@filters"}}
    (tmp_path / "configs/inference.json").write_text(json.dumps(told))
    assert bundle.adopt(tmp_path).choice == segresnet.Config(init_filters=8, blocks_down=(1, 2, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_target_": "UNet"}, "its network is UNet"),
        ({"_target_": "os.system"}, "its network is os.system"),
        ({"_target_": "evil.SegResNet"}, "its network is evil.SegResNet"),
        ({"in_channels": "$__import__('os').mkdir('owned')"}, "network_def: in_channels"),
        ({"init_filters": "@nowhere"}, "network_def: init_filters"),
        ({"spatial_dims": 2}, "network_def: spatial_dims"),
        ({"act": ["relu", {"threshold": 2}]}, "network_def: act"),
        ({"norm": {"name": "group"}}, "network_def: norm"),
        ({"magic": 1}, "network_def: magic"),
        ({"init_filters": 4}, "init_filters 4: a group norm has eight groups"),
        ({"init_filters": 16}, "none of its 45 tensors fits"),
        ({"norm": "instance", "blocks_down": [1, 2, 2]}, "tensors of the encoder are not there as they must be"),
    ],
)
def test_what_it_says_beyond_plain_values_is_refused_and_never_run(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    made(tmp_path, SEG)
    told = json.loads((tmp_path / "configs/inference.json").read_text())
    (tmp_path / "configs/inference.json").write_text(json.dumps(told | {"network_def": SEG | change}))
    with pytest.raises(BadInput, match=said.replace("(", r"\(")):
        bundle.adopt(tmp_path)
    assert not (tmp_path / "owned").exists()


class Owned:
    """An object that makes a folder when it is unpickled."""

    def __reduce__(self):
        return __import__("os").mkdir, ("owned",)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"network_def": 3}', '{"network_def": {}}'])
def test_what_is_no_bundle_is_told_in_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="no MONAI bundle"):
        bundle.adopt(tmp_path)
    made(tmp_path, SEG)
    torch.save({"convInit": Owned()}, tmp_path / "models/model.pt")
    with pytest.raises(BadInput, match="more than tensors"):
        bundle.adopt(tmp_path)
    assert not (tmp_path / "owned").exists()
    (tmp_path / "models/model.pt").unlink()
    with pytest.raises(BadInput, match=r"TorchScript \(model.ts\) is code"):
        bundle.adopt(tmp_path)
    (tmp_path / "configs/inference.json").write_text(text)
    with pytest.raises(BadInput, match="tells of no network"):
        bundle.adopt(tmp_path)
