"""Finetuning: from a few labelled volumes and, if there is one, a pretraining to a closed run."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator

from medssl import config
from medssl.data import leaks
from medssl.data.augment import Augment
from medssl.data.classes import Classes
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.nn import lora
from medssl.nn.encoder import EncoderConfig, Named
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.tasks.segment import Config as Segment
from medssl.training import feed, presets
from medssl.training.fit import fit
from medssl.training.network import Network
from medssl.training.plan import Plan
from medssl.training.shown import Shown
from medssl.training.taught import Taught, Unlabelled

log = logging.getLogger(__name__)


class Finetune(Settings):
    """What a finetuning is made of; `pretrained=null` is the same recipe from scratch."""

    run: Path
    manifest: Path
    pretrained: Path | None = None
    labels: PositiveInt | None = Field(None, description="how many labelled volumes; null takes all")
    task: config.named("medssl.tasks") = Segment()  # type: ignore[valid-type]
    encoder: Named = EncoderConfig()
    crop: tuple[int, int, int] = (64, 64, 64)
    foreground: float = Field(0.67, ge=0, le=1, description="share of crops drawn about a labelled voxel")
    schedule: presets.Schedule = Field("full", description="how the pretrained weights learn; fills in the plan")
    rank: PositiveInt = Field(4, description="schedule=lora: of the adapters")
    regularise: bool = Field(False, description="more augmentation and decay where labels are few; fills in both")
    unlabelled: Unlabelled = Field(
        Unlabelled(), description="none, mean-teacher or pseudo: learn from the rest of train"
    )
    augment: Augment = Augment()
    plan: Plan = Plan()
    validate_every: PositiveInt = 5
    validate_on: int = Field(8, ge=0, description="at most so many cases of the split val; 0 keeps the last weights")
    fold: int = Field(0, ge=0, description="with folds: which part of the labelled patients is the split val")
    folds: int | None = Field(None, ge=2, description="cross-validates: so many parts take turns as the split val")
    seed: int = Field(0, description="draws the labelled volumes, and deals the folds")
    allow_absent: bool = Field(False, description="go on where the labelled volumes lack a class")
    allow_overlap: bool = Field(False, description="go on where the training or pretraining has seen cases of test")
    allow_recipe_mismatch: bool = Field(False, description="go on with data windowed otherwise than the pretraining's")
    resume: bool = False

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, given: Any) -> Any:
        return presets.filled(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _schedule_fits(self) -> "Finetune":
        if self.schedule == "scratch" and self.pretrained:
            raise ValueError("schedule=scratch starts from nothing; leave pretrained out, or choose another schedule")
        if self.schedule in ("frozen", "lora") and not self.pretrained:
            raise ValueError(f"schedule={self.schedule} keeps the encoder as it is, untrained; give pretrained=RUN")
        return self


def finetune(settings: Finetune) -> Run:
    """A closed run that predicts; the split `test` is never looked at."""
    manifest = Manifest.read(settings.manifest)
    shown = Shown.of(manifest, settings.labels, settings.seed)
    shown.check(settings.allow_absent, settings.allow_overlap)
    network = Network.on(shown.few, settings.encoder, settings.crop)
    network = network.model_copy(update={"task": settings.task, "labels": dict(shown.classes.names)})
    seen = leaks.seen_by(settings.pretrained, None if settings.allow_overlap else manifest.by("test"))
    task, facts = _begun(settings, network)
    ...
