"""Runs a sweep: trains and tests every arm with every number of labels and every seed, and resumes an earlier sweep."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from medssl import config
from medssl.data.checks.leakage import read_seen_cases
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.selection.case_groups import group_cases
from medssl.data.selection.splits import select_labelled
from medssl.data.worker_pool import make_job_runner
from medssl.errors import BadInput
from medssl.evaluation.evaluate import select_evaluated_labels
from medssl.fewshot import cell as cell_module
from medssl.fewshot import report
from medssl.fewshot.cell import SweepCell, describe_killed, find_changed_settings, find_outdated_settings
from medssl.fewshot.config import Arm, Sweep
from medssl.fewshot.cost import COSTS_FILE, PARTS_FOLDER, StepCosts, count_windows
from medssl.fewshot.plan import Pretrainings, find_finished_cells, list_cells, list_pretrainings
from medssl.fewshot.table import TableRow, build_table
from medssl.files import LOCK_FILE, exclusive_lock, sweep_parts, write_text
from medssl.run import Run
from medssl.training.estimates.step_cost import format_duration
from medssl.training.label_subset import LabelSubset
from medssl.training.pretrain import PretrainConfig, pretrain

__all__ = ["Arm", "Sweep", "SweepResult", "require_measured", "run_sweep"]

MessageCallback = Callable[[str], None]
SCORING_KEYS = ("manifest", "lesions", "tolerance_mm", "domain")  # of the evaluation, which all cells share


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
    labelled = settings.domain.select(manifest.in_split("train").with_labels())
    for arm, count in product(settings.arms.values(), settings.num_labelled):
        select_labelled(labelled, arm.scale_count(count) or len(labelled.cases), settings.seeds[0])
    references = References.read(settings.manifest)
    test_cases = references.select_labelled([case.id for case in manifest.in_split("test").with_labels().cases])
    if not test_cases:
        raise BadInput(
            f"{settings.manifest}: no labelled case in split 'test'; ingest with --split-fractions train=..,test=.."
        )
    _check_lesions(settings, references, test_cases)
    domains = _group_tests(settings, manifest)
    _require_same_scoring(settings)
    costs = StepCosts(settings.out)
    pretrainings = list_pretrainings(settings, costs)
    basis = pretrainings, costs, len(labelled.cases), _scored_structures(references, test_cases)
    cells = list_cells(settings, *basis)
    _require_disjoint_patients(settings, cells, manifest)
    _require_learnable(cells, manifest)
    earlier = find_finished_cells(settings, *basis, cells)
    _require_unchanged(pretrainings.values(), [*cells, *earlier], labelled)
    with _claim_part(settings):
        whole = settings.model_copy(update={"part": 0, "num_parts": 1})
        write_text(settings.out / report.SETTINGS_FILE, config.dump(whole))
        if message := _estimate_time(settings, cells, pretrainings.values(), costs, manifest.in_split("test")):
            watch(message)
        return _run_cells(settings, pretrainings, cells, earlier, labelled, domains, watch)


def require_measured(failures: Mapping[str, str]) -> None:
    """Raises BadInput if cells failed; `failures` holds their errors by name."""
    if failures:
        first = ": ".join(next(iter(failures.items())))
        raise BadInput(f"{len(failures)} cells could not be measured, for example {first}; mend that and run it again")


@contextmanager
def _claim_part(settings: Sweep) -> Iterator[None]:
    """Holds the lock on this part of a sweep while the block runs, and makes the folder of the sweep."""
    folder = settings.out if settings.num_parts == 1 else settings.out / PARTS_FOLDER / str(settings.part)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(
        folder, "another process works on this sweep; wait until it ends, or start it with a larger num_workers"
    ):
        if settings.num_parts == 1:  # else other calls may be writing
            sweep_parts(folder)
        yield


@contextmanager
def _wait_for_turn(settings: Sweep, run: Path) -> Iterator[None]:
    """Waits while another part of the sweep trains a pretraining, and keeps the others waiting while the block runs."""
    with FileLock(settings.out / PARTS_FOLDER / f"{run.name}.lock") if settings.num_parts > 1 else nullcontext():
        yield


def _run_cells(
    settings: Sweep,
    pretrainings: Pretrainings,
    cells: Sequence[SweepCell],
    earlier: Sequence[SweepCell],
    labelled: Manifest,
    domains: Mapping[str, str],
    watch: MessageCallback,
) -> SweepResult:
    """Runs the pretrainings, then the cells; `earlier` are finished cells of earlier calls."""
    failed: dict[str, str] = {}
    by_run = {pretraining.run: (key, pretraining) for key, pretraining in reversed(list(pretrainings.items()))}
    for (arm, count, seed), pretraining in reversed(list(by_run.values())):
        name = f"{arm}, seed {seed}" if settings.pretraining_per_seed else arm
        if pretraining.labels.depends_on_subset:
            name = f"{arm}, {count or 'all'} labelled, seed {seed}"
        try:
            with _wait_for_turn(settings, pretraining.run):
                if Run(pretraining.run).is_finished:
                    continue
                watch(f"pretraining for {name}")
                pretrain(pretraining)
        except (BadInput, OSError, RuntimeError, MemoryError) as error:
            message = f"its pretraining failed: {' '.join(str(error).split()) or type(error).__name__}"
            watch(f"{name}: {message}")
            failed |= {cell.name: message for cell in cells if cell.settings.pretrained == pretraining.run}
        else:
            _require_unchanged((), cells, labelled)
    watch(f"{len(cells)} cells, {sum(cell.is_done for cell in cells)} done already")
    cells = [*cells, *earlier]
    own_cells = [cell for index, cell in enumerate(cells) if index % settings.num_parts == settings.part]
    waiting = [cell for cell in own_cells if not cell.is_done and cell.name not in failed]
    rows = _write_report(settings, cells, failed, domains)
    run_jobs = make_job_runner(settings.num_workers, settings.scheduler)
    for count, (cell, reason) in enumerate(run_jobs(waiting, cell_module.run_cell, describe_killed), 1):
        failed |= {cell.name: reason} if reason else {}
        watch(f"{count} of {len(waiting)}: {cell.name}: {reason or cell.describe_score()}")
        rows = _write_report(settings, cells, failed, domains)
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
            settings = cell.settings
            subset = LabelSubset.select(manifest, settings.num_labelled, cell.seed, domain=settings.label_domain)
            subset.check_classes(settings.allow_missing_classes)
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


def _scored_structures(references: References, test_cases: Sequence[str]) -> dict[str, frozenset[str]]:
    """Returns the classes of each class and region that the test cases have a reference of."""
    names, annotated = references.classes.names, references.classes.present
    return {
        name: frozenset(names[value] for value in values)
        for case in test_cases
        for name, values in select_evaluated_labels(annotated.get(case, list(names)), names, references).items()
    }


def _require_same_scoring(settings: Sweep) -> None:
    """Rejects a folder whose cells were evaluated with other settings, or that holds something else.

    Arms, numbers of labels and seeds may be added, num_workers and scheduler may change, and the folder may be moved.
    """
    path = settings.out / report.SETTINGS_FILE
    names = {path.name for path in settings.out.iterdir()} if settings.out.exists() else set()
    if not path.is_file() and names - {LOCK_FILE, PARTS_FOLDER, COSTS_FILE}:
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
        count = cell.settings.num_labelled or len(labelled.cases)
        cases = [case.id for case in select_labelled(labelled, count, cell.seed).cases]
        changed[cell.settings.run] = find_outdated_settings(cell.settings, cases)
    messages = [f"{run} was trained with another {', '.join(keys)}" for run, keys in changed.items() if keys]
    if messages:
        raise BadInput(f"{'; '.join(messages[:3])}; choose another out, or delete the runs to train them again")


def _estimate_time(
    settings: Sweep,
    cells: Sequence[SweepCell],
    pretrainings: Iterable[PretrainConfig],
    costs: StepCosts,
    test: Manifest,
) -> str:
    """Returns how long the remaining trainings will take, from a few steps of each kind; "" if none remains."""
    waiting = [cell for cell in cells if not cell.is_done]
    unfinished = {config.run: config for config in pretrainings if not Run(config.run).is_finished}
    if not waiting and not unfinished:
        return ""
    try:
        seconds = sum(costs.measure_training(config)[0] for config in unfinished.values())
        for cell in waiting:
            windows = count_windows(test, cell.settings.patch_size)
            cell_s = costs.measure_training(cell.settings)[0] + windows * costs.measure(cell.settings).window_s
            seconds += cell_s / max(1, settings.num_workers)
    except (BadInput, OSError, RuntimeError, MemoryError) as error:
        return f"no estimate of the time: {' '.join(str(error).split())}"
    counts = f"{len(unfinished)} pretrainings and {len(waiting)} cells" if unfinished else f"{len(waiting)} cells"
    return f"about {format_duration(seconds)} on this machine's CPU for {counts}, by a few steps of each kind"


def _group_tests(settings: Sweep, manifest: Manifest) -> dict[str, str]:
    """Returns the domain of each test case, for a table of its own; empty without domains."""
    if settings.domain.by is None:
        return {}
    tests = manifest.in_split("test").with_labels()
    return {
        case: f"{settings.domain.by.rpartition(':')[2]} {group}"
        + (" (with labels)" if group in settings.domain.values else "")
        for case, group in group_cases(tests.cases, settings.domain.by).items()
    }


def _write_report(
    settings: Sweep, cells: Sequence[SweepCell], failed: Mapping[str, str], domains: Mapping[str, str]
) -> list[TableRow]:
    arms = list(dict.fromkeys([*settings.arms, *(cell.arm for cell in cells)]))
    finished = sorted(
        (cell for cell in cells if cell.is_done), key=lambda cell: (cell.num_labelled, arms.index(cell.arm), cell.seed)
    )
    rows = build_table(finished, settings.reference, domains) if finished else []
    report.write(settings.out, rows, finished, report.SweepProgress(len(cells), len(finished), failed))
    return rows
