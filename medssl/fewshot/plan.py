"""Lists the trainings of a sweep: a pretraining for each arm that has one, and the cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar

from medssl import config
from medssl.fewshot.cell import CELL_FILE, Structures, SweepCell
from medssl.fewshot.config import Sweep
from medssl.fewshot.cost import StepCosts
from medssl.run import Run
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig

PretrainingKey = tuple[str, int | None, int]  # arm, number of labels (None for all) and seed
Pretrainings = Mapping[PretrainingKey, PretrainConfig]
SettingsT = TypeVar("SettingsT", FinetuneConfig, PretrainConfig)


def list_pretrainings(settings: Sweep, costs: StepCosts) -> dict[PretrainingKey, PretrainConfig]:
    """Returns the pretraining of each arm that has one, by arm, number of labels and seed.

    Equal ones share the run of the first arm. One that learns from labels of the store has a run for each number of
    labels and each seed, and uses the labels that its cell has.
    """
    pretrainings = {}
    for (name, arm), count, seed in product(settings.arms.items(), settings.num_labelled, settings.seeds):
        if not arm.pretrain:
            continue
        first = next(
            other_name
            for other_name, other in settings.arms.items()
            if (other.pretrain, other.pretraining) == (arm.pretrain, arm.pretraining)
        )
        folder = settings.out / "pretrained"
        fixed: dict[str, Any] = {"manifest": str(settings.manifest), "run": str(folder / first), "resume": True}
        changes = {**settings.pretraining, **arm.pretraining}
        if settings.pretraining_per_seed:
            fixed["train.seed"] = seed
        pretraining = config.read(arm.pretrain, _format_overrides({**changes, **fixed}), PretrainConfig)
        if settings.pretraining_per_seed and "seed" in type(pretraining.objective).model_fields:
            objective = pretraining.objective.model_copy(update={"seed": seed})
            pretraining = pretraining.model_copy(update={"objective": objective})
        if pretraining.labels.depends_on_subset:
            volumes = arm.scale_count(count)
            labels = pretraining.labels.model_copy(update={"num_labelled": volumes, "domain": settings.domain})
            subset = {"run": folder / f"{first}-k{volumes or 'all'}-s{seed}", "labels": labels, "seed": seed}
            pretraining = pretraining.model_copy(update=subset)
        elif settings.pretraining_per_seed:
            pretraining = pretraining.model_copy(update={"run": folder / f"{first}-s{seed}"})
        if minutes := settings.pretraining_minutes:
            pretraining = _set_epochs(pretraining, costs.count_epochs(pretraining, 60 * minutes))
        pretrainings[name, count, seed] = pretraining
    return pretrainings


def list_cells(
    settings: Sweep,
    pretrainings: Pretrainings,
    costs: StepCosts,
    available: int,
    structures: Structures,
) -> list[SweepCell]:
    """Returns the cells seed by seed, so that a sweep that is stopped early holds complete comparisons.

    Args:
        settings: The sweep.
        pretrainings: The pretrainings of `list_pretrainings`.
        costs: Measured costs of steps, for arms with equal compute.
        available: The number of labelled volumes.
        structures: The classes of each class and region to score.
    """
    return [
        make_cell(settings, pretrainings, costs, available, structures, name, count, seed)
        for seed, count, name in product(settings.seeds, settings.num_labelled, settings.arms)
    ]


def make_cell(
    settings: Sweep,
    pretrainings: Pretrainings,
    costs: StepCosts,
    available: int,
    structures: Structures,
    name: str,
    count: int | None,
    seed: int,
) -> SweepCell:
    """Returns one cell; see `list_cells`."""
    arm = settings.arms[name]
    key = name, count, seed
    start = pretrainings[key].run if key in pretrainings else arm.pretrained
    folder = settings.out / "cells" / f"{name}-k{count or 'all'}-s{seed}".replace(" ", "_")
    fixed = {
        "manifest": str(settings.manifest), "run": str(folder / "run"), "pretrained": start and str(start),
        "num_labelled": arm.scale_count(count), "seed": seed, "train.seed": seed, "resume": True,
        "label_domain": settings.domain.model_dump(mode="json"),
    }  # fmt: skip
    overrides = _format_overrides({**settings.changes, **arm.changes, **fixed})
    finetuning = config.read(settings.finetune_config, overrides, FinetuneConfig)
    scoring = (settings.tolerance_mm, settings.num_workers, settings.lesions, structures)
    cell = SweepCell(name, count or available, seed, folder, finetuning, *scoring)
    if arm.equal_compute_with is None:
        return cell
    other = make_cell(settings, pretrainings, costs, available, structures, arm.equal_compute_with, count, seed)
    return _equalize_compute(cell, other, next(c for key, c in pretrainings.items() if key[0] == other.arm), costs)


def find_finished_cells(
    settings: Sweep,
    pretrainings: Pretrainings,
    costs: StepCosts,
    available: int,
    structures: Structures,
    cells: Sequence[SweepCell],
) -> list[SweepCell]:
    """Returns the cells that earlier calls finished and that this call does not ask for.

    An arm that the sweep still has is taken with its present settings, so that a change is noticed; another one as its
    runs were trained.
    """
    requested = {cell.folder for cell in cells}
    finished = []
    for path in sorted((settings.out / "cells").glob(f"*/{CELL_FILE}")):
        if path.parent in requested or not Run(path.parent / "run").is_finished:
            continue
        fact = json.loads(path.read_text())
        name, count, seed = fact["arm"], fact["num_labelled"], fact["seed"]
        if name in settings.arms:
            wider = settings.model_copy(update={"seeds": (seed,), "num_labelled": (count,)})
            seed_pretrainings = {**list_pretrainings(wider, costs), **pretrainings}
            finished.append(make_cell(settings, seed_pretrainings, costs, available, structures, name, count, seed))
            continue
        run = Run(path.parent / "run")
        finetuning = config.check(run.read_settings(), FinetuneConfig, str(run.path / "config.yaml"))
        finetuning = finetuning.model_copy(update={"run": run.path, "manifest": settings.manifest})
        scoring = (settings.tolerance_mm, settings.num_workers, settings.lesions, structures)
        finished.append(SweepCell(name, count or available, seed, path.parent, finetuning, *scoring))
    return finished


def _equalize_compute(cell: SweepCell, other: SweepCell, pretraining: PretrainConfig, costs: StepCosts) -> SweepCell:
    """Returns a cell that trains for as long as the pretraining and the finetuning of another one together."""
    total = costs.measure_training(pretraining)[1] + costs.measure_training(other.settings)[1]
    return replace(cell, settings=_set_epochs(cell.settings, costs.count_epochs(cell.settings, total)))


def _set_epochs(settings: SettingsT, epochs: int) -> SettingsT:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": epochs})})


def _format_overrides(changes: Mapping[str, Any]) -> list[str]:
    """Returns changes as key=value arguments of the command line; JSON is valid YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]
