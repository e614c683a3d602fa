"""A pretraining writes down all that its weights need, and a finetuning starts from it, whatever the encoder."""

import pytest

from medssl import config
from medssl.data.store import Card
from medssl.nn.encoders import convnext, dynunet
from medssl.run import Run
from medssl.training.finetune import Finetune, finetune
from medssl.training.pretrain import Pretrain, pretrain
from tests.helpers.toy_training import shelf

PLAN = {"epochs": 1, "steps": 1, "batch": 1}
CHOICES = {
    "convnext": convnext.Config(channels=(4, 8, 8), strides=(1, 2, 2), blocks=1, kernel=3),
    "dynunet": dynunet.Config(channels=(4, 8, 8), strides=(1, 2, 2)),
}
SAID = {  # the checkpoint contract, and where in run.json each part of it stands
    "key map": ("key_map",),
    "recipe": ("network", "recipe"),
    "spacing": ("network", "spacing_mm"),
    "orientation": ("orientation",),
    "crop": ("network", "crop"),
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


def told(card, path):
    for key in path:
        assert key in card, f"run.json lacks {'.'.join(path)}"
        card = card[key]
    return card


@pytest.mark.parametrize("name", CHOICES)
def test_a_pretraining_and_a_finetuning_run_on_it(name, tmp_path):
    manifest, choice = shelf(tmp_path / "store"), CHOICES[name]
    (tmp_path / "store" / "CARD.md").write_text("# balls\n\n**Licence.** CC0.\n", encoding="utf-8")
    shared = {"manifest": manifest, "encoder": choice.model_dump(mode="json"), "crop": [16, 16, 16], "plan": PLAN}
    asked = shared | {"run": tmp_path / "pre", "objective": {"name": "spark", "ratio": 0.6}}
    run = pretrain(config.check(asked, Pretrain, "test"))
    said = {what: told(run.card, path) for what, path in SAID.items()}
    assert said["objective"] == "spark" and said["channels"] == [4, 8, 8] and said["licence"] == "CC0."
    assert said["recipe"] == Card.read(manifest.parent).recipe.model_dump(mode="json")
    tuned = finetune(config.check(shared | {"run": tmp_path / "fine", "pretrained": run.path}, Finetune, "test"))
    fates = {entry["fate"] for entry in tuned.card["transfer"] if entry["key"].startswith("encoder.")}
    assert fates == {"loaded"} and Run.open(tuned.path).closed
