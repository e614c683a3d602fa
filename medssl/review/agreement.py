"""Agreement between readers who did not see each other's verdicts: kappa over findings, Dice over masks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Integer, UInt8

from medssl.finding import Decision
from medssl.review.event import VERDICTS
from medssl.review.reading import Reading


@dataclass(frozen=True)
class Pair:
    """Two readers and what each said of every finding that both judged: (case, finding, first, second)."""

    readers: tuple[str, str]
    said: tuple[tuple[str, str, Decision, Decision], ...]

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the two."""
        return cohen([row[2] for row in self.said], [row[3] for row in self.said])

    @property
    def agreed(self) -> int:
        """Findings of which both said the same."""
        return sum(first == second for _, _, first, second in self.said)


@dataclass(frozen=True)
class Panel:
    """Three readers or more: how often a finding was judged by `each` of them, and Fleiss' kappa over those."""

    readers: tuple[str, ...]
    each: int
    judged: int
    kappa: float | None


def panel(readings: Iterable[Reading]) -> Panel | None:
    """The agreement of all who signed, over the findings that had one number of readers, the commonest above two."""
    votes: dict[tuple[str, str], dict[str, Decision]] = {}
    for reading in readings:
        for finding, verdict in reading.verdicts.items() if reading.signed_at else ():
            votes.setdefault((reading.case, finding), {})[reading.reviewer] = verdict.decision
    counts = Counter(len(said) for said in votes.values() if len(said) > 2)
    if not counts:
        return None
    each = max(counts, key=lambda n: (counts[n], n))
    said = [of for of in votes.values() if len(of) == each]
    table = np.array([[list(of.values()).count(name) for name in VERDICTS] for of in said])
    return Panel(tuple(sorted({name for of in said for name in of})), each, len(said), fleiss(table))


def disagreement(masks: Sequence[Integer[np.ndarray, "i j k"]]) -> UInt8[np.ndarray, "i j k"]:
    """How many readers drew something else than most did, voxel by voxel; of two, 1 where they differ."""
    labels = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    most = np.zeros(masks[0].shape, np.uint8)
    for label in labels:
        most = np.maximum(most, np.sum([mask == label for mask in masks], axis=0, dtype=np.uint8))
    return len(masks) - most


def pairs(readings: Iterable[Reading]) -> list[Pair]:
    """Every two readers who signed the same cases; what is not signed stays hidden."""
    by_reader: dict[str, dict[str, Reading]] = {}
    for reading in readings:
        if reading.signed_at:
            by_reader.setdefault(reading.reviewer, {})[reading.case] = reading
    found = []
    for first, second in combinations(sorted(by_reader), 2):
        shared = sorted(set(by_reader[first]) & set(by_reader[second]))
        said = [row for case in shared for row in _both(by_reader[first][case], by_reader[second][case])]
        if shared:
            found.append(Pair((first, second), tuple(said)))
    return found


def cohen(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement beyond chance of two readers; None where it is not defined: nothing judged, or no choice was left.

    Cohen, "A Coefficient of Agreement for Nominal Scales", 1960 (https://doi.org/10.1177/001316446002000104).
    """
    n = len(first)
    seen = sum(a == b for a, b in zip(first, second, strict=True))
    ones, others = Counter(first), Counter(second)
    chance = sum(ones[name] * others[name] for name in ones)
    return None if chance == n * n else (n * seen - chance) / (n * n - chance)


def fleiss(votes: Integer[np.ndarray, "n k"]) -> float | None:
    """Agreement beyond chance of any number of readers, from how many voted for each of k decisions on n findings.

    Fleiss, "Measuring Nominal Scale Agreement Among Many Raters", 1971 (https://doi.org/10.1037/h0031619).
    """
    readers = int(votes[0].sum()) if len(votes) else 0
    if readers < 2 or (votes.sum(1) != readers).any():
        return None
    seen = float(((votes**2).sum(1) - readers).mean() / (readers * (readers - 1)))
    chance = float(((votes.sum(0) / votes.sum()) ** 2).sum())
    return None if chance == 1 else (seen - chance) / (1 - chance)


def dice(one: Integer[np.ndarray, "i j k"], other: Integer[np.ndarray, "i j k"], label: int) -> float:
    """The overlap of one label in two readers' masks; 1 where both left it out."""
    a, b = one == label, other == label
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _both(first: Reading, second: Reading) -> list[tuple[str, str, Decision, Decision]]:
    shared = [finding for finding in first.verdicts if finding in second.verdicts]
    return [(first.case, f, first.verdicts[f].decision, second.verdicts[f].decision) for f in shared]
