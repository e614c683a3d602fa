"""Learning from unlabelled volumes too: a teacher, which is the student's own average, says what is in them.

Or an atlas does, over which drawn labels are propagated: these are labels like others, and need no teacher.
"""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from medssl.data.classes import UNKNOWN
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import vary
from medssl.nn.masks import Draws
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.training.config import Plan

DECAY = 0.99  # of the average that is the teacher, where the plan names none


class Unlabelled(Settings):
    """How unlabelled volumes are learnt from, and how much: a name alone stands for its defaults.

    `mean-teacher`: Tarvainen and Valpola, "Mean teachers are better role models" (2017),
    https://arxiv.org/abs/1703.01780: the student, seeing a crop with other intensities, must say what the teacher says.
    `pseudo`: the teacher's sure voxels are labels, as in the self-training of Chaitanya et al., "Local contrastive loss
    with pseudo-label based self-training" (2023), https://doi.org/10.1016/j.media.2023.102792, with their Mixup:
    Zhang et al., "mixup" (2018), https://arxiv.org/abs/1710.09412. Deviation: pseudo-labels are made anew at each step
    by the averaged weights, and not in rounds, so that every arm of a comparison takes the same steps.
    `propagated`: every second crop is of an unlabelled volume, with the labels that the drawn ones give it over an
    atlas (`medssl.training.semi_supervised.label_propagation`).
    """

    name: Literal["none", "mean-teacher", "pseudo", "propagated"] = "none"
    atlas: Path | None = Field(None, description="propagated: the folder that `medssl atlas` wrote of these volumes")
    weight: PositiveFloat = Field(1.0, description="of the unlabelled crops' loss, once it has grown")
    grow: float = Field(0.4, gt=0, le=1, description="share of all steps over which that weight grows")
    strength: float = Field(0.5, ge=0, le=1, description="mean-teacher: how differently the two see a crop")
    sure: float = Field(0.9, ge=0, le=1, description="pseudo: the probability from which a voxel counts as labelled")
    mixup: float = Field(0.0, ge=0, description="pseudo: both parameters of the Beta distribution; 0 mixes nothing")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _over_an_atlas(self) -> "Unlabelled":
        if (self.name == "propagated") != (self.atlas is not None):
            raise ValueError("name=propagated and atlas=FOLDER, as `medssl atlas` wrote it, go together; give both")
        return self

    @property
    def taught(self) -> bool:
        """Whether there is a teacher."""
        return self.name in ("mean-teacher", "pseudo")


class Taught(Task):
    """A task that also learns from crops without any label; what is validated and kept is the teacher."""

    taken: Tensor

    def __init__(self, student: Task, how: Unlabelled, plan: Plan) -> None:
        super().__init__(student.config, student.encoder, student.classes, student.crop)
        self.student = student
        self.selects = student.selects
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.how, self.decay, self.growing = how, plan.ema or DECAY, how.grow * plan.total
        self.draws = Draws(plan.seed)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def step(self, crops: Crops) -> Step:
        """The loss on labelled crops, and a growing share of that on the others."""
        labelled = (crops.labels() >= 0).flatten(1).any(1)
        own = self.student.step(_rows(crops, labelled) if labelled.any() else crops)
        if labelled.all():
            return own
        bare = _rows(crops, ~labelled)
        loss = self._asked(bare) if self.how.name == "mean-teacher" else self._told(bare, _rows(crops, labelled))
        return Step(own.loss + self._share() * loss, own.logs | {"unlabelled": loss.detach()})

    def after_step(self) -> None:
        """The teacher follows; at first it is the plain mean, so that it is soon rid of how it began."""
        self.student.after_step()
        self.taken += 1
        decay = min(self.decay, 1 - 1 / (int(self.taken) + 1))
        own = dict(self.student.named_parameters())
        with torch.no_grad():
            for name, mean in self.teacher.named_parameters():
                mean.lerp_(own[name], 1 - decay)
            for name, kept in self.teacher.named_buffers():
                kept.copy_(self.student.get_buffer(name))

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """What the teacher says."""
        return self.teacher.probability(x)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Scores of the teacher."""
        return self.teacher.validate(crops)

    def transferable(self) -> dict[str, nn.Module]:
        """The teacher's parts."""
        return self.teacher.transferable()

    def _share(self) -> float:
        """The weight of the unlabelled crops' loss now: the ramp of Tarvainen and Valpola."""
        left = 1 - min(1.0, int(self.taken) / max(1.0, self.growing))
        return self.how.weight * math.exp(-5 * left**2)

    def _asked(self, bare: Crops) -> Float[Tensor, ""]:
        """How far the student is from what the teacher says: the squared difference, summed over the classes."""
        x, generator = bare.x.flatten(0, 1), self.draws()
        theirs, mine = (vary(x, generator, self.how.strength) for _ in range(2))
        with torch.no_grad():
            wanted = self.teacher.probability(theirs)
        return (self.student.probability(mine) - wanted).square().sum(1).mean()

    def _told(self, bare: Crops, labelled: Crops) -> Float[Tensor, ""]:
        """The task's own loss against the teacher's labels, where it is sure, on crops mixed with labelled ones."""
        with torch.no_grad():
            sure, label = self.teacher.probability(bare.x.flatten(0, 1)).max(1)
        label = label.masked_fill(sure < self.how.sure, UNKNOWN).view_as(bare.labels())
        told = replace(bare, label=label)
        if not self.how.mixup or not len(labelled.x):
            return self.student.step(told).loss
        share = float(np.random.default_rng(self.draws().initial_seed()).beta(self.how.mixup, self.how.mixup))
        partners = _rows(labelled, torch.arange(len(told.x)) % len(labelled.x))
        x = share * partners.x + (1 - share) * told.x
        theirs, own = (self.student.step(replace(one, x=x)).loss for one in (partners, told))
        return share * theirs + (1 - share) * own


def _rows(crops: Crops, chosen: Tensor) -> Crops:
    rows: dict[str, Any] = {name: None if value is None else value[chosen] for name, value in vars(crops).items()}
    return Crops(**rows)
