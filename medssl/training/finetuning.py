"""Finetuning: from a few labelled volumes and, if there is one, a pretraining to a closed run."""

import logging
from pathlib import Path

import torch
from pydantic import Field, PositiveInt

from medssl import config
from medssl.data import leaks
from medssl.data.augment import Augment
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.nn.encoder import EncoderConfig, Named
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.segment import Config as Segment
from medssl.training import feed
from medssl.training.fit import fit
from medssl.training.network import Network
from medssl.training.plan import Plan

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
    augment: Augment = Augment()
    plan: Plan = Plan()
    validate_every: PositiveInt = 5
    validate_on: int = Field(8, ge=0, description="at most so many cases of the split val; 0 keeps the last weights")
    fold: int = Field(0, ge=0, description="with folds: which part of the labelled patients is the split val")
    folds: int | None = Field(None, ge=2, description="cross-validates: so many parts take turns as the split val")
    seed: int = Field(0, description="draws the labelled volumes, and deals the folds")
    allow_overlap: bool = Field(False, description="go on where the pretraining has seen cases of the split test")
    allow_recipe_mismatch: bool = Field(False, description="go on with data windowed otherwise than the pretraining's")
    resume: bool = False


def finetune(settings: Finetune) -> Run:
    """A closed run that predicts; the split `test` is never looked at."""
    manifest = Manifest.read(settings.manifest)
    if settings.folds:
        manifest = manifest.fold(settings.fold, settings.folds, settings.seed)
    few, network = _labelled(manifest, settings)
    seen = leaks.seen_by(settings.pretrained, None if settings.allow_overlap else manifest.by("test"))
    torch.manual_seed(settings.plan.seed)
    before = Run.open(settings.pretrained) if settings.pretrained else None
    task, ledger = network.started(before, settings.allow_recipe_mismatch) if before else (network.blank(), None)
    log.info("%s", ledger or "no pretrained weights: from scratch")
    dataset = CropDataset(
        few, network.recipe, settings.crop, labelled=True, foreground=settings.foreground, augment=settings.augment,
        seed=settings.plan.seed,
    )  # fmt: skip
    held = manifest.by("val").labelled().first(settings.validate_on)
    validation = feed.wholes(held, network.recipe) if held.cases else None
    cases = [case.id for case in few.cases]
    facts = {
        "recipe_of_weights": before and before.card["network"]["recipe"],
        "manifest": few.digest(),
        "network": network.model_dump(mode="json"),
        "cases": cases,
    }
    begin = Run.resume if settings.resume else Run.create
    run = begin(settings.run, settings, "finetune", **facts, transfer=ledger.json() if ledger else None)
    leaks.remember(run.path, [*seen, *leaks.traces(few)])
    crops = feed.crops(dataset, settings.plan)
    fit(task, settings.plan, run, crops, validation, settings.validate_every, cases)
    run.close()
    return run


def _labelled(manifest: Manifest, settings: Finetune) -> tuple[Manifest, Network]:
    """The labelled volumes that are learnt from, and the network for them and their classes."""
    labelled = manifest.by("train").labelled()
    few = labelled.few(settings.labels or len(labelled.cases), settings.seed)
    names = Card.read(manifest.folder).labels
    if not few.cases or not names:
        raise BadInput(f"{settings.manifest}: no labelled case in split 'train'; ingest a folder with labelsTr/")
    network = Network.on(few, settings.encoder, settings.crop)
    return few, network.model_copy(update={"task": settings.task, "labels": names})
