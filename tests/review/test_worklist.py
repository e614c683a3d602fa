"""The worklist puts first what helps most, and loses no case."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from medssl.finding import Finding, Verdict
from medssl.review.reading import Reading
from medssl.review.worklist import Row, following, triage

FINDING = Finding("f", "c", 1, "nodule", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, 5.0, 0.9)


def row(number: int, uncertainty: float | None = 0.5, ml: float = 1.0, state: str = "new") -> Row:
    finding = replace(FINDING, id=f"f{number}", uncertainty=uncertainty, volume_ml=ml)
    verdicts = {finding.id: Verdict(finding.id, "ana", "accept", "", "2026")} if state != "new" else {}
    signed = "2026-01-01" if state == "signed" else None
    return Row(number, f"case-{number}", (finding,), Reading(f"case-{number}", "ana", verdicts, signed_at=signed))


ROWS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["new", "open", "signed"])), max_size=8)


@given(ROWS)
def test_triage_keeps_every_case(drawn):
    rows = [row(n, *d[:1], state=d[1]) for n, d in enumerate(drawn)]
    assert sorted(r.number for r in triage(rows)) == list(range(len(rows)))
    assert [r.state for r in triage(rows)] == sorted((r.state for r in rows), key=["open", "new", "signed"].index)


def test_the_most_uncertain_case_comes_first():
    assert [r.number for r in triage([row(1, 0.2), row(2, 0.9), row(3, None)])] == [2, 1, 3]


def test_the_largest_comes_first_where_asked():
    assert [r.number for r in triage([row(1, ml=1.0), row(2, ml=9.0)], "largest first")] == [2, 1]


def test_the_oldest_study_comes_first_where_asked_and_the_undated_last():
    rows = [row(1), replace(row(2), date="20240901"), replace(row(3), date="20240302")]
    assert [r.number for r in triage(rows, "oldest first")] == [3, 2, 1]


def test_what_another_reader_has_open_comes_last():
    rows = [row(1), row(2)]
    assert following(rows, 0, {"case-1"}).number == 2
    assert following(rows, 0, {"case-1", "case-2"}).number == 1


def test_what_follows_is_not_the_case_at_hand_and_not_signed():
    rows = [row(1, state="open"), row(2), row(3, state="signed")]
    assert following(rows, 1).number == 2
    assert following(rows[:1], 1) is None
    assert following(rows[2:], 1) is None


def test_progress_counts_verdicts_on_what_the_model_found():
    assert (row(1).read, row(1, state="open").read) == (0, 1)
