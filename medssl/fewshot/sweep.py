"""Runs a sweep: trains and tests every arm with every number of labels and every seed, and resumes an earlier sweep."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from medssl import config
from medssl.data.checks.leakage import read_seen_cases
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.splits import select_labelled
from medssl.data.worker_pool import make_job_runner
from medssl.errors import BadInput
from medssl.evaluation.evaluate import select_evaluated_labels
from medssl.fewshot import cell as cell_module
from medssl.fewshot import report
from medssl.fewshot.cell import SweepCell, describe_killed, find_changed_settings, find_outdated_settings
from medssl.fewshot.table import TableRow, build_table
from medssl.files import LOCK_FILE, exclusive_lock, write_text
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.finetune import FinetuneConfig
from medssl.training.label_subset import LabelSubset
from medssl.training.pretrain import PretrainConfig, pretrain

MessageCallback = Callable[[str], None]
SCRATCH = "scratch"
SCORING_KEYS = ("manifest", "lesions", "tolerance_mm")  # the settings of the evaluation, which all cells must share


class Arm(Settings):
    """How the networks of an arm start, and the settings that differ from the finetuning that all arms share."""

    pretrained: Path | None = Field(None, description="folder of a finished pretraining run")
    pretrain: Path | None = Field(None, description="config of `medssl pretrain`; the sweep runs the pretraining")
    pretraining: dict[str, Any] = Field(
        {}, description="changes to the pretraining of this arm, in addition to those of all arms"
    )
    changes: dict[str, Any] = Field({}, description="changes to the finetuning, by dotted key, as train.epochs: 60")

    @model_validator(mode="after")
    def _check_start(self) -> "Arm":
        if self.pretrained and self.pretrain:
            raise ValueError("pretrained and pretrain: an arm starts from one of them")
        if self.pretraining and not self.pretrain:
            raise ValueError("pretraining: changes nothing without pretrain, the config that it changes")
        return self


class Sweep(Settings):
    """A few-label comparison of arms; all arms train for the same number of steps unless their `changes` differ."""

    out: Path = Field(description="folder of the runs, the table and the report")
    manifest: Path = Field(description="manifest.csv of the store")
    finetune_config: Path = Field(
        Path("configs/finetune/segment.yaml"), description="config of `medssl finetune` that all arms share"
    )
    changes: dict[str, Any] = Field({}, description="changes to the finetuning of all arms, by dotted key")
    pretraining: dict[str, Any] = Field(
        {}, description="changes to the pretraining of all arms, by dotted key, as its length and patch_size"
    )
    arms: dict[str, Arm] = Field({SCRATCH: Arm()}, min_length=1, description="arms to compare, by name")
    reference: str = Field(SCRATCH, description="name of the arm that all others are compared with")
    num_labelled: tuple[PositiveInt | None, ...] = Field(
        (1, 2, 4, 8, 16, None), min_length=1, description="numbers of labelled volumes; null takes all"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of label subset and training")
    lesions: tuple[str, ...] = Field((), description="labels whose detection is evaluated in addition to Dice")
    tolerance_mm: PositiveFloat = Field(2.0, description="tolerance of the surface score NSD in mm")
    num_workers: int = Field(0, ge=0, description="number of cells that train at once; 0 trains in this process")
    scheduler: str | None = Field(None, description="address of a dask scheduler (tcp://...), instead of num_workers")

    @model_validator(mode="after")
    def _check_reference(self) -> "Sweep":
        if self.reference not in self.arms:
            raise ValueError(f"reference: {self.reference!r} is no arm; the arms are {', '.join(self.arms)}")
        return self


class SweepResult(NamedTuple):
    """The table of a sweep, and the error of each cell that failed, by the name of the cell."""

    rows: list[TableRow]
    failures: dict[str, str]


def run_sweep(settings: Sweep, watch: MessageCallback) -> SweepResult:
    """Trains and tests all cells that are not done yet, and updates table, curve and report after each of them.

    Args:
        settings: The sweep.
        watch: Receives progress messages.
    """
    manifest = Manifest.read(settings.manifest)
    labelled = manifest.in_split("train").with_labels()
    for count in settings.num_labelled:
        select_labelled(labelled, count or len(labelled.cases), settings.seeds[0])
    references = References.read(settings.manifest)
    test_cases = references.select_labelled([case.id for case in manifest.in_split("test").with_labels().cases])
    if not test_cases:
        raise BadInput(
            f"{settings.manifest}: no labelled case in split 'test'; ingest with --split-fractions train=..,test=.."
        )
    _check_lesions(settings, references, test_cases)
    pretrainings = _pretrain_configs(settings)
    starts = {
        name: pretrainings[name].run if name in pretrainings else arm.pretrained for name, arm in settings.arms.items()
    }
    cells = _list_cells(settings, starts, len(labelled.cases), _scored_structures(references, test_cases))
    _require_disjoint_patients(settings, cells, manifest)
    _require_learnable(cells, manifest)
    _require_same_scoring(settings)
    _require_unchanged(pretrainings.values(), cells, labelled)
    settings.out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(
        settings.out, "another process works on this sweep; wait until it ends, or start it with a larger num_workers"
    ):
        write_text(settings.out / report.SETTINGS_FILE, config.dump(settings))
        return _run_cells(settings, pretrainings, cells, labelled, watch)


def _run_cells(
    settings: Sweep,
    pretrainings: Mapping[str, PretrainConfig],
    cells: Sequence[SweepCell],
    labelled: Manifest,
    watch: MessageCallback,
) -> SweepResult:
    """Runs the pretrainings, then the cells."""
    failed: dict[str, str] = {}
    for name, pretraining in pretrainings.items():
        if Run(pretraining.run).is_finished:
            continue
        watch(f"pretraining for {name}")
        try:
            pretrain(pretraining)
        except (BadInput, OSError, RuntimeError, MemoryError) as error:
            message = f"its pretraining failed: {' '.join(str(error).split()) or type(error).__name__}"
            watch(f"{name}: {message}")
            failed |= {cell.name: message for cell in cells if cell.settings.pretrained == pretraining.run}
        else:
            _require_unchanged((), cells, labelled)
    waiting = [cell for cell in cells if not cell.is_done and cell.name not in failed]
    watch(f"{len(cells)} cells, {sum(cell.is_done for cell in cells)} done already")
    rows = _write_report(settings, cells, failed)
    run_jobs = make_job_runner(settings.num_workers, settings.scheduler)
    for count, (cell, reason) in enumerate(run_jobs(waiting, cell_module.run_cell, describe_killed), 1):
        failed |= {cell.name: reason} if reason else {}
        watch(f"{count} of {len(waiting)}: {cell.name}: {reason or cell.describe_score()}")
        rows = _write_report(settings, cells, failed)
    return SweepResult(rows, failed)


def _require_disjoint_patients(settings: Sweep, cells: Sequence[SweepCell], manifest: Manifest) -> None:
    """Rejects test patients who are also in the training split or in a pretraining, before any training."""
    test, subset = manifest.in_split("test"), LabelSubset.select(manifest, None, settings.seeds[0])
    for name, cell in {cell.arm: cell for cell in cells}.items():
        start = settings.arms[name].pretrained
        if start:
            Run.open(start)
        if not cell.settings.allow_overlap:
            subset.require_disjoint_patients(test)
            read_seen_cases(start, test)


def _require_learnable(cells: Sequence[SweepCell], manifest: Manifest) -> None:
    """Rejects a label subset that lacks a class."""
    for cell in cells:
        try:
            subset = LabelSubset.select(manifest, cell.num_labelled, cell.seed)
            subset.check_classes(cell.settings.allow_missing_classes)
        except BadInput as error:
            raise BadInput(f"{cell.name}: {error}") from None


def _check_lesions(settings: Sweep, references: References, test_cases: Sequence[str]) -> None:
    values = {name: value for value, name in references.classes.names.items()}
    annotated = references.classes.present
    for name in settings.lesions:
        if name not in values:
            raise BadInput(f"lesions: {name}: no label of {settings.manifest}; it has {', '.join(values)}")
        if all(values[name] not in annotated.get(case, [values[name]]) for case in test_cases):
            raise BadInput(f"lesions: {name} is annotated in no test case of {settings.manifest}; leave it out")


def _scored_structures(references: References, test_cases: Sequence[str]) -> frozenset[str]:
    """Returns the classes and regions that a finished cell has scores of."""
    names, annotated = references.classes.names, references.classes.present
    return frozenset(
        name
        for case in test_cases
        for name in select_evaluated_labels(annotated.get(case, list(names)), names, references)
    )


def _require_same_scoring(settings: Sweep) -> None:
    """Rejects a folder whose cells were evaluated with other settings, or that holds something else.

    Arms, numbers of labels and seeds may be added, num_workers and scheduler may change, and the folder may be moved.
    """
    path = settings.out / report.SETTINGS_FILE
    if not path.is_file() and settings.out.exists() and any(p.name != LOCK_FILE for p in settings.out.iterdir()):
        raise BadInput(f"{settings.out}: holds something else than a sweep; choose another out")
    if path.is_file():
        previous = config.read(path.absolute(), [], Sweep)
        changed = [name for name in SCORING_KEYS if getattr(previous, name) != getattr(settings, name)]
        if changed:
            raise BadInput(f"{settings.out}: was begun with another {', '.join(changed)}; choose another out")


def _require_unchanged(pretrainings: Iterable[PretrainConfig], cells: Sequence[SweepCell], labelled: Manifest) -> None:
    """Rejects finished runs that were trained with other settings or on other volumes."""
    changed = {pretraining.run: find_changed_settings(pretraining) for pretraining in pretrainings}
    for cell in cells:
        cases = [case.id for case in select_labelled(labelled, cell.num_labelled, cell.seed).cases]
        changed[cell.settings.run] = find_outdated_settings(cell.settings, cases)
    messages = [f"{run} was trained with another {', '.join(keys)}" for run, keys in changed.items() if keys]
    if messages:
        raise BadInput(f"{'; '.join(messages[:3])}; choose another out, or delete the runs to train them again")


def _pretrain_configs(settings: Sweep) -> dict[str, PretrainConfig]:
    """Returns the pretraining of each arm that has one; arms with equal pretrainings share the run of the first."""
    configs: dict[str, PretrainConfig] = {}
    for name, arm in settings.arms.items():
        if arm.pretrain:
            first = next(
                other_name
                for other_name, other in settings.arms.items()
                if (other.pretrain, other.pretraining) == (arm.pretrain, arm.pretraining)
            )
            run = settings.out / "pretrained" / first
            fixed = {"manifest": str(settings.manifest), "run": str(run), "resume": True}
            configs[name] = config.read(
                arm.pretrain, _format_overrides({**settings.pretraining, **arm.pretraining, **fixed}), PretrainConfig
            )
    return configs


def _list_cells(
    settings: Sweep, starts: Mapping[str, Path | None], available: int, structures: frozenset[str] = frozenset()
) -> list[SweepCell]:
    """Returns the cells seed by seed, so that a sweep that is stopped early holds complete comparisons."""
    cells = []
    for seed, count, name in product(settings.seeds, settings.num_labelled, settings.arms):
        folder = settings.out / "cells" / f"{name}-k{count or 'all'}-s{seed}".replace(" ", "_")
        changes = {
            **settings.changes, **settings.arms[name].changes, "manifest": str(settings.manifest),
            "run": str(folder / "run"), "pretrained": starts[name] and str(starts[name]), "num_labelled": count,
            "seed": seed, "train.seed": seed, "resume": True,
        }  # fmt: skip
        finetuning = config.read(settings.finetune_config, _format_overrides(changes), FinetuneConfig)
        scoring = (settings.tolerance_mm, settings.num_workers, settings.lesions, structures)
        cells.append(SweepCell(name, count or available, seed, folder, finetuning, *scoring))
    return cells


def _format_overrides(changes: Mapping[str, Any]) -> list[str]:
    """Returns changes as key=value arguments of the command line; JSON is valid YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def _write_report(settings: Sweep, cells: Sequence[SweepCell], failed: Mapping[str, str]) -> list[TableRow]:
    finished = [cell for cell in cells if cell.is_done]
    rows = build_table(finished, settings.reference) if finished else []
    report.write(settings.out, rows, report.SweepProgress(len(cells), len(finished), failed))
    return rows
