"""Sweep: every arm with every number of labels and every seed, from one file, and resumed where it stopped."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from medssl import config
from medssl.data import worker_pool as pool
from medssl.data.checks import leakage as leaks
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.evaluation.evaluate import measured_in
from medssl.fewshot import cell
from medssl.fewshot import report as page
from medssl.fewshot.cell import Cell, altered, stale
from medssl.fewshot.table import Line, lines
from medssl.files import LOCK, alone, write_text
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.finetune import Finetune
from medssl.training.label_subset import Shown
from medssl.training.pretrain import Pretrain, pretrain

Watch = Callable[[str], None]
SCRATCH = "scratch"
TESTED = ("manifest", "lesions", "tolerance_mm")  # what decides, beside the runs, what a cell scores


class Arm(Settings):
    """How an arm starts, and what it changes of the recipe that all arms share."""

    pretrained: Path | None = Field(None, description="a finished pretraining")
    pretrain: Path | None = Field(None, description="a config of `medssl pretrain`, which the sweep then runs")
    pretraining: dict[str, Any] = Field({}, description="changes of its pretraining, beside those of all arms")
    changes: dict[str, Any] = Field({}, description="dotted keys of `medssl finetune`, as plan.epochs: 60")

    @model_validator(mode="after")
    def _one_start(self) -> "Arm":
        if self.pretrained and self.pretrain:
            raise ValueError("pretrained and pretrain: an arm starts from one of them")
        if self.pretraining and not self.pretrain:
            raise ValueError("pretraining: changes nothing without pretrain, the config that it changes")
        return self


class Sweep(Settings):
    """A few-label comparison; every arm has the recipe's steps unless its `changes` say otherwise."""

    out: Path
    manifest: Path
    recipe: Path = Field(Path("configs/finetune/segment.yaml"), description="the finetuning that all arms share")
    changes: dict[str, Any] = Field({}, description="changes of the recipe, for all arms")
    pretraining: dict[str, Any] = Field({}, description="changes of every arm's pretraining, as its length and crop")
    arms: dict[str, Arm] = Field({SCRATCH: Arm()}, min_length=1)
    reference: str = Field(SCRATCH, description="the arm that all others are held against")
    labels: tuple[PositiveInt | None, ...] = Field((1, 2, 4, 8, 16, None), min_length=1, description="null takes all")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    lesions: tuple[str, ...] = Field((), description="labels of which it is measured too how they are found")
    tolerance_mm: PositiveFloat = Field(2.0, description="of the surface score NSD")
    workers: int = Field(0, ge=0, description="processes that train at once; 0 trains in this one")
    scheduler: str | None = Field(None, description="tcp://... of a dask scheduler, in place of workers")

    @model_validator(mode="after")
    def _held_against_an_arm(self) -> "Sweep":
        if self.reference not in self.arms:
            raise ValueError(f"reference: {self.reference!r} is no arm; the arms are {', '.join(self.arms)}")
        return self


class Swept(NamedTuple):
    """The table of a sweep, and by the name of each cell that could not be measured why."""

    lines: list[Line]
    failed: dict[str, str]


def sweep(asked: Sweep, watch: Watch) -> Swept:
    """Trains and tests what is not done yet; the table, the curve and the report are written anew after each cell."""
    manifest = Manifest.read(asked.manifest)
    labelled = manifest.by("train").labelled()
    for count in asked.labels:
        labelled.few(count or len(labelled.cases), asked.seeds[0])
    references = References.read(asked.manifest)
    tested = references.measured([case.id for case in manifest.by("test").labelled().cases])
    if not tested:
        raise BadInput(f"{asked.manifest}: no labelled case in split 'test'; ingest with --shares train=..,test=..")
    _lesions_there(asked, references, tested)
    plans = _pretrainings(asked)
    starts = {name: plans[name].run if name in plans else arm.pretrained for name, arm in asked.arms.items()}
    cells = _cells(asked, starts, len(labelled.cases), _scored(references, tested))
    _apart(asked, cells, manifest)
    _learnable(cells, manifest)
    _settle(asked)
    _unchanged(plans.values(), cells, labelled)
    asked.out.mkdir(parents=True, exist_ok=True)
    with alone(asked.out, "another process works on this sweep; wait for its end, or begin it with more workers"):
        write_text(asked.out / page.ASKED, config.dump(asked))
        return _swept(asked, plans, cells, labelled, watch)


def _swept(
    asked: Sweep, plans: Mapping[str, Pretrain], cells: Sequence[Cell], labelled: Manifest, watch: Watch
) -> Swept:
    failed: dict[str, str] = {}
    for name, plan in plans.items():
        if Run(plan.run).finished:
            continue
        watch(f"pretraining for {name}")
        try:
            pretrain(plan)
        except (BadInput, OSError, RuntimeError, MemoryError) as error:
            said = f"its pretraining failed: {' '.join(str(error).split()) or type(error).__name__}"
            watch(f"{name}: {said}")
            failed |= {one.name: said for one in cells if one.settings.pretrained == plan.run}
        else:
            _unchanged((), cells, labelled)
    todo = [one for one in cells if not one.done and one.name not in failed]
    watch(f"{len(cells)} cells, {sum(one.done for one in cells)} done already")
    found = _report(asked, cells, failed)
    run = pool.runner(asked.workers, asked.scheduler)
    for count, (one, reason) in enumerate(run(todo, cell.work, cell.dead), 1):
        failed |= {one.name: reason} if reason else {}
        watch(f"{count} of {len(todo)}: {one.name}: {reason or one.said()}")
        found = _report(asked, cells, failed)
    return Swept(found, failed)


def _apart(asked: Sweep, cells: Sequence[Cell], manifest: Manifest) -> None:
    """Refuses patients who are tested on and trained on, or seen by a pretraining, before anything is trained."""
    test, shown = manifest.by("test"), Shown.of(manifest, None, asked.seeds[0])
    for name, one in {one.arm: one for one in cells}.items():
        start = asked.arms[name].pretrained
        if start:
            Run.open(start)
        if not one.settings.allow_overlap:
            shown.apart_from(test)
            leaks.seen_by(start, test)


def _learnable(cells: Sequence[Cell], manifest: Manifest) -> None:
    """Refuses labels that a cell cannot learn from, as those without some class."""
    for one in cells:
        try:
            Shown.of(manifest, one.labels, one.seed).check(one.settings.allow_absent)
        except BadInput as error:
            raise BadInput(f"{one.name}: {error}") from None


def _lesions_there(asked: Sweep, references: References, tested: Sequence[str]) -> None:
    values = {name: value for value, name in references.classes.names.items()}
    told = references.classes.present
    for name in asked.lesions:
        if name not in values:
            raise BadInput(f"lesions: {name}: no label of {asked.manifest}; it has {', '.join(values)}")
        if all(values[name] not in told.get(case, [values[name]]) for case in tested):
            raise BadInput(f"lesions: {name} was drawn in no test case of {asked.manifest}; leave it out")


def _scored(references: References, tested: Sequence[str]) -> frozenset[str]:
    """The classes and regions that a finished cell has scores of."""
    names, told = references.classes.names, references.classes.present
    return frozenset(name for case in tested for name in measured_in(told.get(case, list(names)), names, references))


def _settle(asked: Sweep) -> None:
    """Cells that were tested in another way must not stand in one table; what they were trained with, their runs tell.

    Arms, numbers of labels and seeds may be added, where the work is done may change, and the folder may be moved.
    """
    path = asked.out / page.ASKED
    if not path.is_file() and asked.out.exists() and any(one.name != LOCK for one in asked.out.iterdir()):
        raise BadInput(f"{asked.out}: holds something else than a sweep; choose another out")
    if path.is_file():
        then = config.read(path.absolute(), [], Sweep)
        changed = [name for name in TESTED if getattr(then, name) != getattr(asked, name)]
        if changed:
            raise BadInput(f"{asked.out}: was begun with another {', '.join(changed)}; choose another out")


def _unchanged(plans: Iterable[Pretrain], cells: Sequence[Cell], labelled: Manifest) -> None:
    """Refuses finished runs that were trained otherwise, or on other volumes, than is asked now."""
    changed = {plan.run: altered(plan) for plan in plans}
    for one in cells:
        cases = [case.id for case in labelled.few(one.labels, one.seed).cases]
        changed[one.settings.run] = stale(one.settings, cases)
    said = [f"{run} was trained with another {', '.join(keys)}" for run, keys in changed.items() if keys]
    if said:
        raise BadInput(f"{'; '.join(said[:3])}; choose another out, or delete what is to be trained again")


def _pretrainings(asked: Sweep) -> dict[str, Pretrain]:
    """Of every arm that has one; arms that ask for the same share the run that is named after the first of them."""
    plans: dict[str, Pretrain] = {}
    for name, arm in asked.arms.items():
        if arm.pretrain:
            alike = (n for n, a in asked.arms.items() if (a.pretrain, a.pretraining) == (arm.pretrain, arm.pretraining))
            place = asked.out / "pretrained" / next(alike)
            told = {"manifest": str(asked.manifest), "run": str(place), "resume": True}
            plans[name] = config.read(arm.pretrain, _words({**asked.pretraining, **arm.pretraining, **told}), Pretrain)
    return plans


def _cells(
    asked: Sweep, starts: Mapping[str, Path | None], available: int, scored: frozenset[str] = frozenset()
) -> list[Cell]:
    """Seeds outermost: a sweep that is stopped early holds whole comparisons."""
    cells = []
    for seed, count, name in product(asked.seeds, asked.labels, asked.arms):
        folder = asked.out / "cells" / f"{name}-k{count or 'all'}-s{seed}".replace(" ", "_")
        changes = {
            **asked.changes, **asked.arms[name].changes, "manifest": str(asked.manifest), "run": str(folder / "run"),
            "pretrained": starts[name] and str(starts[name]), "labels": count, "seed": seed, "plan.seed": seed,
            "resume": True,
        }  # fmt: skip
        settings = config.read(asked.recipe, _words(changes), Finetune)
        told = (asked.tolerance_mm, asked.workers, asked.lesions, scored)
        cells.append(Cell(name, count or available, seed, folder, settings, *told))
    return cells


def _words(changes: Mapping[str, Any]) -> list[str]:
    """Changes as a command line gives them; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def _report(asked: Sweep, cells: Sequence[Cell], failed: Mapping[str, str]) -> list[Line]:
    done = [one for one in cells if one.done]
    found = lines(done, asked.reference) if done else []
    page.write(asked.out, found, page.Progress(len(cells), len(done), failed))
    return found
