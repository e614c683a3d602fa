"""Looks up what pretraining and longer training gained in the project's own tables, for a store like this one."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TABLE = Path(__file__).with_name("evidence.csv")  # from docs/benchmarks.md, by `make reference`
LONGER, PROPAGATED = "long scratch", "propagated"
OBJECTIVES = ("spark", "inpaint", "global_local", "hybrid")


@dataclass(frozen=True)
class EvidenceRow:
    """One arm of a table: the difference of its mean Dice from training from scratch, with its 95 % interval."""

    data: str
    modality: str
    labels: int
    arm: str
    difference: float
    low: float
    high: float
    seeds: int

    def describe(self) -> str:
        """Returns the row as text."""
        interval = f"[{self.low:+.3f}, {self.high:+.3f}]"
        return (
            f"{self.arm} {self.difference:+.3f} {interval} Dice ({self.data}, {self.labels} labels, {self.seeds} seeds)"
        )


@dataclass(frozen=True)
class Advice:
    """What to start from.

    Attributes:
        objective: The objective to pretrain with; "" if none is better than more steps from scratch.
        reasons: The rows that decide.
        propagate: Whether labels propagated over an atlas were above scratch; they need scans of one region.
    """

    objective: str
    reasons: tuple[EvidenceRow, ...]
    propagate: EvidenceRow | None


@lru_cache(maxsize=1)
def read_table() -> tuple[EvidenceRow, ...]:
    """Reads the table of the package."""
    with TABLE.open(newline="", encoding="utf-8") as handle:
        return tuple(
            EvidenceRow(
                row["data"], row["modality"], int(row["labels"]), row["arm"],
                float(row["difference"]), float(row["low"]), float(row["high"]), int(row["seeds"]),
            )
            for row in csv.DictReader(handle)
        )  # fmt: skip


def advise(rows: Sequence[EvidenceRow], modality: str, num_labelled: int) -> Advice:
    """Returns whether to pretrain, by the rows of the same modality with the nearest number of labels.

    An objective is advised if its interval lies above 0 and its difference is at least that of longer training from
    scratch.

    Args:
        rows: The table; rows of all modalities are used if none has this one.
        modality: Modality of the store, such as CT.
        num_labelled: Number of labelled volumes to finetune on.
    """
    similar = [row for row in rows if row.modality == modality] or list(rows)
    nearest = {arm: _find_nearest(similar, arm, num_labelled) for arm in (LONGER, PROPAGATED, *OBJECTIVES)}
    longer = nearest[LONGER]
    candidates = [row for arm in OBJECTIVES if (row := nearest[arm])]
    best = max(candidates, key=lambda row: row.difference, default=None)
    is_better = best is not None and best.low > 0 and best.difference >= (longer.difference if longer else 0)
    propagated = nearest[PROPAGATED]
    return Advice(
        objective=best.arm if best and is_better else "",
        reasons=tuple(row for row in (best, longer) if row),
        propagate=propagated if propagated and propagated.low > 0 else None,
    )


def _find_nearest(rows: Sequence[EvidenceRow], arm: str, num_labelled: int) -> EvidenceRow | None:
    """Returns the row of an arm with the nearest number of labels, on a log scale, then with the most seeds."""
    candidates = [row for row in rows if row.arm == arm]
    wanted = math.log(max(1, num_labelled))
    return min(candidates, key=lambda row: (round(abs(math.log(row.labels) - wanted), 6), -row.seeds), default=None)
