"""Agreement has the published values and does not depend on the order of the readers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.finding import Verdict
from medssl.review.agreement import (
    cohen_kappa,
    compare_pairs,
    compute_dice,
    count_disagreement,
    fleiss_kappa,
    measure_agreement,
)
from medssl.review.reading import Reading

DECISION_PAIRS = st.lists(st.tuples(*[st.sampled_from(["accept", "reject", "unsure"])] * 2), min_size=1, max_size=30)


def reading(reviewer: str, *decisions: str, case: str = "c", signed: bool = True) -> Reading:
    verdicts = {f"f{n}": Verdict(f"f{n}", reviewer, d, "", "2026") for n, d in enumerate(decisions)}
    return Reading(case, reviewer, verdicts, signed_at="2026" if signed else None)


def test_cohen_on_the_textbook_table():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: kappa 0.4."""
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_fleiss_on_the_published_table():
    votes = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0]]
    votes += [[3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert fleiss_kappa(np.array(votes)) == pytest.approx(0.210, abs=5e-4)


@given(DECISION_PAIRS)
def test_kappa_is_symmetric_and_one_for_equal_decisions(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    assert cohen_kappa(first, second) == cohen_kappa(second, first)
    kappa = cohen_kappa(first, second)
    assert kappa is None or (kappa <= 1 and (kappa == 1) == (first == second))


def test_kappa_is_undefined_for_a_single_decision():
    assert cohen_kappa([], []) is None
    assert cohen_kappa(["accept"], ["accept"]) is None
    assert fleiss_kappa(np.array([[2, 0], [2, 0]])) is None
    assert fleiss_kappa(np.zeros((0, 2), int)) is None


def test_only_cases_that_both_signed_are_compared():
    readings = [reading("ana", "accept", "reject"), reading("ben", "accept"), reading("eve", "reject", signed=False)]
    (pair,) = compare_pairs(readings)
    assert pair.readers == ("ana", "ben")
    assert pair.decisions == (("c", "f0", "accept", "accept"),) and pair.num_agreed == 1
    assert compare_pairs([reading("ana", case="c"), reading("ben", case="d")]) == []


def test_dice_of_masks():
    first, second = np.zeros((2, 2, 2), int), np.zeros((2, 2, 2), int)
    assert compute_dice(first, second, 1) == 1
    first[0], second[0, 0] = 1, 1
    assert compute_dice(first, second, 1) == pytest.approx(2 * 2 / 6)


def test_three_readers_have_a_common_kappa_and_two_do_not():
    two = [reading("ana", "accept", "reject"), reading("ben", "accept", "reject")]
    assert (
        measure_agreement(two) is None
        and measure_agreement([*two, reading("eve", "accept", "reject", signed=False)]) is None
    )
    agreement = measure_agreement([*two, reading("eve", "accept", "reject"), reading("dan", "accept", case="d")])
    assert (agreement.readers, agreement.readers_per_finding, agreement.num_findings, agreement.kappa) == (
        ("ana", "ben", "eve"),
        3,
        2,
        1,
    )
    disputed = measure_agreement([*two, reading("eve", "reject", "accept")])
    assert disputed.kappa == pytest.approx(-1 / 3)


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=2, max_size=5), st.randoms())
def test_disagreement_counts_readers_outside_the_majority_in_any_order(lists, random):
    masks = [np.array(mask, np.uint8).reshape(2, 2, 1) for mask in lists]
    expected = [
        len(lists) - max(column.count(label) for label in column) for column in map(list, zip(*lists, strict=True))
    ]
    assert count_disagreement(masks).ravel().tolist() == expected
    random.shuffle(masks)
    assert count_disagreement(masks).ravel().tolist() == expected
