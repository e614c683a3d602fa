"""A class that a finished finetuning never says is told of, and none that it says somewhere."""

import json
from dataclasses import replace

import pytest
import torch

from medssl import config
from medssl.data.classes import UNKNOWN
from medssl.run import Run
from medssl.tasks.segment import Config, Segment
from medssl.training.finetune import Finetune, finetune
from medssl.training.missing_classes import unlearnt
from tests.helpers.toy_training import encoder, loader, shelf


class Says(Segment):
    """Names voxels as it was told to, whatever it sees."""

    def __init__(self, value: int, classes: int = 3) -> None:
        super().__init__(Config(), encoder(), classes, (32, 32, 32))
        self.value = value

    def probability(self, x):
        p = torch.zeros(len(x), self.classes, *x.shape[2:])
        p[:, self.value] = 1
        return p


@pytest.mark.parametrize(("value", "never"), [(0, [1]), (1, []), (2, [1])])
def test_only_what_lies_in_the_crops_and_is_never_said_counts(value, never):
    assert unlearnt(Says(value), loader(2, label=True)) == never


def test_one_voxel_that_is_named_rightly_is_enough_and_unknown_ones_tell_nothing():
    crops = next(iter(loader(1, label=True)))
    label = torch.full_like(crops.labels(), UNKNOWN)
    label[0, 0, 0, 0, 0] = 2
    told = [replace(crops, label=label)]
    assert unlearnt(Says(2), told) == [] and unlearnt(Says(1), told) == [2]


def test_a_finetuning_that_never_says_a_class_warns_and_its_report_shows_it(tmp_path, caplog):
    plan = {"epochs": 1, "steps": 1, "batch": 1, "lr": 1e-9, "ema": 0.0}
    small = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "crop": [16, 16, 16], "validate_on": 0}
    asked = small | {"manifest": shelf(tmp_path / "shelf"), "run": tmp_path / "run", "plan": plan}
    heads = Segment.__init__

    def mute(self, *words):
        heads(self, *words)
        torch.nn.init.constant_(self.heads[0].conv.bias[1:], -1e3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "__init__", mute)
        finetune(config.check(asked, Finetune, "test"))
    assert "run: never says ball, not even in the crops it learnt from; give it more steps" in caplog.text
    assert Run.open(tmp_path / "run").closed
    assert "never says ball" in json.loads((tmp_path / "run" / "run.json").read_text())["alarm"]
    assert "never says ball" in (tmp_path / "run" / "report.html").read_text()
