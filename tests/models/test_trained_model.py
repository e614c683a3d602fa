"""Weights meet data: of the same recipe, or with a word said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.data.normalization import Recipe
from medssl.errors import BadInput
from medssl.models.trained_model import Network
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume


class Plain(Settings):
    run: Path


def network(window_hu: tuple[float, float]) -> Network:
    small = EncoderConfig(channels=(4, 8), strides=(1, 2))
    recipe, crop = Recipe(window_hu=window_hu), (16, 16, 16)
    return Network(encoder=small, in_channels=1, recipe=recipe, spacing_mm=None, crop=crop, labels={1: "one"})


@pytest.fixture
def pretrained(tmp_path):
    wide = network((-1000, 1000))
    run = Run.create(tmp_path / "a", Plain(run=tmp_path / "a"), "pretrain", network=wide.model_dump(mode="json"))
    transfer.save({"encoder": wide.body()}, run.path / "weights.safetensors")
    run.close()
    return run


def test_weights_of_another_window_are_refused_unless_they_are_allowed(pretrained):
    with pytest.raises(BadInput, match=r"-1000.*-160.*allow_recipe_mismatch"):
        network((-160, 240)).started(pretrained)
    _, ledger = network((-160, 240)).started(pretrained, allow_recipe_mismatch=True)
    assert ledger.json() == network((-1000, 1000)).started(pretrained)[1].json()


def test_a_crop_that_does_not_divide_is_refused_before_anything_is_trained():
    with pytest.raises(BadInput, match=r"crop \(16, 15, 16\) does not divide .* use \(16, 16, 16\)"):
        network((-1000, 1000)).model_copy(update={"crop": (16, 15, 16)}).blank()


@pytest.mark.parametrize(("channels", "unit"), [((0,), "HU"), ((1,), "a.u."), ((1, 0), "a.u.")])
def test_what_is_left_of_mixed_channels_is_measured_as_they_are(channels, unit):
    both = network((-1000, 1000)).model_copy(update={"in_channels": 2, "units": ("a.u.",)})
    both = both.model_copy(update={"recipe": Recipe(hu_channels=(0,))})
    scan = Volume(np.zeros((*(len(channels),) * (len(channels) > 1), 16, 16, 16), np.float32), np.eye(4), unit)
    assert both.having(channels).prepare(scan).shape == (16, 16, 16)
    other = "HU" if unit == "a.u." else "a.u."
    with pytest.raises(BadInput, match="the network learnt from"):
        both.having(channels).prepare(replace(scan, unit=other))


@pytest.mark.parametrize(("told", "linear"), [({}, False), ({"linear": True}, True), ({"linear": False}, False)])
def test_a_run_from_before_heads_were_linear_predicts_as_it_was_trained(tmp_path, told, linear):
    card = network((-1000, 1000)).model_dump(mode="json")
    card["task"] = {key: card["task"][key] for key in card["task"] if key != "linear"} | told
    run = Run.create(tmp_path / "a", Plain(run=tmp_path / "a"), "finetune", network=card)
    (run.path / "weights.safetensors").write_bytes(b"")
    run.close()
    last = Network.of(run).blank().decoder.merges[0][-1]
    assert isinstance(last, torch.nn.LeakyReLU) != linear
