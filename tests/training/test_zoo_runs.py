"""A pretraining records all that its weights need, and a finetuning starts from it, for every encoder."""

import pytest

from medssl import config
from medssl.data.store_metadata import StoreMetadata
from medssl.nn.encoders import convnext, dynunet
from medssl.run import Run
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig, pretrain
from tests.helpers.toy_training import write_store

TRAIN = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1}
CHOICES = {
    "convnext": convnext.Config(channels=(4, 8, 8), strides=(1, 2, 2), blocks=1, kernel=3),
    "dynunet": dynunet.Config(channels=(4, 8, 8), strides=(1, 2, 2)),
}
CONTRACT = {  # the checkpoint contract, and where in run.json each part of it stands
    "key map": ("key_map",),
    "normalization": ("network", "normalization"),
    "spacing": ("network", "spacing_mm"),
    "orientation": ("orientation",),
    "patch size": ("network", "patch_size"),
    "strides": ("strides",),
    "channels": ("channels",),
    "objective": ("objective",),
    "data": ("manifest",),
    "data card": ("data", "card_sha256"),
    "licence": ("data", "licence"),
    "code version": ("version",),
    "commit": ("git",),
    "metrics": ("scores", "loss"),
    "weights": ("weights_sha256",),
}


def read_key(metadata, path):
    for key in path:
        assert key in metadata, f"run.json lacks {'.'.join(path)}"
        metadata = metadata[key]
    return metadata


@pytest.mark.parametrize("name", CHOICES)
def test_a_pretraining_and_a_finetuning_run_on_it(name, tmp_path):
    manifest, choice = write_store(tmp_path / "store"), CHOICES[name]
    (tmp_path / "store" / "CARD.md").write_text("# balls\n\n**Licence.** CC0.\n", encoding="utf-8")
    shared = {
        "manifest": manifest,
        "encoder": choice.model_dump(mode="json"),
        "patch_size": [16, 16, 16],
        "train": TRAIN,
    }
    values = shared | {"run": tmp_path / "pre", "objective": {"name": "spark", "mask_ratio": 0.6}}
    run = pretrain(config.check(values, PretrainConfig, "test"))
    recorded = {name: read_key(run.metadata, path) for name, path in CONTRACT.items()}
    assert recorded["objective"] == "spark" and recorded["channels"] == [4, 8, 8] and recorded["licence"] == "CC0."
    assert recorded["normalization"] == StoreMetadata.read(manifest.parent).normalization.model_dump(mode="json")
    tuned = finetune(config.check(shared | {"run": tmp_path / "fine", "pretrained": run.path}, FinetuneConfig, "test"))
    statuses = {entry["status"] for entry in tuned.metadata["transfer"] if entry["key"].startswith("encoder.")}
    assert statuses == {"loaded"} and Run.open(tuned.path).is_closed
