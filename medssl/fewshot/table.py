"""The table of a sweep: each arm's score at each number of labels, and its paired difference from the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.fewshot.cell import Cell
from medssl.metrics.compare import ALL, means, read
from medssl.metrics.statistics import Interval, difference, mean_interval, permutation_p, shown


@dataclass(frozen=True)
class Line:
    """One arm with one number of labels on one structure: its score, and its gap to the reference arm.

    Intervals are 95 % over patients crossed with seeds; `gap` and `p` compare the seeds that both arms have, case by
    case, and are missing for the reference itself.
    """

    arm: str
    labels: int
    structure: str
    seeds: int
    cases: int
    dice: Interval
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
    """Lines over all labels first, then structure by structure; arms in the order of the sweep."""
    scores = {(c.arm, c.labels, c.seed): read(c.folder, "dice") for c in cells}
    patients = next(iter(scores.values()))[1]
    if any(of != patients for _, of in scores.values()):
        raise BadInput(f"{cells[0].folder.parent}: its cells tested other cases; choose another out")
    cases = list(patients)
    structures = list(dict.fromkeys(label for found, _ in scores.values() for _, label in found))
    found = []
    for structure in [ALL, *structures] if len(structures) > 1 else structures:
        wanted = structures if structure == ALL else [structure]
        rows = {key: means(drawn, cases, wanted) for key, (drawn, _) in scores.items()}
        found += _of_structure(structure, rows, [patients[case] for case in cases], reference)
    return found


def _of_structure(
    structure: str, rows: dict[tuple[str, int, int], Float[np.ndarray, "cases"]], owners: list[str], reference: str
) -> list[Line]:
    drawn = np.isfinite(np.stack(list(rows.values()))).all(0)
    owners = [owner for owner, there in zip(owners, drawn, strict=True) if there]
    found = []
    for arm, labels in dict.fromkeys((arm, labels) for arm, labels, _ in rows):
        mine = {seed: row[drawn] for (a, k, seed), row in rows.items() if (a, k) == (arm, labels)}
        theirs = {seed: row[drawn] for (a, k, seed), row in rows.items() if (a, k) == (reference, labels)}
        line = Line(
            arm, labels, structure, len(mine), len(owners), mean_interval(np.stack(list(mine.values())), owners)
        )
        both = [seed for seed in mine if seed in theirs]
        if arm != reference and both:
            a, b = (np.stack([of[seed] for seed in both]) for of in (mine, theirs))
            gap, p = difference(a, b, owners), permutation_p(a, b, owners)
            line = Line(arm, labels, structure, len(mine), len(owners), line.dice, gap, p)
        found.append(line)
    return found
