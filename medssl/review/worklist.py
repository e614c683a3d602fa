"""Worklist: the cases in the order in which a reader's time helps most."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from medssl.finding import Finding
from medssl.review.reading import Reading

State = Literal["new", "open", "signed"]
Order = Literal["uncertain first", "largest first", "oldest first", "fewest findings first", "as predicted"]


@dataclass(frozen=True)
class Row:
    """One case as one reader sees it in the list."""

    number: int
    case: str
    findings: tuple[Finding, ...]
    reading: Reading
    date: str = ""

    @property
    def state(self) -> State:
        """Whether this reader has signed, begun, or not touched the case."""
        if self.reading.signed_at:
            return "signed"
        begun = self.reading.verdicts or self.reading.strokes or self.reading.axes
        return "open" if begun else "new"

    @property
    def read(self) -> int:
        """How many of the findings have a verdict."""
        return len(self.findings) - len(self.reading.missing(self.findings))

    @property
    def day(self) -> int:
        """The study's date as a number; those without one come last."""
        return int(self.date) if self.date.isdecimal() else 99999999

    @property
    def uncertainty(self) -> float:
        """The uncertainty of the most doubtful finding; 1 - score where the model gave none."""
        return max((1 - f.score if f.uncertainty is None else f.uncertainty for f in self.findings), default=0.0)

    @property
    def largest_ml(self) -> float:
        """The volume of the largest finding."""
        return max((f.volume_ml for f in self.findings), default=0.0)


_KEYS: Mapping[Order, Callable[[Row], tuple[float, ...]]] = {
    "uncertain first": lambda row: (-row.uncertainty, -row.largest_ml, row.number),
    "largest first": lambda row: (-row.largest_ml, row.number),
    "oldest first": lambda row: (row.day, row.number),
    "fewest findings first": lambda row: (len(row.findings), row.number),
    "as predicted": lambda row: (row.number,),
}


def triage(rows: Iterable[Row], order: Order = "uncertain first") -> list[Row]:
    """What was begun first, then what is new in the order asked for, then what is signed."""
    rank = {"open": 0, "new": 1, "signed": 2}
    return sorted(rows, key=lambda row: (rank[row.state], *_KEYS[order](row)))


def following(rows: Iterable[Row], number: int, busy: Container[str] = ()) -> Row | None:
    """The first case of a sorted list that still waits, other than the one at hand; what others read comes last."""
    waiting = [row for row in rows if row.state != "signed" and row.number != number]
    return next((row for row in waiting if row.case not in busy), next(iter(waiting), None))
