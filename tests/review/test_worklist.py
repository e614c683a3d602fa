"""The worklist puts the most urgent case first and keeps every case."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from medssl.finding import Finding, Verdict
from medssl.review.reading import Reading
from medssl.review.worklist import WorklistItem, find_next, triage

FINDING = Finding("f", "c", 1, "nodule", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, 5.0, 0.9)


def make_item(number: int, uncertainty: float | None = 0.5, ml: float = 1.0, state: str = "new") -> WorklistItem:
    finding = replace(FINDING, id=f"f{number}", uncertainty=uncertainty, volume_ml=ml)
    verdicts = {finding.id: Verdict(finding.id, "ana", "accept", "", "2026")} if state != "new" else {}
    signed = "2026-01-01" if state == "signed" else None
    return WorklistItem(
        number, f"case-{number}", (finding,), Reading(f"case-{number}", "ana", verdicts, signed_at=signed)
    )


ROWS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["new", "open", "signed"])), max_size=8)


@given(ROWS)
def test_triage_keeps_every_case(states):
    rows = [make_item(n, *d[:1], state=d[1]) for n, d in enumerate(states)]
    assert sorted(r.number for r in triage(rows)) == list(range(len(rows)))
    assert [r.state for r in triage(rows)] == sorted((r.state for r in rows), key=["open", "new", "signed"].index)


def test_the_most_uncertain_case_comes_first():
    assert [r.number for r in triage([make_item(1, 0.2), make_item(2, 0.9), make_item(3, None)])] == [2, 1, 3]


def test_the_largest_finding_comes_first_on_request():
    assert [r.number for r in triage([make_item(1, ml=1.0), make_item(2, ml=9.0)], "largest first")] == [2, 1]


def test_the_oldest_study_comes_first_on_request_and_the_undated_last():
    rows = [make_item(1), replace(make_item(2), date="20240901"), replace(make_item(3), date="20240302")]
    assert [r.number for r in triage(rows, "oldest first")] == [3, 2, 1]


def test_cases_that_other_readers_have_open_come_last():
    rows = [make_item(1), make_item(2)]
    assert find_next(rows, 0, {"case-1"}).number == 2
    assert find_next(rows, 0, {"case-1", "case-2"}).number == 1


def test_the_next_case_is_neither_the_current_one_nor_signed():
    rows = [make_item(1, state="open"), make_item(2), make_item(3, state="signed")]
    assert find_next(rows, 1).number == 2
    assert find_next(rows[:1], 1) is None
    assert find_next(rows[2:], 1) is None


def test_progress_counts_findings_with_a_verdict():
    assert (make_item(1).num_read, make_item(1, state="open").num_read) == (0, 1)
