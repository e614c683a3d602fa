"""The config for prostate MR trains on three sequences with thick slices, and predicts when one of them is missing."""

import numpy as np
import pytest

from medssl import config, load_model
from medssl.models.trained_model import TrainedModel
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.volume import Volume
from tests.helpers.toy_training import write_store

SMALL = ["patch_size=[16,16,8]", "encoder.channels=[4,4,8,8,8]", "train.epochs=1", "train.steps_per_epoch=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prostate")
    manifest = write_store(folder / "store", 4, channels=3, side=20)
    words = [f"manifest={manifest}", f"run={folder / 'run'}", *SMALL]
    return finetune(config.read("configs/finetune/prostate.yaml", words, FinetuneConfig))


def test_each_sequence_has_a_stem_and_slices_are_not_mixed_early(run):
    encoder = TrainedModel.from_run(run).build_encoder()
    assert len(encoder.stems) == 3 and encoder.patch == (16, 16, 4)
    assert [stem.conv.kernel_size for stem in encoder.stems] == [(3, 3, 1)] * 3


def test_a_missing_sequence_is_predicted_without(run):
    model = load_model(run, device="cpu")
    voxels = np.random.default_rng(0).random((3, 20, 20, 20)).astype(np.float32)
    whole = model.predict(Volume(voxels, np.eye(4), "a.u.")).probability.voxels
    voxels[1] = 0
    missing = model.predict(Volume(voxels, np.eye(4), "a.u.")).probability.voxels
    assert missing.shape == (20, 20, 20) and np.isfinite(missing).all() and not np.array_equal(whole, missing)
