"""Selects the reading of a case that is delivered and learned from."""

from collections.abc import Iterable

from medssl.errors import BadInput
from medssl.predictions_folder import Index
from medssl.review.consensus.adjudication import Dispute
from medssl.review.consensus.differences import Difference, find_differences
from medssl.review.event import Event
from medssl.review.reading import Reading, has_other_model_events, replay


def select_reading_of_record(index: Index, case: str, events: Iterable[Event], include_unsigned: bool) -> Reading:
    """Returns the reading of a case that counts: the signed one, or the consensus of several that differ.

    With `include_unsigned`, a case without a signed reading gives the latest reading, or an empty one, which stands for
    the prediction of the model.

    Raises:
        BadInput: If there is no such reading, signed readings differ and have no consensus, or the reading belongs to
            the prediction of another model.
    """
    events = [event for event in events if event.case == case]
    reading = select_signed_reading(index, case, events)
    if reading is None:
        readings = list(replay(events).values())
        if not include_unsigned:
            raise BadInput("not signed" if readings else "not read")
        started = (reading for reading in readings if not reading.is_empty)
        reading = max(started, key=lambda r: r.latest_event, default=Reading(case, ""))
    readers = {reading.reviewer, *reading.authors.values()}
    if has_other_model_events((event for event in events if event.reviewer in readers), index.weights_sha256):
        raise BadInput("its verdicts belong to the prediction of another model; review this prediction")
    return reading


def select_signed_reading(index: Index, case: str, events: Iterable[Event]) -> Reading | None:
    """Returns the only signed reading, the consensus, or the latest of signed readings that agree; None without any.

    Raises:
        BadInput: If signed readings differ and their consensus is not signed.
    """
    dispute = Dispute.from_events(case, events)
    if consensus := dispute.get_consensus():
        return consensus
    if differences := dispute.find_differences(index):
        raise BadInput(
            f"{describe_differences(dispute.readings, differences)}; a senior who has not read the case decides on the "
            "page Adjudication of `medssl review`"
        )
    return next(reversed(dispute.readings.values()), None)


def select_complete_reading(index: Index, case: str, readings: Iterable[Reading]) -> Reading | None:
    """Returns the latest of unsigned readings that agree; raises BadInput if they differ."""
    complete = sorted(readings, key=lambda reading: reading.latest_event)
    if differences := find_differences(index, case, complete):
        names = [reading.reviewer for reading in complete]
        raise BadInput(f"{describe_differences(names, differences)}; they sign their readings, then a senior decides")
    return complete[-1] if complete else None


def describe_differences(readers: Iterable[str], differences: list[Difference]) -> str:
    """Returns who differs on what, for example `ana and ben differ on case-a-1-2 (ana: accepted, ben: rejected)`."""
    others = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
    return f"{' and '.join(readers)} differ on {differences[0].summary}{others}"
