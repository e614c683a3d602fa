"""Compares the findings of a case with those of the patient's prior study, both after their review."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from medssl.errors import BadInput
from medssl.export.reviewed_findings import ReviewedFinding, load_reviewed_case
from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.consensus.reading_of_record import select_reading_of_record
from medssl.review.event import Event
from medssl.review.priors import Growth, count_days, find_prior, match_findings, measure_growth
from medssl.review.reading import Reading


@dataclass(frozen=True)
class PriorComparison:
    """The comparison of a case with its prior study.

    Args:
        prior: The identifier of the prior case.
        days: The days between the studies; None if they are unknown.
        reading: The reading of the prior that was used; without a reviewer if it was not read.
        growth: The change of each finding that is also in the prior, by the identifier of the finding.
        resolved: The findings of the prior that are no longer present.
    """

    prior: str
    days: int | None
    reading: Reading
    growth: dict[str, Growth]
    resolved: tuple[Finding, ...]


def compare_with_prior(
    index: Index, case: str, items: Iterable[ReviewedFinding], events: Sequence[Event]
) -> PriorComparison | None:
    """Returns the comparison with the prior study, or None if there is no prior.

    If no reader has read the prior, its findings are the predicted ones. A finding that the reader rejected in the
    current study does not count as resolved: the image still shows it.
    """
    prior = find_prior(index, case)
    if prior is None:
        return None
    reading = Reading(prior, "")
    with suppress(BadInput):  # verdicts on the prediction of another model do not apply
        reading = select_reading_of_record(index, prior, events, include_unsigned=True)
    items = list(items)
    current = _select_segmented(items)
    earlier = _select_segmented(load_reviewed_case(index, prior, reading).items)
    visible = [item.finding for item in items if item.number or _is_rejected(item)]
    matches = match_findings(visible, [item.finding for item in earlier.values()])
    days = count_days(index, prior, case)
    growth = {
        name: measure_growth(current[name].finding, match, days, current[name].axes, earlier[match.id].axes)
        for name, match in matches.items()
        if name in current
    }
    matched = {match.id for match in matches.values()}
    resolved = tuple(item.finding for name, item in earlier.items() if name not in matched)
    return PriorComparison(prior, days, reading, growth, resolved)


def _is_rejected(item: ReviewedFinding) -> bool:
    return item.verdict is not None and item.verdict.decision == "reject"


def _select_segmented(items: Iterable[ReviewedFinding]) -> dict[str, ReviewedFinding]:
    """Returns the findings that have voxels, by identifier."""
    return {item.finding.id: item for item in items if item.number}
