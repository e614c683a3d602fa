"""The table of drift counts what was signed, by month and group."""

import csv
import io

import pytest

from medssl.predictions_folder import read_index
from medssl.review.event import Act, Event
from medssl.review.mask_runs import pack_runs
from medssl.review.monitoring.drift import CaseGroup, collect_outcomes, format_csv, summarize_outcomes
from tests.review.consensus.test_adjudication import POINT

A1, A2, B1 = "case-a-1-1", "case-a-1-2", "case-b-1-1"
GROUPS = {"case-a": CaseGroup("north", "F", 45.0), "case-b": CaseGroup("south", "M", 60.0)}


@pytest.fixture
def index(predictions):
    return read_index(predictions)


def chain(*acts: tuple[str, str, str, str], **fields) -> list[Event]:
    """Events of (month, case, action, finding)."""
    events: list[Event] = []
    for n, (month, case, action, finding) in enumerate(acts):
        act = Act(session="s", number=n, case=case, reviewer="ana", role="reader", action=action, finding=finding,
                  details=POINT if action == "missed" else "[]", **fields.get(action, {}))  # fmt: skip
        event = Event.create_after(events[-1] if events else None, act)
        event.at = f"{month}-05T10:00:00.000+00:00"
        events.append(event)
    return events


def two_months() -> list[Event]:
    return chain(
        ("2026-01", "case-a", "accept", A1), ("2026-01", "case-a", "reject", A2), ("2026-01", "case-a", "sign", ""),
        ("2026-02", "case-b", "relabel", B1), ("2026-02", "case-b", "missed", "reader-1"),
        ("2026-02", "case-b", "sign", ""), relabel={"label": 2},
    )  # fmt: skip


def test_each_month_has_its_shares_and_missed_ones_count_among_what_is_there(index):
    outcomes, excluded = collect_outcomes(index, two_months(), {})
    february, january = summarize_outcomes(outcomes, "all")
    assert (february.month, january.month, excluded) == ("2026-02", "2026-01", {})
    assert (january.num_predicted, january.compute_share("accepted"), january.compute_share("rejected")) == (
        2,
        0.5,
        0.5,
    )
    assert (february.num_predicted, february.compute_share("relabelled"), february.compute_share("missed")) == (
        1,
        1,
        0.5,
    )
    assert january.model == "a 00000000" and january.compute_share("missed") == 0


def test_groups_are_counted_apart_and_unknown_ones_are_named(index):
    outcomes, _ = collect_outcomes(index, two_months(), GROUPS)
    values = {name: [row.value for row in summarize_outcomes(outcomes, name)] for name in ("site", "sex", "age")}
    assert values == {"site": ["south", "north"], "sex": ["M", "F"], "age": ["60-79", "40-59"]}
    outcomes, _ = collect_outcomes(index, two_months(), {})
    assert {row.value for row in summarize_outcomes(outcomes, "age")} == {"unknown"}
    assert {row.value for row in summarize_outcomes(outcomes, "label")} == {"nodule"}


def test_an_edited_finding_has_the_dice_of_its_predicted_and_signed_outline(index):
    from medssl.review.consensus.differences import load_predicted_map

    predicted = load_predicted_map(index, "case-a")
    voxels = (predicted.numbers.voxels == predicted.top + 1).ravel("F")
    start, size = int(voxels.nonzero()[0][0]), int(voxels.sum())
    events = chain(
        ("2026-01", "case-a", "stroke", A1), ("2026-01", "case-a", "accept", A1), ("2026-01", "case-a", "accept", A2),
        ("2026-01", "case-a", "sign", ""), stroke={"mask": pack_runs([(start, 1, 0)])},
    )  # fmt: skip
    (row,) = summarize_outcomes(collect_outcomes(index, events, {})[0], "all")
    assert (row.counts["edited"], row.counts["accepted"]) == (1, 1)
    assert row.mean_dice == pytest.approx(2 * (size - 1) / (2 * size - 1))


def test_what_is_not_signed_or_in_dispute_does_not_count(index):
    events = two_months()[:2]
    assert collect_outcomes(index, events, {}) == ([], {})
    for reviewer, action, finding in (("ben", "reject", A1), ("ben", "reject", A2), ("ben", "sign", "")):
        act = Act(session=reviewer, number=len(events), case="case-a", reviewer=reviewer, role="reader", action=action,
                  finding=finding, details="[]")  # fmt: skip
        events.append(Event.create_after(events[-1], act))
    act = Act(session="s", number=99, case="case-a", reviewer="ana", role="reader", action="sign", details="[]")
    outcomes, excluded = collect_outcomes(index, [*events, Event.create_after(events[-1], act)], {})
    assert outcomes == [] and "ana" in excluded["case-a"] and "differ" in excluded["case-a"]


def test_the_table_for_other_programs_has_counts_and_shares_and_no_case(index):
    outcomes, _ = collect_outcomes(index, two_months(), {"case-a": CaseGroup(site="=1+1")})
    text = format_csv(summarize_outcomes(outcomes, "site"))
    rows = {row["value"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(rows) == {"'=1+1", "unknown"} and "case-" not in text
    assert (rows["'=1+1"]["rejected"], rows["'=1+1"]["rejected_share"]) == ("1", "0.5")
    assert rows["unknown"]["missed_share"] == "0.5"
