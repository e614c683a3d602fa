"""Mean teacher: the running average of the trained network supervises it on unlabelled crops."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.classes import IGNORE_INDEX
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import divide_sums, is_true_everywhere, split_generator
from medssl.nn.masks import SeededGenerators
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.step import Step
from medssl.tasks.base import Task
from medssl.tasks.segment import SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.copy_paste import draw_boxes, keep_largest_components, mix_crops

DEFAULT_EMA_DECAY = 0.99  # of the teacher, if `train.ema_decay` is 0


class MeanTeacher(Task):
    """A task that also learns from crops without labels, supervised by a teacher.

    The teacher is the exponential moving average of the student. It is validated, and its weights are kept.

    Args:
        student: Task to train.
        semi_supervised: Method (`mean-teacher`, `pseudo-label` or `copy-paste`) and its settings.
        train: Decay of the average, number of steps and seed.
    """

    taken: Tensor  # number of optimizer steps; the name is a key of checkpoints

    student: SegmentTask

    def __init__(self, student: SegmentTask, semi_supervised: SemiSupervisedConfig, train: TrainConfig) -> None:
        super().__init__(student.config, student.encoder, student.num_classes, student.patch_size)
        self.student = student
        self.selection_metric = student.selection_metric
        self.teacher = copy_as_teacher(student)
        self.semi_supervised = semi_supervised
        self.decay = train.ema_decay or DEFAULT_EMA_DECAY
        self.rampup_steps = semi_supervised.rampup_fraction * train.total_steps
        self.draws = SeededGenerators(train.seed)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def step(self, crops: Crops) -> Step:
        """Returns the loss on the labelled crops plus the weighted loss on the unlabelled crops."""
        labelled = (crops.require_label() >= 0).flatten(1).any(1)
        supervised = self.student.step(_select_rows(crops, labelled) if labelled.any() else crops)
        if is_true_everywhere(bool(labelled.all()), crops.x.device):
            return supervised
        labelled_crops, unlabelled_crops = _select_rows(crops, labelled), _select_rows(crops, ~labelled)
        match self.semi_supervised.method:
            case "mean-teacher":
                loss = self._consistency_loss(unlabelled_crops)
            case "copy-paste":
                loss = self._copy_paste_loss(unlabelled_crops, labelled_crops)
            case _:
                loss = self._pseudo_label_loss(unlabelled_crops, labelled_crops)
        logs = supervised.logs | {"unlabelled": loss.detach()}
        return Step(supervised.loss + self._rampup_weight() * loss, logs)

    def after_step(self) -> None:
        """Updates the teacher; the first updates are a plain mean, so that its initial weights soon lose influence."""
        self.student.after_step()
        self.taken += 1
        follow(self.teacher, self.student, min(self.decay, 1 - 1 / (int(self.taken) + 1)))

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the class probabilities of the teacher."""
        return self.teacher.probability(x)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the scores of the teacher."""
        return self.teacher.validate(crops)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the parts of the teacher."""
        return self.teacher.transferable()

    def _rampup_weight(self) -> float:
        """Returns the current factor on the loss of unlabelled crops: the ramp-up of Tarvainen and Valpola."""
        remaining = 1 - min(1.0, int(self.taken) / max(1.0, self.rampup_steps))
        return self.semi_supervised.weight * math.exp(-5 * remaining**2)

    def _consistency_loss(self, unlabelled: Crops) -> Float[Tensor, ""]:
        """Returns the squared difference of student and teacher probabilities, summed over the classes."""
        x, generator = unlabelled.x.flatten(0, 1), self.draws()
        strength = self.semi_supervised.perturbation
        teacher_x, student_x = (perturb_intensity(x, split_generator(generator, len(x)), strength) for _ in range(2))
        with torch.no_grad():
            target = self.teacher.probability(teacher_x)
        error = (self.student.probability(student_x) - target).square().sum(1)
        return divide_sums(error.sum(), torch.tensor(error.numel(), device=error.device), 1)

    def _pseudo_label_loss(self, unlabelled: Crops, labelled: Crops) -> Float[Tensor, ""]:
        """Returns the student's loss against confident labels of the teacher, with Mixup if configured."""
        with torch.no_grad():
            confidence, label = self.teacher.probability(unlabelled.x.flatten(0, 1)).max(1)
        label = label.masked_fill(confidence < self.semi_supervised.confidence, IGNORE_INDEX)
        pseudo_labelled = replace(unlabelled, label=label.view_as(unlabelled.require_label()))
        mixup = self.semi_supervised.mixup
        if not mixup or not is_true_everywhere(len(labelled.x) > 0, unlabelled.x.device):
            return self.student.step(pseudo_labelled).loss
        ratio = float(np.random.default_rng(self.draws().initial_seed()).beta(mixup, mixup))
        partners = _repeat_rows(labelled, len(pseudo_labelled.x))
        x = ratio * partners.x + (1 - ratio) * pseudo_labelled.x
        partner_loss = self.student.step(replace(partners, x=x)).loss
        return ratio * partner_loss + (1 - ratio) * self.student.step(replace(pseudo_labelled, x=x)).loss

    def _copy_paste_loss(self, unlabelled: Crops, labelled: Crops) -> Float[Tensor, ""]:
        """Returns the student's loss on pairs of crops that exchange a box, in both directions."""
        with torch.no_grad():
            label = self.teacher.probability(unlabelled.x.flatten(0, 1)).argmax(1)
        label = keep_largest_components(label).view_as(unlabelled.require_label())
        pseudo_labelled, weight = replace(unlabelled, label=label), self.semi_supervised.pseudo_weight
        boxes = draw_boxes(unlabelled.x.shape[-3:], split_generator(self.draws(), len(unlabelled.x)))
        if not is_true_everywhere(len(labelled.x) > 0, unlabelled.x.device):
            return weight * self.student.step(pseudo_labelled).loss
        partners, losses = _repeat_rows(labelled, len(label)), []
        for is_pseudo in (boxes, ~boxes):
            true_part, pseudo_part = mix_crops(partners, pseudo_labelled, is_pseudo.to(label.device))
            logits = self.student.compute_logits(true_part)
            true_loss, pseudo_loss = (
                self.student.compare_with_label(logits, part).loss for part in (true_part, pseudo_part)
            )
            losses.append(true_loss + weight * pseudo_loss)
        return (losses[0] + losses[1]) / 2


def _repeat_rows(crops: Crops, count: int) -> Crops:
    """Returns `count` rows of crops, from the first on and again."""
    return _select_rows(crops, torch.arange(count) % len(crops.x))


def _select_rows(crops: Crops, rows: Tensor) -> Crops:
    """Returns the crops of some rows, given as a mask or as indices."""
    fields: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(crops).items()}
    return Crops(**fields)
