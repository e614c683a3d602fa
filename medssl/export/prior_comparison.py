"""Since: how the findings of a case have changed since the patient's prior study, both as their reviews left them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from medssl.errors import BadInput
from medssl.export.reviewed_findings import Item, counting, read
from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.event import Event
from medssl.review.priors import Growth, days_between, earlier, growth, match
from medssl.review.reading import Reading


@dataclass(frozen=True)
class Since:
    """A prior and the reading of it that counts, the growth of each finding that it has too, and what is gone."""

    prior: str
    days: int | None
    reading: Reading
    growth: dict[str, Growth]
    gone: tuple[Finding, ...]


def since(index: Index, case: str, items: Iterable[Item], events: Sequence[Event]) -> Since | None:
    """What became of the findings of the prior; None without one. Where nobody read it, the model's word counts."""
    prior = earlier(index, case)
    if prior is None:
        return None
    reading = Reading(prior, "")
    with suppress(BadInput):  # verdicts on another model's prediction say nothing of this one
        reading = counting(index, prior, events, unsigned=True)
    items = list(items)
    now, then = _left(items), _left(read(index, prior, reading).items)
    same = match([item.finding for item in items if item.number or _rejected(item)], [i.finding for i in then.values()])
    days = days_between(index, prior, case)
    grown = {
        name: growth(now[name].finding, other, days, now[name].axes, then[other.id].axes)
        for name, other in same.items() if name in now
    }  # fmt: skip
    matched = {other.id for other in same.values()}
    return Since(prior, days, reading, grown, tuple(then[name].finding for name in then if name not in matched))


def _rejected(item: Item) -> bool:
    """What a reader called nothing is not gone since the prior: it is there, and nothing."""
    return item.verdict is not None and item.verdict.decision == "reject"


def _left(items: Iterable[Item]) -> dict[str, Item]:
    """The findings that have voxels."""
    return {item.finding.id: item for item in items if item.number}
