"""Foreign weights become a run to finetune from, and the weights of a run export under upstream names."""

import json

import pytest
import torch

from medssl import cli, config
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.models.import_weights import ImportConfig, import_weights
from medssl.models.provenance import encoder_metadata, store_digests
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig, as_command_line
from medssl.nn.encoders import convnext, resenc, residual
from medssl.nn.interop import state_dict_names as keymap
from medssl.nn.interop.checkpoint_file import read_checkpoint
from medssl.run import Run

SMALL = residual.Config(channels=(4, 8, 8), strides=(1, 2, (2, 2, 1)), blocks=(1, 2, 1), bias=True)
PLAIN = {"normalization": {}, "in_channels": 1, "spacing_mm": None, "patch_size": [8, 8, 8]}


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint as nnU-Net does: an encoder, stored twice, and a decoder, with axes in the order z, y, x."""
    torch.manual_seed(0)
    net = SMALL.build(1)
    state = keymap.export_tensors(net, "nnunet")
    for n, stride in enumerate(reversed(net.strides[1:])):
        state[f"decoder.transpconvs.{n}.weight"] = torch.rand(8, 8, *stride[::-1])
    keymap.write_checkpoint(state, tmp_path / "final.pth")
    return net, tmp_path / "final.pth"


def test_imported_run_is_a_start_for_finetuning(checkpoint, tmp_path, capsys):
    net, path = checkpoint
    out = tmp_path / "run"
    assert cli.run("import-weights", [str(path), "--out", str(out), "--licence", "CC-BY-4.0"]) == 0
    output = capsys.readouterr().out
    assert "named encoder.stem.convs.0.conv.weight in the file" in output and "encoder.name=residual" in output
    run = Run.open(out)
    assert run.metadata["data"]["licence"] == "CC-BY-4.0" and run.metadata["objective"] == "imported"
    network = TrainedModel(
        encoder=SMALL,
        in_channels=1,
        normalization=IntensityNormalization(),
        spacing_mm=None,
        patch_size=(16, 16, 16),
        labels={1: "one"},
    )
    task, report = network.warm_start(run)
    assert report.count("loaded") == len(net.state_dict())
    for key, value in net.state_dict().items():
        assert torch.equal(task.encoder.state_dict()[key], value), key


def test_export_restores_the_imported_tensors(checkpoint, tmp_path):
    _, path = checkpoint
    run, _ = import_weights(ImportConfig(file=path, run=tmp_path / "run", licence="CC-BY-4.0"))
    out = tmp_path / "out.safetensors"
    assert cli.run("export-weights", [str(run.path), "--to", "nnunet", "--out", str(out)]) == 0
    before, after = read_checkpoint(path).tensors, read_checkpoint(out).tensors
    assert after.keys() == {key for key in before if "transpconvs" not in key}
    assert all(torch.equal(after[key], before[key]) for key in after)
    assert cli.run("export-weights", [str(run.path), "--to", "monai", "--out", str(out)]) == 2


def test_licence_is_required(checkpoint, tmp_path):
    with pytest.raises(BadInput, match="licence"):
        config.check({"file": checkpoint[1], "run": tmp_path / "run", "licence": ""}, ImportConfig, "here")


@pytest.mark.parametrize("choice", [resenc.Config(size="S"), SMALL, convnext.Config(kernel=3, norm="group")])
def test_command_line_of_an_encoder_selects_it(choice, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps(PLAIN))
    assert config.read(tmp_path / "run.yaml", as_command_line(choice).split(), TrainedModel).encoder == choice


def test_encoder_defaults_to_residual_and_unknown_names_list_the_known():
    fields = PLAIN | {"encoder": {"channels": [4, 8], "strides": [1, 2], "blocks": 1, "norm": "instance"}}
    assert config.check(fields, TrainedModel, "run.json").encoder == EncoderConfig(channels=(4, 8), strides=(1, 2))
    with pytest.raises(BadInput, match=r"encoder: 'vgg' is unknown; known: convnext, dynunet, fusion, .*swinunetr"):
        config.check(PLAIN | {"encoder": "vgg"}, TrainedModel, "run.json")
    with pytest.raises(BadInput, match=r"encoder\.kernel"):
        config.check(PLAIN | {"encoder": {"name": "convnext", "kernel": 4}}, TrainedModel, "run.json")


def test_metadata_holds_tensor_names_and_licence(tmp_path):
    (tmp_path / "store.json").write_text("{}")
    assert store_digests(tmp_path)["licence"] == "not stated" and store_digests(tmp_path)["card_sha256"] is None
    (tmp_path / "CARD.md").write_text("# set\n\n**Licence.** CC BY-SA 4.0. Alike.\n", encoding="utf-8")
    metadata = encoder_metadata(SMALL.build(1), "spark", store_digests(tmp_path))
    assert metadata["data"]["licence"] == "CC BY-SA 4.0. Alike." and metadata["orientation"] == "RAS"
    assert metadata["key_map"]["encoder.levels.1.0.skip.conv.weight"] == "encoder.stages.1.blocks.0.skip.1.conv.weight"
    assert encoder_metadata(convnext.Config().build(1), "spark", {})["key_map"] == {}


def test_first_norm_removes_scale_and_shift():
    """This makes weights trained on z-scores valid for intensities in [0, 1]."""
    net = SMALL.build(1).eval()
    x = torch.rand(1, 1, 32, 32, 16)
    inner = (..., slice(8, -8), slice(8, -8), slice(4, -4))
    plain, transformed = (net.stem.norm(net.stem.conv(v)) for v in (x, x * 4 - 2))
    scaled = net.stem.norm(net.stem.conv(x * 4))
    assert torch.allclose(plain, scaled, atol=1e-2)
    assert (plain[inner] - transformed[inner]).abs().mean() < 0.2 < (x[inner] - (x * 4 - 2)[inner]).abs().mean()
