"""Builds the table of a sweep: the score of each arm per number of labels, and its difference from the reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.evaluation.compare import ALL, case_means, read_scores
from medssl.fewshot.cell import SweepCell
from medssl.fewshot.cost import NO_COMPUTE, Compute, average_compute
from medssl.fewshot.lesion_scores import METRICS, compare_arms, read_lesion_scores, score_interval
from medssl.metrics.statistics import Interval, adjust_holm, compare_paired, is_significant, mean_interval

T = TypeVar("T")
MIN_SEEDS = 5  # with fewer, the variance between seeds is known too badly to call a difference significant


@dataclass(frozen=True)
class TableRow:
    """The score of one arm with one number of labels on one structure.

    Args:
        arm: The name of the arm.
        num_labelled: The number of labelled volumes.
        structure: A class, a region, or `all labels`.
        metric: The name of the metric.
        seeds: The number of seeds.
        cases: The number of test cases.
        patients: The number of test patients.
        score: The score with its 95 % interval over patients and seeds.
        by_seed: The score of each seed.
        difference: The difference from the reference arm, paired by case, in the seeds that both have; None for the
            reference arm.
        p: The p-value of that difference.
        p_holm: The p-value adjusted for the number of comparisons in the table of this structure and metric.
        paired_seeds: The number of seeds that the difference is over.
        seeds_below: The number of these seeds in which the score is below that of the reference arm.
        finetuning: Mean steps and minutes of the finetunings.
        pretraining: Mean steps and minutes of the pretrainings that they start from.
        num_pretrainings: The number of different pretrainings that they start from.
    """

    arm: str
    num_labelled: int
    structure: str
    metric: str
    seeds: int
    cases: int
    patients: int
    score: Interval
    by_seed: tuple[float, ...] = ()
    difference: Interval | None = None
    p: float | None = None
    p_holm: float | None = None
    paired_seeds: int = 0
    seeds_below: int = 0
    finetuning: Compute = NO_COMPUTE
    pretraining: Compute = NO_COMPUTE
    num_pretrainings: int = 0

    @property
    def regret(self) -> float | None:
        """The fraction of seeds in which the arm is below the reference; None for the reference arm."""
        return self.seeds_below / self.paired_seeds if self.paired_seeds else None

    def verdict(self, reference: str) -> str:
        """Returns whether the arm is better or worse than the reference, if enough seeds show it."""
        if self.difference is None or self.p_holm is None:
            return ""
        if self.paired_seeds < MIN_SEEDS:
            return f"no verdict below {MIN_SEEDS} seeds"
        if not is_significant(self.difference, self.p_holm):
            return "no difference shown"
        return f"{'better' if self.difference.estimate > 0 else 'worse'} than {reference}"


def build_table(
    cells: Sequence[SweepCell], reference: str, domains: Mapping[str, str] = MappingProxyType({})
) -> list[TableRow]:
    """Returns the rows of lesion detection (if evaluated), of Dice over all labels, by domain and per structure.

    Args:
        cells: The finished cells, with the arms in the order of the sweep.
        reference: The arm that all others are compared with.
        domains: The domain of each test case, for rows over all labels of each domain.
    """
    scores = {(c.arm, c.num_labelled, c.seed): read_scores(c.folder, "dice") for c in cells}
    patients = next(iter(scores.values()))[1]
    if any(cell_patients != patients for _, cell_patients in scores.values()):
        raise BadInput(f"{cells[0].folder.parent}: its cells tested other cases; choose another out")
    cases = list(patients)
    structures = list(dict.fromkeys(label for cell_scores, _ in scores.values() for _, label in cell_scores))
    rows = [row for kind in cells[0].lesions for row in _lesion_rows(kind, cells, reference)]
    for structure in [ALL, *structures] if len(structures) > 1 else structures:
        labels = structures if structure == ALL else [structure]
        means = {key: case_means(cell_scores, cases, labels) for key, (cell_scores, _) in scores.items()}
        rows += _structure_rows(structure, means, [patients[case] for case in cases], reference)
        for domain in sorted(set(domains.values())) if labels == structures else ():
            places = [n for n, case in enumerate(cases) if domains[case] == domain]
            parts = {key: scores_of_cases[places] for key, scores_of_cases in means.items()}
            rows += _structure_rows(f"{structure}, {domain}", parts, [patients[cases[n]] for n in places], reference)
    return _add_compute(rows, cells)


def _add_compute(rows: Sequence[TableRow], cells: Sequence[SweepCell]) -> list[TableRow]:
    """Adds what the trainings of each row took."""
    by_row: dict[tuple[str, int], list[SweepCell]] = {}
    for cell in cells:
        by_row.setdefault((cell.arm, cell.num_labelled), []).append(cell)
    facts: dict[tuple[str, int], dict[str, Any]] = {}
    for key, group in by_row.items():
        starts = [cell.settings.pretrained for cell in group if cell.settings.pretrained]
        facts[key] = {
            "finetuning": average_compute([Compute.of_run(cell.settings.run) for cell in group]),
            "pretraining": average_compute([Compute.of_run(start) for start in starts]),
            "num_pretrainings": len(set(starts)),
        }
    return [replace(row, **facts[row.arm, row.num_labelled]) for row in rows]


def _lesion_rows(kind: str, cells: Sequence[SweepCell], reference: str) -> list[TableRow]:
    scores = {(c.arm, c.num_labelled, c.seed): read_lesion_scores(c.folder, kind) for c in cells}
    first = next(iter(scores.values()))
    rows = []
    for metric in METRICS:
        if np.isnan(first.compute(metric, np.arange(len(first.cases)))):
            continue  # no AUROC where all cases have lesions
        make_row = partial(
            TableRow, structure=kind, metric=metric, cases=len(first.cases), patients=len(set(first.patients))
        )
        rows += _compare_with_reference(
            make_row, scores, reference, partial(score_interval, metric), partial(compare_arms, metric)
        )
    return rows


def _structure_rows(
    structure: str, means: dict[tuple[str, int, int], Float[np.ndarray, "cases"]], patients: list[str], reference: str
) -> list[TableRow]:
    is_scored = np.isfinite(np.stack(list(means.values()))).all(0)
    patients = [patient for patient, scored in zip(patients, is_scored, strict=True) if scored]

    def compute_score(arm: list[Float[np.ndarray, "cases"]]) -> Interval:
        return mean_interval(np.stack(arm), patients)

    def compute_difference(*arms: list[Float[np.ndarray, "cases"]]) -> tuple[Interval, float]:
        a, b = map(np.stack, arms)
        return compare_paired(a, b, patients)

    make_row = partial(TableRow, structure=structure, metric="Dice", cases=len(patients), patients=len(set(patients)))
    scored = {key: row[is_scored] for key, row in means.items()}
    return _compare_with_reference(make_row, scored, reference, compute_score, compute_difference)


def _compare_with_reference(
    make_row: Callable[..., TableRow],
    scores: dict[tuple[str, int, int], T],
    reference: str,
    compute_score: Callable[[list[T]], Interval],
    compute_difference: Callable[[list[T], list[T]], tuple[Interval, float]],
) -> list[TableRow]:
    """Returns a row per arm and number of labels, compared with the reference in the seeds that both have.

    Scores lie between 0 and 1.
    """
    rows = []
    for arm, count in dict.fromkeys((arm, count) for arm, count, _ in scores):
        by_seed = {seed: value for (a, k, seed), value in scores.items() if (a, k) == (arm, count)}
        baseline = {seed: value for (a, k, seed), value in scores.items() if (a, k) == (reference, count)}
        row = make_row(
            arm=arm, num_labelled=count, seeds=len(by_seed), score=compute_score(list(by_seed.values())).clip(0, 1),
            by_seed=tuple(compute_score([value]).estimate for value in by_seed.values()),
        )  # fmt: skip
        common = [seed for seed in by_seed if seed in baseline]
        if arm != reference and common:
            difference, p = compute_difference([by_seed[seed] for seed in common], [baseline[seed] for seed in common])
            estimates = [
                [compute_score([arm_scores[seed]]).estimate for arm_scores in (by_seed, baseline)] for seed in common
            ]
            below = sum(score < reference_score for score, reference_score in estimates)
            row = replace(row, difference=difference, p=p, paired_seeds=len(common), seeds_below=below)
        rows.append(row)
    adjusted = adjust_holm([float("nan") if row.p is None else row.p for row in rows])
    return [row if row.p is None else replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]
