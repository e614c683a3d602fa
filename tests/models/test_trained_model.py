"""A model accepts weights and scans only if they match its normalization, channels and units."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume


class Plain(Settings):
    run: Path


def network(window_hu: tuple[float, float]) -> TrainedModel:
    encoder = EncoderConfig(channels=(4, 8), strides=(1, 2))
    normalization, patch_size = IntensityNormalization(window_hu=window_hu), (16, 16, 16)
    return TrainedModel(
        encoder=encoder,
        in_channels=1,
        normalization=normalization,
        spacing_mm=None,
        patch_size=patch_size,
        labels={1: "one"},
    )


@pytest.fixture
def pretrained_run(tmp_path):
    model = network((-1000, 1000))
    run = Run.create(tmp_path / "a", Plain(run=tmp_path / "a"), "pretrain", network=model.model_dump(mode="json"))
    transfer.save_parts({"encoder": model.build_encoder()}, run.path / "weights.safetensors")
    run.close()
    return run


def test_weights_of_another_window_need_permission(pretrained_run):
    with pytest.raises(BadInput, match=r"-1000.*-160.*allow_normalization_mismatch"):
        network((-160, 240)).warm_start(pretrained_run)
    _, report = network((-160, 240)).warm_start(pretrained_run, allow_normalization_mismatch=True)
    assert report.to_json() == network((-1000, 1000)).warm_start(pretrained_run)[1].to_json()


def test_indivisible_patch_size_is_refused():
    with pytest.raises(BadInput, match=r"crop \(16, 15, 16\) is not divisible .* use \(16, 16, 16\)"):
        network((-1000, 1000)).model_copy(update={"patch_size": (16, 15, 16)}).build_task()


@pytest.mark.parametrize(("channels", "unit"), [((0,), "HU"), ((1,), "a.u."), ((1, 0), "a.u.")])
def test_selected_channels_keep_their_unit(channels, unit):
    mixed = network((-1000, 1000)).model_copy(update={"in_channels": 2, "units": ("a.u.",)})
    mixed = mixed.model_copy(update={"normalization": IntensityNormalization(hu_channels=(0,))})
    scan = Volume(np.zeros((*(len(channels),) * (len(channels) > 1), 16, 16, 16), np.float32), np.eye(4), unit)
    assert mixed.select_channels(channels).prepare(scan).shape == (16, 16, 16)
    other = "HU" if unit == "a.u." else "a.u."
    with pytest.raises(BadInput, match="the network was trained on"):
        mixed.select_channels(channels).prepare(replace(scan, unit=other))


@pytest.mark.parametrize(
    ("task_fields", "linear"),
    [({}, False), ({"preactivation_head": True}, True), ({"preactivation_head": False}, False)],
)
def test_runs_without_the_head_setting_keep_the_old_head(tmp_path, task_fields, linear):
    fields = network((-1000, 1000)).model_dump(mode="json")
    fields["task"] = {key: fields["task"][key] for key in fields["task"] if key != "preactivation_head"} | task_fields
    run = Run.create(tmp_path / "a", Plain(run=tmp_path / "a"), "finetune", network=fields)
    (run.path / "weights.safetensors").write_bytes(b"")
    run.close()
    last_layer = TrainedModel.from_run(run).build_task().decoder.merges[0][-1]
    assert isinstance(last_layer, torch.nn.LeakyReLU) != linear
