"""Finetuning: from a few labelled volumes and, if there is one, a pretraining to a closed run."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator
from torch.utils.data import DataLoader

from medssl import config
from medssl.data.checks import leakage as leaks
from medssl.data.classes import Classes
from medssl.data.crops import CropDataset
from medssl.data.manifest import Manifest
from medssl.data.transforms.augmentation import Augment
from medssl.errors import BadInput
from medssl.models.trained_model import Network, units
from medssl.nn import lora
from medssl.nn.encoder import EncoderConfig, Named
from medssl.nn.interop import weight_transfer as transfer
from medssl.render import report
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks import segment
from medssl.tasks.base import Task
from medssl.training import data_loaders as feed
from medssl.training import presets
from medssl.training.config import Plan
from medssl.training.label_subset import Shown
from medssl.training.missing_classes import unlearnt
from medssl.training.semi_supervised.label_propagation import Propagated, Votes
from medssl.training.semi_supervised.mean_teacher import Taught, Unlabelled
from medssl.training.trainer import fit

log = logging.getLogger(__name__)
DOUBTFUL = 0.5  # Dice of propagated labels and drawn ones, below which it is said


class Finetune(Settings):
    """What a finetuning is made of; `pretrained=null` is the same recipe from scratch."""

    run: Path
    manifest: Path
    pretrained: Path | None = None
    channels: tuple[int, ...] = Field((), description="of the pretraining's input, those that these scans hold; [] all")
    labels: PositiveInt | None = Field(None, description="how many labelled volumes; null takes all")
    task: config.named("medssl.tasks") = segment.Config()  # type: ignore[valid-type]
    encoder: Named = EncoderConfig()
    crop: tuple[int, int, int] = (64, 64, 64)
    foreground: float = Field(0.67, ge=0, le=1, description="share of crops drawn about a labelled voxel")
    schedule: presets.Schedule = Field("full", description="how the pretrained weights learn; fills in the plan")
    rescale: bool = Field(False, description="pretrained kernels get the length of fresh ones, and learn as fast")
    rank: PositiveInt = Field(4, description="schedule=lora: of the adapters")
    regularise: bool = Field(False, description="more augmentation and decay where labels are few; fills in both")
    unlabelled: Unlabelled = Field(
        Unlabelled(), description="none, mean-teacher, pseudo or propagated: learn from the rest of train"
    )
    augment: Augment = Augment()
    plan: Plan = Plan()
    validate_every: PositiveInt = 5
    validate_on: int = Field(8, ge=0, description="at most so many cases of the split val; 0 keeps the last weights")
    fold: int = Field(0, ge=0, description="with folds: which part of the labelled patients is the split val")
    folds: int | None = Field(None, ge=2, description="cross-validates: so many parts take turns as the split val")
    seed: int = Field(0, description="draws the labelled volumes, and deals the folds")
    allow_absent: bool = Field(False, description="go on where the labelled volumes lack a class")
    allow_overlap: bool = Field(False, description="go on where the training or pretraining has seen what is tested on")
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
        if self.schedule in ("sawtooth", "layer-wise", "gentle") and not self.pretrained:
            raise ValueError(f"schedule={self.schedule} goes easy on pretrained weights; give pretrained=RUN")
        if self.rescale and not self.pretrained:
            raise ValueError("rescale=true brings pretrained kernels to the length of fresh ones; give pretrained=RUN")
        return self

    def filled(self, labels: int) -> "Finetune":
        """With what `regularise` stands for where all the labelled volumes, so many, are taken."""
        if self.labels is not None:
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set}
        few = Finetune.model_validate(given | {"labels": labels})
        return few.model_copy(update={"labels": None})


def finetune(settings: Finetune) -> Run:
    """A closed run that predicts; the split `test` is never looked at."""
    manifest = Manifest.read(settings.manifest)
    if settings.folds:
        manifest = manifest.fold(settings.fold, settings.folds, settings.seed)
    shown = Shown.of(manifest, settings.labels, settings.seed)
    settings = settings.filled(len(shown.few.cases))
    shown.check(settings.allow_absent)
    _check_regions(settings.task, shown.classes)
    if not settings.allow_overlap:
        shown.apart_from(manifest.by("test"))
    network = Network.on(shown.few, settings.encoder, settings.crop)
    meant = units(manifest.by("train").labelled())  # of all that it might have drawn
    network = network.model_copy(update={"task": settings.task, "labels": dict(shown.classes.names), "units": meant})
    splits = ("test", "val") if settings.folds else ("test",)  # of a cross-validation, what is held out tests it
    tested = replace(manifest, cases=tuple(case for case in manifest.cases if case.split in splits))
    guarded = None if settings.allow_overlap else tested
    seen = leaks.seen_by(settings.pretrained, guarded)
    torch.manual_seed(settings.plan.seed)
    before = Run.open(settings.pretrained) if settings.pretrained else None
    given = settings.allow_recipe_mismatch, settings.channels, settings.rescale
    task, ledger = network.started(before, *given) if before else (network.blank(), None)
    log.info("%s", ledger or "no pretrained weights: from scratch")
    learner, plan = _learner(task, settings)
    held = manifest.by("val").labelled().first(settings.validate_on)
    validation = feed.wholes(held, network.recipe, shown.classes) if held.cases else None
    votes = _votes(shown, settings)
    if votes:
        seen += leaks.apart(leaks.traces(votes.atlas.manifest), votes.atlas.folder, guarded)
    begin = Run.resume if settings.resume else Run.create
    run = begin(settings.run, settings, "finetune", **_facts(before, ledger, shown, network))
    train, pools = _fed(shown, network, settings, task.by_part, _propagated(votes, run) if votes else None)
    leaks.remember(run.path, [*seen, *(trace for pool in pools for trace in leaks.traces(pool))])
    cases = [case.id for pool in pools for case in pool.cases]
    fit(learner, plan, run, train, validation, settings.validate_every, cases)
    _doubt_unlearnt(learner, train, run, shown.classes)
    run.close()
    return run


def _facts(before: Run | None, ledger: transfer.Ledger | None, shown: Shown, network: Network) -> dict[str, Any]:
    """What a finetuning is of, beside its settings: it is resumed where these are the same."""
    return {
        "recipe_of_weights": before and before.card["network"]["recipe"],
        "start": before.card["kind"] if before else None,
        "start_sha256": before.card["weights_sha256"] if before else None,
        "manifest": shown.few.digest(),
        "network": network.model_dump(mode="json"),
        "cases": [case.id for case in shown.few.cases],
        "transfer": ledger.json() if ledger else None,
    }


def _check_regions(task: Settings, classes: Classes) -> None:
    """Refuses regions outside of which a declared class lies: it would be learnt as background."""
    regions = task.regions if isinstance(task, segment.Config) else ()
    if left := [name for n, name in classes.names.items() if regions and not any(n in region for region in regions)]:
        raise BadInput(f"task.regions: {', '.join(left)} lies in none of them; add it to one, or a region of its own")


def _doubt_unlearnt(learner: Task, train: DataLoader, run: Run, classes: Classes) -> None:
    if not isinstance(learner, segment.Segment | Taught) or not (never := unlearnt(learner, train)):
        return
    names = ", ".join(classes.names[n] for n in never)
    told = f"never says {names}, not even in the crops it learnt from; give it more steps, or task.balance=0.5"
    log.warning("%s: %s", run.path, told)
    run.note(alarm=told)
    report.write(run)


def _learner(task: Task, settings: Finetune) -> tuple[Task, Plan]:
    """What is trained: the task, with adapters or beside a teacher where asked; a teacher is the average already."""
    if settings.schedule == "lora":
        lora.adapt(task.encoder, settings.rank)
    how = settings.unlabelled
    if how.name != "none" and not isinstance(task, segment.Segment):
        raise BadInput(f"unlabelled={how.name}: is there for task=segment only; give unlabelled=none")
    if not how.taught:
        return task, settings.plan
    return Taught(task, how, settings.plan), settings.plan.model_copy(update={"ema": 0.0})


def _votes(shown: Shown, settings: Finetune) -> Votes | None:
    """What the labelled volumes say of the others, where asked; refuses to learn from others that are not there."""
    how = settings.unlabelled
    if how.name != "none" and not shown.rest.cases:
        raise BadInput(f"{settings.manifest}: split train has no case beside the labelled ones; give unlabelled=none")
    return Votes(how.atlas, shown.few, shown.rest) if how.atlas else None


def _propagated(votes: Votes, run: Run) -> Propagated:
    """The propagated labels, in the run's folder to be looked at; tells how they agree with the drawn ones."""
    told = votes.write(run.path / "propagated")
    told.draw(run.path / "previews")
    count, agreement = len(told.manifest.cases), told.agreement
    run.note(propagated={"cases": count, "agreement": None if agreement is None else round(agreement, 4)})
    log.info("labels propagated to %d scans, to be looked at in %s", count, told.manifest.folder)
    if agreement is not None and agreement < DOUBTFUL:
        said = f"carried from one labelled volume to another, labels agree with a Dice of {agreement:.2f} alone"
        log.warning("%s: %s; look at it, and whether all scans show the same place", told.manifest.folder, said)
    return told


def _fed(
    shown: Shown, network: Network, settings: Finetune, by_part: bool, told: Propagated | None = None
) -> tuple[DataLoader, list[Manifest]]:
    """Crops of the labelled volumes, and of the others where asked; with what they are cut from."""
    cut = partial(
        CropDataset, recipe=network.recipe, size=settings.crop, seed=settings.plan.seed,
        augment=_sided(settings.augment, shown.classes),
    )  # fmt: skip
    drawn = partial(cut, labelled=True, foreground=settings.foreground, by_part=by_part)
    few = drawn(shown.few, classes=shown.classes)
    if settings.unlabelled.name == "none":
        return feed.crops(few, settings.plan), [shown.few]
    beside = drawn(told.manifest, classes=told.classes) if told else cut(shown.rest)
    return feed.crops(few, settings.plan, beside), [shown.few, beside.store.manifest]


def _sided(augment: Augment, classes: Classes) -> Augment:
    """Left and right change places in a mirror, or there is none."""
    pairs = classes.mirrored()
    if pairs is None and augment.flip[0]:
        log.info("left and right are not mirrored: some class of one side lacks its counterpart")
    flip = augment.flip if pairs is not None else (False, *augment.flip[1:])
    return augment.model_copy(update={"flip": flip, "swap": pairs or ()})
