"""Finds and reports classes that a finetuned network never predicts, not even on its training crops."""

import logging
from collections.abc import Iterable
from itertools import islice

import torch

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.crops import Crops
from medssl.render import report
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.tasks.segment import SegmentTask
from medssl.training.semi_supervised.mean_teacher import MeanTeacher

log = logging.getLogger(__name__)

NUM_BATCHES = 8


def find_missing_classes(task: Task, batches: Iterable[Crops]) -> list[int]:
    """Returns the classes that occur in training crops and of which no voxel there is predicted correctly.

    A small network can end so after few steps, because a rare class has little weight in the loss. The Dice of the
    class is then 0 on every case, which a mean over classes hides.

    Args:
        task: Trained task; it is left in evaluation mode.
        batches: Labelled training crops, of which the first `NUM_BATCHES` batches are used.
    """
    present, correct = (torch.zeros(task.num_classes, dtype=torch.long) for _ in range(2))
    task.eval()
    with torch.inference_mode():
        for crops in islice(batches, NUM_BATCHES):
            label = crops.require_label().flatten(0, 1)
            hits = label.where(task.probability(crops.x.flatten(0, 1)).argmax(1) == label, IGNORE_INDEX)
            for count, voxels in ((present, label), (correct, hits)):
                count += torch.bincount(voxels[voxels >= 0], minlength=task.num_classes)
    return [n for n in range(1, task.num_classes) if present[n] and not correct[n]]


def warn_about_missing_classes(learner: Task, batches: Iterable[Crops], run: Run, classes: Classes) -> None:
    """Logs a warning and notes it in run.json if the network never predicts some class, even on training crops."""
    if not isinstance(learner, SegmentTask | MeanTeacher):
        return
    if missing := find_missing_classes(learner, batches):
        message = (
            f"the network never predicts {', '.join(classes.names[n] for n in missing)}, not even on its training"
            " crops; train for more steps, or set task.class_balance=0.5"
        )
        log.warning("%s: %s", run.path, message)
        run.update_metadata(alarm=message)
        report.write(run)
