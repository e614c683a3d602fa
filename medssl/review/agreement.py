"""Measures the agreement of independent readers: kappa over verdicts, Dice over masks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Integer, UInt8

from medssl.finding import Decision
from medssl.review.event import DECISIONS
from medssl.review.reading import Reading


@dataclass(frozen=True)
class PairAgreement:
    """The agreement of two readers.

    Args:
        readers: The two readers.
        decisions: A row (case, finding, decision of the first, decision of the second) for each finding that both
            readers judged.
    """

    readers: tuple[str, str]
    decisions: tuple[tuple[str, str, Decision, Decision], ...]

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa; None if it is not defined."""
        return cohen_kappa([row[2] for row in self.decisions], [row[3] for row in self.decisions])

    @property
    def num_agreed(self) -> int:
        """The number of findings on which both readers decided the same."""
        return sum(first == second for _, _, first, second in self.decisions)


@dataclass(frozen=True)
class ReaderAgreement:
    """The agreement of three or more readers.

    Args:
        readers: All readers who judged at least one of the findings.
        readers_per_finding: The number of readers who judged each finding.
        num_findings: The number of findings.
        kappa: Fleiss' kappa; None if it is not defined.
    """

    readers: tuple[str, ...]
    readers_per_finding: int
    num_findings: int
    kappa: float | None


def measure_agreement(readings: Iterable[Reading]) -> ReaderAgreement | None:
    """Returns the agreement of the readers who signed; None if no finding was judged by three or more.

    Fleiss' kappa needs the same number of readers for each finding. Only the findings with the most common number of
    readers, from three, are used.
    """
    votes: dict[tuple[str, str], dict[str, Decision]] = {}
    for reading in readings:
        for finding, verdict in reading.verdicts.items() if reading.signed_at else ():
            votes.setdefault((reading.case, finding), {})[reading.reviewer] = verdict.decision
    counts = Counter(len(by_reader) for by_reader in votes.values() if len(by_reader) > 2)
    if not counts:
        return None
    num_readers = max(counts, key=lambda n: (counts[n], n))
    used = [by_reader for by_reader in votes.values() if len(by_reader) == num_readers]
    table = np.array([[list(by_reader.values()).count(name) for name in DECISIONS] for by_reader in used])
    readers = tuple(sorted({reader for by_reader in used for reader in by_reader}))
    return ReaderAgreement(readers, num_readers, len(used), fleiss_kappa(table))


def count_disagreement(masks: Sequence[Integer[np.ndarray, "i j k"]]) -> UInt8[np.ndarray, "i j k"]:
    """Returns for each voxel the number of readers with another label than the most common one."""
    labels = np.unique(np.concatenate([np.unique(mask) for mask in masks]))
    largest_vote = np.zeros(masks[0].shape, np.uint8)
    for label in labels:
        largest_vote = np.maximum(largest_vote, np.sum([mask == label for mask in masks], axis=0, dtype=np.uint8))
    return len(masks) - largest_vote


def compare_pairs(readings: Iterable[Reading]) -> list[PairAgreement]:
    """Returns the agreement of every two readers who signed a case in common; unsigned readings are ignored."""
    by_reader: dict[str, dict[str, Reading]] = {}
    for reading in readings:
        if reading.signed_at:
            by_reader.setdefault(reading.reviewer, {})[reading.case] = reading
    agreements = []
    for first, second in combinations(sorted(by_reader), 2):
        cases = sorted(set(by_reader[first]) & set(by_reader[second]))
        rows = [row for case in cases for row in _pair_decisions(by_reader[first][case], by_reader[second][case])]
        if cases:
            agreements.append(PairAgreement((first, second), tuple(rows)))
    return agreements


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Returns the agreement of two readers beyond chance; None if both always gave the same single decision.

    Cohen, "A Coefficient of Agreement for Nominal Scales", 1960 (https://doi.org/10.1177/001316446002000104).
    """
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True))
    first_counts, second_counts = Counter(first), Counter(second)
    expected = sum(first_counts[name] * second_counts[name] for name in first_counts)
    return None if expected == n * n else (n * observed - expected) / (n * n - expected)


def fleiss_kappa(votes: Integer[np.ndarray, "n k"]) -> float | None:
    """Returns the agreement of any number of readers beyond chance; None if it is not defined.

    Fleiss, "Measuring Nominal Scale Agreement Among Many Raters", 1971 (https://doi.org/10.1037/h0031619).

    Args:
        votes: The number of readers who chose each of k decisions, for each of n findings.
    """
    readers = int(votes[0].sum()) if len(votes) else 0
    if readers < 2 or (votes.sum(1) != readers).any():
        return None
    observed = float(((votes**2).sum(1) - readers).mean() / (readers * (readers - 1)))
    expected = float(((votes.sum(0) / votes.sum()) ** 2).sum())
    return None if expected == 1 else (observed - expected) / (1 - expected)


def compute_dice(first: Integer[np.ndarray, "i j k"], second: Integer[np.ndarray, "i j k"], label: int) -> float:
    """Returns the Dice coefficient of one label in the masks of two readers; 1 if neither mask contains it."""
    a, b = first == label, second == label
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _pair_decisions(first: Reading, second: Reading) -> list[tuple[str, str, Decision, Decision]]:
    shared = [finding for finding in first.verdicts if finding in second.verdicts]
    return [(first.case, f, first.verdicts[f].decision, second.verdicts[f].decision) for f in shared]
