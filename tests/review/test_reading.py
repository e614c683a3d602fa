"""A reading follows from its events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.review.event import Act, Event
from medssl.review.reading import Reading, find_rejection_reason, find_undone, replay

FINDINGS = ("f1", "f2")


def chain(*acts: dict) -> list[Event]:
    events: list[Event] = []
    for n, fields in enumerate(acts):
        base = {"session": "s", "number": n, "case": "c", "reviewer": "ana", "role": "reader", "finding": "f1"}
        events.append(Event.create_after(events[-1] if events else None, Act(**(base | fields))))
    return events


def mine(events: list[Event], reviewer: str = "ana") -> Reading:
    return replay(events).get(("c", reviewer)) or Reading("c", reviewer)


def test_the_latest_verdict_counts():
    reading = mine(chain({"action": "accept"}, {"action": "reject", "note": "vessel"}))
    assert reading.verdicts["f1"].decision == "reject"
    assert reading.verdicts["f1"].note == "vessel"
    assert reading.list_pending([]) == []


def test_readers_do_not_see_each_other():
    events = chain({"action": "accept"}, {"action": "reject", "reviewer": "ben"})
    assert mine(events).verdicts["f1"].decision == "accept"
    assert mine(events, "ben").verdicts["f1"].decision == "reject"


def test_undo_restores_the_earlier_verdict_and_its_undo_the_later_one():
    events = chain({"action": "accept"}, {"action": "reject"}, {"action": "undo", "target": 2})
    assert mine(events).verdicts["f1"].decision == "accept"
    events = chain(
        {"action": "accept"}, {"action": "reject"}, {"action": "undo", "target": 2}, {"action": "undo", "target": 3}
    )
    assert mine(events).verdicts["f1"].decision == "reject"


def test_a_missed_finding_is_added_and_undo_removes_it():
    place = {"centre_mm": [1, 2, 3], "low_mm": [0, 0, 0], "high_mm": [2, 4, 6]}
    details = json.dumps(place | {"label": 1, "name": "nodule", "volume_ml": 0.1, "diameter_mm": 5.0, "score": 1.0})
    events = chain({"action": "missed", "finding": "r1", "details": details})
    assert mine(events).added[0].centre_mm == (1, 2, 3)
    assert mine([*events, *chain({}.copy() | {"action": "accept"}, {"action": "undo", "target": 1})[1:]]).added == ()


@pytest.mark.parametrize(
    ("before", "act", "reason"),
    [
        ([], {"action": "accept", "finding": ""}, "no finding was named"),
        ([], {"action": "reopen"}, "nothing to reopen"),
        ([], {"action": "undo", "target": 1}, "nothing to undo"),
        ([{"action": "accept", "reviewer": "ben"}], {"action": "undo", "target": 1}, "nothing to undo"),
        ([{"action": "accept"}], {"action": "sign", "details": json.dumps(FINDINGS)}, "without a verdict: f2"),
        ([{"action": "accept"}, {"action": "sign"}], {"action": "reject"}, "reopen the reading"),
        ([{"action": "accept"}, {"action": "sign"}], {"action": "sign"}, "reopen the reading"),
        (
            [{"action": "accept"}, {"action": "sign"}, {"action": "reopen"}],
            {"action": "undo", "target": 1},
            "nothing to undo",
        ),
        ([{"action": "accept"}], {"action": "sign", "details": json.dumps(["f1"])}, ""),
        ([{"action": "sign", "reviewer": "ben"}], {"action": "accept"}, ""),
    ],
)
def test_an_act_that_does_not_fit_is_rejected_with_a_reason(before, act, reason):
    rejection = find_rejection_reason(chain(*before, act)[-1], mine(chain(*before)))
    assert reason in rejection and bool(reason) == bool(rejection)


@given(st.lists(st.tuples(st.sampled_from(["accept", "reject", "undo"]), st.sampled_from(FINDINGS)), max_size=12))
def test_undoing_everything_leaves_nothing(steps):
    """A model: a stack of verdicts, from which undo pops."""
    acts: list[dict] = []
    stack: list[tuple[int, str, str]] = []
    for action, finding in steps:
        if action != "undo":
            acts.append({"action": action, "finding": finding})
            stack.append((len(acts), action, finding))
        elif stack:
            acts.append({"action": "undo", "target": stack.pop()[0]})
    expected = {finding: action for _, action, finding in stack}
    assert {f: v.decision for f, v in mine(chain(*acts)).verdicts.items()} == expected
    assert len(find_undone(chain(*acts))) == len(acts) - sum(1 for _ in stack) - sum(
        a["action"] == "undo" for a in acts
    )


def test_a_measure_stays_with_its_finding_until_it_is_taken_back():
    axes = json.dumps({"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 0, 0]]})
    events = chain({"action": "measure", "details": axes}, {"action": "open"}, {"action": "undo", "target": 1})
    measured = mine(events[:2])
    assert measured.axes["f1"].long_mm == 5 and measured.axes["f1"].short_mm == pytest.approx(18**0.5)
    assert not measured.verdicts and measured.undoable[0].id == 1
    assert mine(events).axes == {}


def test_a_signed_case_may_be_opened_but_not_measured():
    signed = mine(chain({"action": "sign", "finding": ""}))
    base = {"session": "t", "number": 1, "case": "c", "reviewer": "ana", "role": "reader", "finding": "f1"}
    assert find_rejection_reason(Act(**base, action="open"), signed) == ""
    assert "reopen" in find_rejection_reason(Act(**base, action="measure", details="{}"), signed)
