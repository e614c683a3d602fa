"""Weights of others become a run that a finetuning takes, and a run's weights go out by other people's names."""

import json

import pytest
import torch

from medssl import cli, config
from medssl.data.normalization import Recipe
from medssl.errors import BadInput
from medssl.models.import_weights import Adopt, adopt
from medssl.models.provenance import contract, data_of
from medssl.models.trained_model import Network
from medssl.nn.encoder import EncoderConfig, words
from medssl.nn.encoders import convnext, resenc, residual
from medssl.nn.interop import state_dict_names as keymap
from medssl.run import Run

SMALL = residual.Config(channels=(4, 8, 8), strides=(1, 2, (2, 2, 1)), blocks=(1, 2, 1), bias=True)
PLAIN = {"recipe": {}, "in_channels": 1, "spacing_mm": None, "crop": [8, 8, 8]}


@pytest.fixture
def checkpoint(tmp_path):
    """What a trainer of nnU-Net leaves: an encoder, stored twice, and a decoder."""
    torch.manual_seed(0)
    net = SMALL.build(1)
    state = keymap.export(net, "nnunet")
    for n, stride in enumerate(reversed(net.strides[1:])):
        state[f"decoder.transpconvs.{n}.weight"] = torch.rand(8, 8, *stride)
    keymap.write(state, tmp_path / "final.pth")
    return net, tmp_path / "final.pth"


def test_the_command_leaves_a_run_that_a_finetuning_starts_from(checkpoint, tmp_path, capsys):
    net, path = checkpoint
    out = tmp_path / "run"
    assert cli.run("import-weights", [str(path), "--out", str(out), "--licence", "CC-BY-4.0"]) == 0
    said = capsys.readouterr().out
    assert "is encoder.stem.convs.0.conv.weight there" in said and "encoder.name=residual" in said
    run = Run.open(out)
    assert run.card["data"]["licence"] == "CC-BY-4.0" and run.card["objective"] == "imported"
    network = Network(
        encoder=SMALL, in_channels=1, recipe=Recipe(), spacing_mm=None, crop=(16, 16, 16), labels={1: "one"}
    )
    task, ledger = network.started(run)
    assert ledger.count("loaded") == len(net.state_dict())
    for key, value in net.state_dict().items():
        assert torch.equal(task.encoder.state_dict()[key], value), key


def test_what_comes_in_goes_out_again(checkpoint, tmp_path):
    _, path = checkpoint
    run, _ = adopt(Adopt(file=path, run=tmp_path / "run", licence="CC-BY-4.0"))
    out = tmp_path / "out.safetensors"
    assert cli.run("export-weights", [str(run.path), "--to", "nnunet", "--out", str(out)]) == 0
    before, after = keymap.read(path), keymap.read(out)
    assert after.keys() == {key for key in before if "transpconvs" not in key}
    assert all(torch.equal(after[key], before[key]) for key in after)
    assert cli.run("export-weights", [str(run.path), "--to", "monai", "--out", str(out)]) == 2


def test_a_licence_must_be_given(checkpoint, tmp_path):
    with pytest.raises(BadInput, match="licence"):
        config.check({"file": checkpoint[1], "run": tmp_path / "run", "licence": ""}, Adopt, "here")


@pytest.mark.parametrize("choice", [resenc.Config(size="S"), SMALL, convnext.Config(kernel=3, norm="group")])
def test_the_words_for_an_encoder_choose_it(choice, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps(PLAIN))
    assert config.read(tmp_path / "run.yaml", words(choice).split(), Network).encoder == choice


def test_an_encoder_without_a_name_is_the_residual_one_and_an_unknown_one_lists_the_known():
    old = PLAIN | {"encoder": {"channels": [4, 8], "strides": [1, 2], "blocks": 1, "norm": "instance"}}
    assert config.check(old, Network, "run.json").encoder == EncoderConfig(channels=(4, 8), strides=(1, 2))
    with pytest.raises(BadInput, match=r"encoder: 'vgg' is unknown; known: convnext, dynunet, resenc, .*swinunetr"):
        config.check(PLAIN | {"encoder": "vgg"}, Network, "run.json")
    with pytest.raises(BadInput, match=r"encoder\.kernel"):
        config.check(PLAIN | {"encoder": {"name": "convnext", "kernel": 4}}, Network, "run.json")


def test_a_run_says_by_which_names_and_under_which_licence_its_weights_go(tmp_path):
    (tmp_path / "store.json").write_text("{}")
    assert data_of(tmp_path)["licence"] == "not told" and data_of(tmp_path)["card_sha256"] is None
    (tmp_path / "CARD.md").write_text("# set\n\n**Licence.** CC BY-SA 4.0. Alike.\n", encoding="utf-8")
    told = contract(SMALL.build(1), "spark", data_of(tmp_path))
    assert told["data"]["licence"] == "CC BY-SA 4.0. Alike." and told["orientation"] == "RAS"
    assert told["key_map"]["encoder.levels.1.0.skip.conv.weight"] == "encoder.stages.1.blocks.0.skip.1.conv.weight"
    assert contract(convnext.Config().build(1), "spark", {})["key_map"] == {}


def test_the_first_norm_takes_out_a_scans_scale_and_shift():
    """Why weights that were taught on z-scores hold for intensities in [0, 1]."""
    net = SMALL.build(1).eval()
    x = torch.rand(1, 1, 32, 32, 16)
    inner = (..., slice(8, -8), slice(8, -8), slice(4, -4))
    stem, other = (net.stem.norm(net.stem.conv(v)) for v in (x, x * 4 - 2))
    scaled = net.stem.norm(net.stem.conv(x * 4))
    assert torch.allclose(stem, scaled, atol=1e-2)
    assert (stem[inner] - other[inner]).abs().mean() < 0.2 < (x[inner] - (x * 4 - 2)[inner]).abs().mean()
