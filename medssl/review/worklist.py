"""Orders the cases of a reader's worklist."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from medssl.finding import Finding
from medssl.review.reading import Reading

CaseState = Literal["new", "open", "signed"]
Order = Literal["uncertain first", "largest first", "oldest first", "fewest findings first", "as predicted"]


@dataclass(frozen=True)
class WorklistItem:
    """One case in the worklist of one reader.

    Args:
        number: The position of the case in the index, from 1; it stands for the case in addresses.
        case: The identifier of the case.
        findings: The findings of the model and those that the reader added.
        reading: The reader's reading of the case.
        date: The date of the study as YYYYMMDD; empty if it is unknown.
    """

    number: int
    case: str
    findings: tuple[Finding, ...]
    reading: Reading
    date: str = ""

    @property
    def state(self) -> CaseState:
        """Whether the reader has signed the case, started it or not touched it."""
        if self.reading.signed_at:
            return "signed"
        is_started = self.reading.verdicts or self.reading.strokes or self.reading.axes
        return "open" if is_started else "new"

    @property
    def num_read(self) -> int:
        """The number of findings with a verdict."""
        return len(self.findings) - len(self.reading.list_pending(self.findings))

    @property
    def sort_date(self) -> int:
        """The date of the study as a number; an unknown date sorts last."""
        return int(self.date) if self.date.isdecimal() else 99999999

    @property
    def uncertainty(self) -> float:
        """The largest uncertainty of the findings; 1 - score for a finding without a predicted uncertainty."""
        return max((1 - f.score if f.uncertainty is None else f.uncertainty for f in self.findings), default=0.0)

    @property
    def largest_ml(self) -> float:
        """The volume of the largest lesion in ml, or of the largest organ if there is no lesion."""
        return max((f.volume_ml for f in self.lesions or self.findings), default=0.0)

    @property
    def lesions(self) -> tuple[Finding, ...]:
        """The findings that are lesions."""
        return tuple(finding for finding in self.findings if finding.kind == "lesion")


_SORT_KEYS: Mapping[Order, Callable[[WorklistItem], tuple[float, ...]]] = {
    "uncertain first": lambda item: (-item.uncertainty, -item.largest_ml, item.number),
    "largest first": lambda item: (-item.largest_ml, item.number),
    "oldest first": lambda item: (item.sort_date, item.number),
    "fewest findings first": lambda item: (len(item.findings), item.number),
    "as predicted": lambda item: (item.number,),
}


def triage(items: Iterable[WorklistItem], order: Order = "uncertain first") -> list[WorklistItem]:
    """Returns the started cases, then the new ones, then the signed ones, each group in the given order."""
    rank = {"open": 0, "new": 1, "signed": 2}
    return sorted(items, key=lambda item: (rank[item.state], *_SORT_KEYS[order](item)))


def find_next(items: Iterable[WorklistItem], current: int, busy: Container[str] = ()) -> WorklistItem | None:
    """Returns the next case to read; None if all are signed.

    Args:
        items: The worklist in the order of reading.
        current: The number of the case on the screen, which is skipped; 0 if there is none.
        busy: The cases that other readers have open; they are offered only if no other case is left.
    """
    waiting = [item for item in items if item.state != "signed" and item.number != current]
    return next((item for item in waiting if item.case not in busy), next(iter(waiting), None))
