"""A training takes over the network and the normalization of the run that it starts from."""

from pathlib import Path

import pytest

from medssl.data.normalization import IntensityNormalization
from medssl.models.starting_point import adopt_network
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig
from medssl.run import Run
from medssl.settings import Settings


class Plain(Settings):
    run: Path


@pytest.fixture
def model() -> TrainedModel:
    return TrainedModel(
        encoder=EncoderConfig(channels=(4, 8), strides=(1, 2)),
        in_channels=1,
        normalization=IntensityNormalization(window_hu=(-160, 240)),
        spacing_mm=None,
        patch_size=(16, 24, 8),
    )


@pytest.fixture
def run(tmp_path, model) -> Run:
    run = Run.create(tmp_path / "a", Plain(run=tmp_path / "a"), "pretrain", network=model.model_dump(mode="json"))
    (run.path / "weights.safetensors").write_bytes(b"")
    run.close()
    return run


@pytest.mark.parametrize("key", ["pretrained", "start_from"])
def test_what_is_not_given_is_that_of_the_run(run, key):
    values = adopt_network({key: str(run.path), "patch_size": "auto", "seed": 3})
    assert values["patch_size"] == [16, 24, 8] and values["encoder"]["channels"] == [4, 8] and values["seed"] == 3


def test_what_is_given_stays(run):
    given = {"pretrained": str(run.path), "encoder": {"channels": [2, 2]}, "patch_size": 32}
    assert adopt_network(given) == given
    assert adopt_network({"patch_size": "auto"}) == {"patch_size": "auto"}


def test_a_window_is_taken_over_but_not_what_stored_voxels_depend_on(run, model):
    other = model.model_copy(update={"normalization": IntensityNormalization()})
    assert other.adopt_normalization(run).normalization == model.normalization
    percentiles = IntensityNormalization(percentiles=(5, 95))
    stored = model.model_copy(update={"normalization": percentiles})
    assert stored.adopt_normalization(run).normalization == percentiles
