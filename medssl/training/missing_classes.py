"""Unlearnt: classes that a finished finetuning never says, not even where it learnt them."""

from collections.abc import Iterable
from itertools import islice

import torch

from medssl.data.classes import UNKNOWN
from medssl.data.crops import Crops
from medssl.tasks.base import Task

BATCHES = 8


def unlearnt(task: Task, train: Iterable[Crops]) -> list[int]:
    """Classes that lie in training crops and of which not one voxel there is named so.

    A small network on few steps can stay there: a class with little weight in the loss, in features that all point
    away from it. Its Dice is 0 on every case, which a mean over classes hides.
    """
    there, said = (torch.zeros(task.classes, dtype=torch.long) for _ in range(2))
    task.eval()
    with torch.inference_mode():
        for crops in islice(train, BATCHES):
            label = crops.labels().flatten(0, 1)
            named = label.where(task.probability(crops.x.flatten(0, 1)).argmax(1) == label, UNKNOWN)
            for count, voxels in ((there, label), (said, named)):
                count += torch.bincount(voxels[voxels >= 0], minlength=task.classes)
    return [n for n in range(1, task.classes) if there[n] and not said[n]]
