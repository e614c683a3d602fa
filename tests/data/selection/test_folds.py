"""Cross-validation folds: no patient in two splits, every patient in val once, split test unchanged."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.manifest import Case, Manifest
from medssl.data.selection.splits import assign_fold
from medssl.errors import BadInput


def make_manifest(patients, splits=("train", "val", "test", "")):
    """A case for every (patient, label) pair; splits go by patient."""
    template = Case("", "", "i", None, "CT", "HU", (1.0,) * 3, (8,) * 3, 1, "", "s", "0")
    split_of = {n: splits[n % len(splits)] for n, _ in patients}
    cases = (
        replace(
            template, id=f"c{n}", patient=f"p{p}", label="l" if label else None, split=split_of[p], site=f"site {p % 2}"
        )
        for n, (p, label) in enumerate(patients)
    )
    return Manifest(tuple(cases), Path("store"))


PATIENTS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=12, max_size=40)


@given(PATIENTS, st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_folds_are_disjoint_by_patient_and_cover_every_labelled_one(patients, folds, seed):
    whole = make_manifest(patients)
    pool = {c.patient for c in whole.with_labels().cases if c.split != "test"}
    if len(pool) < folds:
        with pytest.raises(BadInput, match="labelled patients"):
            assign_fold(whole, 0, folds, seed)
        return
    val_counts: Counter[str] = Counter()
    for number in range(folds):
        fold = assign_fold(whole, number, folds, seed)
        parts = {split: {c.patient for c in fold.in_split(split).with_labels().cases} for split in ("train", "val")}
        assert not parts["train"] & parts["val"]
        assert parts["train"] | parts["val"] == pool
        assert parts["val"]
        assert fold.in_split("test").cases == whole.in_split("test").cases
        assert [c.id for c in fold.cases] == [c.id for c in whole.cases]
        val_counts.update(parts["val"])
    assert val_counts == Counter(dict.fromkeys(pool, 1))


def test_folds_are_as_large_as_each_other_and_share_the_sites():
    whole = make_manifest([(n, True) for n in range(40)], splits=("train",))
    for number in range(5):
        val_cases = assign_fold(whole, number, 5, seed=3).in_split("val").cases
        assert len(val_cases) == 8
        assert Counter(c.site for c in val_cases) == {"site 0": 4, "site 1": 4}


def test_only_the_seed_changes_the_folds():
    whole = make_manifest([(n, True) for n in range(20)], splits=("train",))
    assert assign_fold(whole, 0, 4, 1) == assign_fold(whole, 0, 4, 1)
    assert assign_fold(whole, 0, 4, 1) != assign_fold(whole, 0, 4, 2)


@pytest.mark.parametrize("number, folds", [(-1, 3), (3, 3), (0, 1), (0, 21)])
def test_impossible_folds_are_refused(number, folds):
    with pytest.raises(BadInput, match=f"fold {number} of {folds}"):
        assign_fold(make_manifest([(n, True) for n in range(20)], splits=("train",)), number, folds, 0)
