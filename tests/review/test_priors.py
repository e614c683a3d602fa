"""Lesions of two studies are matched by label and place, and their growth is what the measures say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.predictions_folder import Index, Study, read_index
from medssl.review.priors import days_between, earlier, growth, match, standing
from medssl.review.reading import Reading
from medssl.review.recist import Axes

PLACES = [(0.0, 0.0, 0.0), (60.0, -20.0, 40.0), (-50.0, 70.0, 10.0)]


def finding(name, centre_mm, volume_ml=1.0, diameter_mm=12.0, label=1):
    return Finding(name, "c", label, "nodule", centre_mm, centre_mm, centre_mm, volume_ml, diameter_mm, 0.9)


def moved(by, places=PLACES, prefix="t"):
    return [finding(f"{prefix}{n}", tuple(x + d for x, d in zip(c, by, strict=True))) for n, c in enumerate(places)]


def index(**studies):
    told = {name: Study(*said) for name, said in studies.items()}
    return Index(Path(), tuple(told), dict.fromkeys(told, "HU"), (), {}, "", studies=told)


@given(st.tuples(*[st.floats(-34, 34)] * 3), st.permutations(range(3)))
def test_a_patient_who_lies_elsewhere_has_the_same_lesions(by, order):
    now, then = moved((0, 0, 0), prefix="n"), moved(by)
    found = match(now, [then[n] for n in order])
    assert {name: other.id for name, other in found.items()} == {f"n{n}": f"t{n}" for n in range(3)}


def test_one_lesion_that_moved_is_another_one():
    one = [finding("n", (0, 0, 0))]
    assert match(one, [finding("t", (25, 0, 0))]) == {}
    assert match(one, [finding("t", (9, 0, 0))])["n"].id == "t"
    assert match(one, [finding("t", (0, 0, 0), label=2)]) == {}
    assert match([finding("n", (0, 0, 0), diameter_mm=60)], [finding("t", (25, 0, 0))])["n"].id == "t"
    assert match(one, []) == match([], one) == {}


def test_a_new_and_a_gone_lesion_stay_alone():
    now = [*moved((0, 0, 0), PLACES[:2], "n"), finding("new", (-80, 0, 0))]
    then = [*moved((5, 5, 5), PLACES[:2]), finding("gone", (0, 90, 0))]
    assert {name: other.id for name, other in match(now, then).items()} == {"n0": "t0", "n1": "t1"}


def test_growth_in_per_cent_and_days():
    grown = growth(finding("n", (0, 0, 0), 2.0, 15.0), finding("t", (0, 0, 0), 1.0, 12.0), 90)
    assert (grown.volume, grown.diameter, grown.doubling_days) == (100, 25, pytest.approx(90))
    assert grown.said == "+100 % volume, +25 % diameter in 90 days; volume doubling time 90 days"
    assert grown.doubling_days == pytest.approx(90 * math.log(2) / math.log(2.0 / 1.0))


@pytest.mark.parametrize("now_ml", [0.76, 1.0, 1.24])
def test_of_a_change_as_two_scans_show_without_growth_no_doubling_is_said(now_ml):
    said = growth(finding("n", (0, 0, 0), now_ml), finding("t", (0, 0, 0), 1.0), 90).said
    assert "under 25 %" in said and "doubling" not in said


@given(st.floats(0.01, 100), st.floats(1.01, 10), st.integers(1, 2000))
def test_after_its_doubling_time_a_lesion_is_twice_as_large(volume_ml, factor, days):
    doubling = growth(
        finding("n", (0, 0, 0), volume_ml * factor), finding("t", (0, 0, 0), volume_ml), days
    ).doubling_days
    assert factor == pytest.approx(2 ** (days / doubling))


@pytest.mark.parametrize(("now_ml", "then_ml", "days"), [(1, 2, 90), (1, 1, 90), (2, 1, None), (2, 1, 0), (0, 1, 90)])
def test_what_does_not_grow_or_has_no_dates_never_doubles(now_ml, then_ml, days):
    assert growth(finding("n", (0, 0, 0), now_ml), finding("t", (0, 0, 0), then_ml), days).doubling_days is None


def test_a_size_that_nobody_measured_is_not_compared():
    drawn = growth(finding("n", (0, 0, 0), 0.0, 0.0), finding("t", (0, 0, 0)), 30)
    assert drawn.volume is drawn.diameter is None and drawn.said == "no size to compare in 30 days"


def test_the_prior_is_the_latest_earlier_study_of_the_patient():
    studies = index(
        late=("p", "20240601"), first=("p", "20230101"), other=("q", "20240101"), mid=("p", "20240101"), lone=("", "")
    )
    assert [earlier(studies, case) for case in studies.cases] == ["mid", None, None, "first", None]
    assert days_between(studies, "mid", "late") == 152 and days_between(studies, "lone", "late") is None


counted = st.integers(-40_000, 40_000)


@given(counted, counted)
def test_days_since_a_first_study_that_nobody_dates_order_studies_too(one, other):
    studies = index(a=("p", "", one), b=("p", "", other))
    assert days_between(studies, "a", "b") == -days_between(studies, "b", "a") == other - one
    assert earlier(studies, "b") == ("a" if other > one else None)
    assert earlier(studies, "a") == ("b" if one > other else None)


def test_days_count_before_dates_and_are_never_taken_from_one_another():
    studies = index(a=("p", "20240101", 0), b=("p", "20240201", 7), dated=("p", "20240301"), counted=("p", "", 9))
    assert days_between(studies, "a", "b") == 7 and days_between(studies, "b", "dated") == 29
    assert days_between(studies, "dated", "counted") is None


def test_an_index_without_days_is_read_and_one_with_other_words_is_refused(predictions):
    assert read_index(predictions).study("case-a") == Study()
    told = json.loads((predictions / "index.json").read_text())
    told["cases"][0] |= {"patient": "p", "day": 183}
    (predictions / "index.json").write_text(json.dumps(told))
    assert read_index(predictions).study("case-a") == Study("p", "", 183)
    told["cases"][0]["day"] = "in spring"
    (predictions / "index.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match="not an index"):
        read_index(predictions)


def test_without_dates_the_study_listed_before_is_the_prior():
    studies = index(a=("p",), b=("p",))
    assert (earlier(studies, "a"), earlier(studies, "b")) == (None, "a")


def test_another_kind_of_scan_is_no_prior():
    studies = index(a=("p", "20240101"), b=("p", "20240201"))
    assert earlier(studies, "b") == "a"
    studies.units["a"] = "a.u."
    assert earlier(studies, "b") is None


def test_what_a_reader_rejected_does_not_stand_and_what_they_renamed_has_its_new_label():
    said = {"f1": Verdict("f1", "ana", "reject", "", "2026"), "f2": Verdict("f2", "ana", "relabel", "", "2026", "", 2)}
    found = [finding("f1", (0, 0, 0)), finding("f2", (0, 0, 0)), finding("f3", (0, 0, 0))]
    assert [(one.id, one.label) for one in standing(found, Reading("c", "ana", said))] == [("f2", 2), ("f3", 1)]
    assert [one.id for one in standing(found, Reading("c", "ana", said), rejected=True)] == ["f1", "f2", "f3"]
    assert standing(found, Reading("c", "ana")) == found


def test_a_measured_diameter_is_compared_with_a_measured_one_alone():
    axes, before = (Axes("axial", ((0, 0, 0), (long, 0, 0)), ((0, 0, 0), (0, 1, 0))) for long in (6, 5))
    now, then = finding("n", (0, 0, 0), 1.0, 12.0), finding("t", (0, 0, 0), 1.0, 10.0)
    assert growth(now, then, None, axes, before).diameter == pytest.approx(20)
    assert growth(now, then, None, axes, None).diameter == pytest.approx(20)
    assert growth(replace(now, diameter_mm=15.0), then, None, axes, None).diameter == pytest.approx(50)
