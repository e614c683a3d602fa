"""Lesions of two studies are matched by label and position, and their growth follows from their sizes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.predictions_folder import Index, StudyRef, read_index
from medssl.review.priors import apply_verdicts, count_days, find_prior, match_findings, measure_growth
from medssl.review.reading import Reading
from medssl.review.recist import RecistAxes

PLACES = [(0.0, 0.0, 0.0), (60.0, -20.0, 40.0), (-50.0, 70.0, 10.0)]


def finding(name, centre_mm, volume_ml=1.0, diameter_mm=12.0, label=1):
    return Finding(name, "c", label, "nodule", centre_mm, centre_mm, centre_mm, volume_ml, diameter_mm, 0.9)


def shift(by, places=PLACES, prefix="t"):
    return [finding(f"{prefix}{n}", tuple(x + d for x, d in zip(c, by, strict=True))) for n, c in enumerate(places)]


def index(**studies):
    refs = {name: StudyRef(*fields) for name, fields in studies.items()}
    return Index(Path(), tuple(refs), dict.fromkeys(refs, "HU"), (), {}, "", studies=refs)


@given(st.tuples(*[st.floats(-34, 34)] * 3), st.permutations(range(3)))
def test_lesions_match_if_the_patient_is_shifted(by, order):
    now, then = shift((0, 0, 0), prefix="n"), shift(by)
    matches = match_findings(now, [then[n] for n in order])
    assert {name: other.id for name, other in matches.items()} == {f"n{n}": f"t{n}" for n in range(3)}


def test_a_single_shifted_lesion_does_not_match():
    current = [finding("n", (0, 0, 0))]
    assert match_findings(current, [finding("t", (25, 0, 0))]) == {}
    assert match_findings(current, [finding("t", (9, 0, 0))])["n"].id == "t"
    assert match_findings(current, [finding("t", (0, 0, 0), label=2)]) == {}
    assert match_findings([finding("n", (0, 0, 0), diameter_mm=60)], [finding("t", (25, 0, 0))])["n"].id == "t"
    assert match_findings(current, []) == match_findings([], current) == {}


def test_new_and_resolved_lesions_do_not_match():
    now = [*shift((0, 0, 0), PLACES[:2], "n"), finding("new", (-80, 0, 0))]
    then = [*shift((5, 5, 5), PLACES[:2]), finding("gone", (0, 90, 0))]
    assert {name: other.id for name, other in match_findings(now, then).items()} == {"n0": "t0", "n1": "t1"}


def test_growth_in_per_cent_and_days():
    growth = measure_growth(finding("n", (0, 0, 0), 2.0, 15.0), finding("t", (0, 0, 0), 1.0, 12.0), 90)
    assert (growth.volume_percent, growth.diameter_percent, growth.doubling_days) == (100, 25, pytest.approx(90))
    assert growth.summary == "+100 % volume, +25 % diameter in 90 days; volume doubling time 90 days"
    assert growth.doubling_days == pytest.approx(90 * math.log(2) / math.log(2.0 / 1.0))


@pytest.mark.parametrize("now_ml", [0.76, 1.0, 1.24])
def test_a_change_within_measurement_variation_has_no_doubling_time_in_the_summary(now_ml):
    summary = measure_growth(finding("n", (0, 0, 0), now_ml), finding("t", (0, 0, 0), 1.0), 90).summary
    assert "below 25 %" in summary and "doubling" not in summary


@given(st.floats(0.01, 100), st.floats(1.01, 10), st.integers(1, 2000))
def test_after_its_doubling_time_a_lesion_is_twice_as_large(volume_ml, factor, days):
    doubling = measure_growth(
        finding("n", (0, 0, 0), volume_ml * factor), finding("t", (0, 0, 0), volume_ml), days
    ).doubling_days
    assert factor == pytest.approx(2 ** (days / doubling))


@pytest.mark.parametrize(("now_ml", "then_ml", "days"), [(1, 2, 90), (1, 1, 90), (2, 1, None), (2, 1, 0), (0, 1, 90)])
def test_no_doubling_time_without_growth_or_days(now_ml, then_ml, days):
    assert measure_growth(finding("n", (0, 0, 0), now_ml), finding("t", (0, 0, 0), then_ml), days).doubling_days is None


def test_unmeasured_sizes_are_not_compared():
    growth = measure_growth(finding("n", (0, 0, 0), 0.0, 0.0), finding("t", (0, 0, 0)), 30)
    assert (
        growth.volume_percent is growth.diameter_percent is None
        and growth.summary == "no size was measured in both studies"
    )


def test_the_prior_is_the_latest_earlier_study_of_the_patient():
    studies = index(
        late=("p", "20240601"), first=("p", "20230101"), other=("q", "20240101"), mid=("p", "20240101"), lone=("", "")
    )
    assert [find_prior(studies, case) for case in studies.cases] == ["mid", None, None, "first", None]
    assert count_days(studies, "mid", "late") == 152 and count_days(studies, "lone", "late") is None


counted = st.integers(-40_000, 40_000)


@given(counted, counted)
def test_relative_days_order_studies_too(one, other):
    studies = index(a=("p", "", one), b=("p", "", other))
    assert count_days(studies, "a", "b") == -count_days(studies, "b", "a") == other - one
    assert find_prior(studies, "b") == ("a" if other > one else None)
    assert find_prior(studies, "a") == ("b" if one > other else None)


def test_relative_days_take_precedence_and_are_not_mixed_with_dates():
    studies = index(a=("p", "20240101", 0), b=("p", "20240201", 7), dated=("p", "20240301"), counted=("p", "", 9))
    assert count_days(studies, "a", "b") == 7 and count_days(studies, "b", "dated") == 29
    assert count_days(studies, "dated", "counted") is None


def test_an_index_without_days_is_read_and_one_with_invalid_days_is_rejected(predictions):
    assert read_index(predictions).find_study("case-a") == StudyRef()
    index = json.loads((predictions / "index.json").read_text())
    index["cases"][0] |= {"patient": "p", "day": 183}
    (predictions / "index.json").write_text(json.dumps(index))
    assert read_index(predictions).find_study("case-a") == StudyRef("p", "", 183)
    index["cases"][0]["day"] = "in spring"
    (predictions / "index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="not an index"):
        read_index(predictions)


def test_without_dates_the_study_listed_before_is_the_prior():
    studies = index(a=("p",), b=("p",))
    assert (find_prior(studies, "a"), find_prior(studies, "b")) == (None, "a")


def test_another_kind_of_scan_is_no_prior():
    studies = index(a=("p", "20240101"), b=("p", "20240201"))
    assert find_prior(studies, "b") == "a"
    studies.units["a"] = "a.u."
    assert find_prior(studies, "b") is None


def test_verdicts_remove_rejected_findings_and_relabel_others():
    verdicts = {
        "f1": Verdict("f1", "ana", "reject", "", "2026"),
        "f2": Verdict("f2", "ana", "relabel", "", "2026", "", 2),
    }
    findings = [finding("f1", (0, 0, 0)), finding("f2", (0, 0, 0)), finding("f3", (0, 0, 0))]
    assert [(item.id, item.label) for item in apply_verdicts(findings, Reading("c", "ana", verdicts))] == [
        ("f2", 2),
        ("f3", 1),
    ]
    assert [item.id for item in apply_verdicts(findings, Reading("c", "ana", verdicts), keep_rejected=True)] == [
        "f1",
        "f2",
        "f3",
    ]
    assert apply_verdicts(findings, Reading("c", "ana")) == findings


def test_a_measured_diameter_is_compared_only_with_a_measured_one():
    axes, before = (RecistAxes("axial", ((0, 0, 0), (long, 0, 0)), ((0, 0, 0), (0, 1, 0))) for long in (6, 5))
    now, then = finding("n", (0, 0, 0), 1.0, 12.0), finding("t", (0, 0, 0), 1.0, 10.0)
    assert measure_growth(now, then, None, axes, before).diameter_percent == pytest.approx(20)
    assert measure_growth(now, then, None, axes, None).diameter_percent == pytest.approx(20)
    assert measure_growth(replace(now, diameter_mm=15.0), then, None, axes, None).diameter_percent == pytest.approx(50)
