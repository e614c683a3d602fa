"""The table of a sweep: each arm's score at each number of labels, and its paired difference from the reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.evaluation.compare import ALL, means, read
from medssl.fewshot import lesion_scores as found
from medssl.fewshot.cell import Cell
from medssl.metrics.statistics import Interval, difference, mean_interval, permutation_p, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One arm with one number of labels on one structure: its score by a metric, and its gap to the reference arm.

    Intervals are 95 % over patients crossed with seeds; `gap` and `p` compare the seeds that both arms have, case by
    case, and are missing for the reference itself.
    """

    arm: str
    labels: int
    structure: str
    metric: str
    seeds: int
    cases: int
    patients: int
    score: Interval
    gap: Interval | None = None
    p: float | None = None

    def verdict(self, reference: str) -> str:
        """In words: better or worse, where that is shown."""
        if self.gap is None or self.p is None:
            return ""
        if not shown(self.gap, self.p):
            return "no difference shown"
        return f"{'better' if self.gap.estimate > 0 else 'worse'} than {reference}"


def lines(cells: Sequence[Cell], reference: str) -> list[Line]:
    """How lesions are found, where that was asked, then Dice over all labels, then structure by structure.

    Arms in the order of the sweep.
    """
    scores = {(c.arm, c.labels, c.seed): read(c.folder, "dice") for c in cells}
    patients = next(iter(scores.values()))[1]
    if any(of != patients for _, of in scores.values()):
        raise BadInput(f"{cells[0].folder.parent}: its cells tested other cases; choose another out")
    cases = list(patients)
    structures = list(dict.fromkeys(label for drawn, _ in scores.values() for _, label in drawn))
    told = [line for kind in cells[0].lesions for line in _of_lesions(kind, cells, reference)]
    for structure in [ALL, *structures] if len(structures) > 1 else structures:
        wanted = structures if structure == ALL else [structure]
        rows = {key: means(drawn, cases, wanted) for key, (drawn, _) in scores.items()}
        told += _of_structure(structure, rows, [patients[case] for case in cases], reference)
    return told


def _of_lesions(kind: str, cells: Sequence[Cell], reference: str) -> list[Line]:
    done = {(c.arm, c.labels, c.seed): found.read(c.folder, kind) for c in cells}
    told = []
    for metric in found.METRICS:
        one = next(iter(done.values()))
        blank = partial(Line, structure=kind, metric=metric, cases=len(one.cases), patients=len(set(one.patients)))
        told += _compared(blank, done, reference, partial(found.score, metric), partial(found.gap, metric))
    return told


def _of_structure(
    structure: str, rows: dict[tuple[str, int, int], Float[np.ndarray, "cases"]], owners: list[str], reference: str
) -> list[Line]:
    drawn = np.isfinite(np.stack(list(rows.values()))).all(0)
    owners = [owner for owner, there in zip(owners, drawn, strict=True) if there]

    def score(mine: list[Float[np.ndarray, "cases"]]) -> Interval:
        return mean_interval(np.stack(mine), owners)

    def gap(*both: list[Float[np.ndarray, "cases"]]) -> tuple[Interval, float]:
        mine, theirs = map(np.stack, both)
        return difference(mine, theirs, owners), permutation_p(mine, theirs, owners)

    blank = partial(Line, structure=structure, metric="Dice", cases=len(owners), patients=len(set(owners)))
    return _compared(blank, {key: row[drawn] for key, row in rows.items()}, reference, score, gap)


def _compared(
    blank: Callable[..., Line],
    done: dict[tuple[str, int, int], T],
    reference: str,
    score: Callable[[list[T]], Interval],
    gap: Callable[[list[T], list[T]], tuple[Interval, float]],
) -> list[Line]:
    """A line for each arm and number of labels, held against the reference in the seeds that both have."""
    told = []
    for arm, labels in dict.fromkeys((arm, labels) for arm, labels, _ in done):
        mine = {seed: of for (a, k, seed), of in done.items() if (a, k) == (arm, labels)}
        theirs = {seed: of for (a, k, seed), of in done.items() if (a, k) == (reference, labels)}
        line = blank(arm=arm, labels=labels, seeds=len(mine), score=score(list(mine.values())))
        both = [seed for seed in mine if seed in theirs]
        if arm != reference and both:
            apart, p = gap([mine[seed] for seed in both], [theirs[seed] for seed in both])
            line = replace(line, gap=apart, p=p)
        told.append(line)
    return told
