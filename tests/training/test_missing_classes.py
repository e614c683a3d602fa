"""Classes that a finetuned network never predicts are reported, and no others."""

import json
from dataclasses import replace

import pytest
import torch

from medssl import config
from medssl.data.classes import IGNORE_INDEX
from medssl.run import Run
from medssl.tasks.segment import Config, SegmentTask
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.run_records.missing_classes import find_missing_classes
from tests.helpers.toy_training import make_encoder, make_loader, write_store


class ConstantTask(SegmentTask):
    """Predicts one class for all voxels."""

    def __init__(self, value: int, classes: int = 3) -> None:
        super().__init__(Config(), make_encoder(), classes, (32, 32, 32))
        self.value = value

    def probability(self, x):
        p = torch.zeros(len(x), self.num_classes, *x.shape[2:])
        p[:, self.value] = 1
        return p


@pytest.mark.parametrize(("value", "missing"), [(0, [1]), (1, []), (2, [1])])
def test_only_classes_in_the_crops_that_are_never_predicted_count(value, missing):
    assert find_missing_classes(ConstantTask(value), make_loader(2, label=True)) == missing


def test_one_correct_voxel_is_enough_and_ignored_voxels_do_not_count():
    crops = next(iter(make_loader(1, label=True)))
    label = torch.full_like(crops.require_label(), IGNORE_INDEX)
    label[0, 0, 0, 0, 0] = 2
    batches = [replace(crops, label=label)]
    assert find_missing_classes(ConstantTask(2), batches) == [] and find_missing_classes(ConstantTask(1), batches) == [
        2
    ]


def test_a_finetuning_that_never_predicts_a_class_warns_and_its_report_shows_it(tmp_path, caplog):
    train_options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1, "lr": 1e-9, "ema_decay": 0.0}
    small = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "patch_size": [16, 16, 16], "max_val_cases": 0}
    values = small | {"manifest": write_store(tmp_path / "shelf"), "run": tmp_path / "run", "train": train_options}
    init = SegmentTask.__init__

    def init_with_background_bias(self, *args):
        init(self, *args)
        torch.nn.init.constant_(self.heads[0].conv.bias[1:], -1e3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentTask, "__init__", init_with_background_bias)
        finetune(config.check(values, FinetuneConfig, "test"))
    assert "run: the network never predicts ball, not even on its training crops; train for more steps" in caplog.text
    assert Run.open(tmp_path / "run").is_closed
    alarm = json.loads((tmp_path / "run" / "run.json").read_text())["alarm"]
    assert alarm.startswith("the network never predicts ball, not even")
    assert "never predicts ball" in (tmp_path / "run" / "report.html").read_text()
