"""Agreement: known answers, and symmetry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.finding import Verdict
from medssl.review.agreement import cohen, dice, disagreement, fleiss, pairs, panel
from medssl.review.reading import Reading

SAID = st.lists(st.tuples(*[st.sampled_from(["accept", "reject", "unsure"])] * 2), min_size=1, max_size=30)


def reading(reviewer: str, *decisions: str, case: str = "c", signed: bool = True) -> Reading:
    verdicts = {f"f{n}": Verdict(f"f{n}", reviewer, d, "", "2026") for n, d in enumerate(decisions)}
    return Reading(case, reviewer, verdicts, signed_at="2026" if signed else None)


def test_cohen_on_the_textbook_table():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: kappa 0.4."""
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen(first, second) == pytest.approx(0.4)


def test_fleiss_on_the_published_table():
    votes = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0]]
    votes += [[3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert fleiss(np.array(votes)) == pytest.approx(0.210, abs=5e-4)


@given(SAID)
def test_kappa_does_not_care_who_is_first_and_one_is_perfect(said):
    first, second = [a for a, _ in said], [b for _, b in said]
    assert cohen(first, second) == cohen(second, first)
    kappa = cohen(first, second)
    assert kappa is None or (kappa <= 1 and (kappa == 1) == (first == second))


def test_kappa_is_undefined_where_no_choice_was_left():
    assert cohen([], []) is None
    assert cohen(["accept"], ["accept"]) is None
    assert fleiss(np.array([[2, 0], [2, 0]])) is None
    assert fleiss(np.zeros((0, 2), int)) is None


def test_only_what_both_signed_is_compared():
    readings = [reading("ana", "accept", "reject"), reading("ben", "accept"), reading("eve", "reject", signed=False)]
    (pair,) = pairs(readings)
    assert pair.readers == ("ana", "ben")
    assert pair.said == (("c", "f0", "accept", "accept"),) and pair.agreed == 1
    assert pairs([reading("ana", case="c"), reading("ben", case="d")]) == []


def test_dice_of_masks():
    one, other = np.zeros((2, 2, 2), int), np.zeros((2, 2, 2), int)
    assert dice(one, other, 1) == 1
    one[0], other[0, 0] = 1, 1
    assert dice(one, other, 1) == pytest.approx(2 * 2 / 6)


def test_three_readers_make_a_panel_and_two_do_not():
    two = [reading("ana", "accept", "reject"), reading("ben", "accept", "reject")]
    assert panel(two) is None and panel([*two, reading("eve", "accept", "reject", signed=False)]) is None
    agreed = panel([*two, reading("eve", "accept", "reject"), reading("dan", "accept", case="d")])
    assert (agreed.readers, agreed.each, agreed.judged, agreed.kappa) == (("ana", "ben", "eve"), 3, 2, 1)
    apart = panel([*two, reading("eve", "reject", "accept")])
    assert apart.kappa == pytest.approx(-1 / 3)


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=2, max_size=5), st.randoms())
def test_disagreement_counts_who_is_not_with_most_whoever_comes_first(drawn, random):
    masks = [np.array(mask, np.uint8).reshape(2, 2, 1) for mask in drawn]
    expected = [
        len(drawn) - max(column.count(label) for label in column) for column in map(list, zip(*drawn, strict=True))
    ]
    assert disagreement(masks).ravel().tolist() == expected
    random.shuffle(masks)
    assert disagreement(masks).ravel().tolist() == expected
