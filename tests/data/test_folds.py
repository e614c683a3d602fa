"""Folds of a cross-validation: no patient on both sides, every patient held out once, the test set left alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput


def manifest(patients, splits=("train", "val", "test", "")):
    """A case for every (patient, label) pair; splits go by patient."""
    like = Case("", "", "i", None, "CT", "HU", (1.0,) * 3, (8,) * 3, 1, "", "s", "0")
    of = {n: splits[n % len(splits)] for n, _ in patients}
    cases = (
        replace(like, id=f"c{n}", patient=f"p{p}", label="l" if label else None, split=of[p], site=f"site {p % 2}")
        for n, (p, label) in enumerate(patients)
    )
    return Manifest(tuple(cases), Path("store"))


PATIENTS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=12, max_size=40)


@given(PATIENTS, st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_folds_are_disjoint_by_patient_and_cover_every_labelled_one(patients, folds, seed):
    whole = manifest(patients)
    pool = {c.patient for c in whole.labelled().cases if c.split != "test"}
    if len(pool) < folds:
        with pytest.raises(BadInput, match="labelled patients"):
            whole.fold(0, folds, seed)
        return
    held: Counter[str] = Counter()
    for number in range(folds):
        fold = whole.fold(number, folds, seed)
        parts = {split: {c.patient for c in fold.by(split).labelled().cases} for split in ("train", "val")}
        assert not parts["train"] & parts["val"]
        assert parts["train"] | parts["val"] == pool
        assert parts["val"]
        assert fold.by("test").cases == whole.by("test").cases
        assert [c.id for c in fold.cases] == [c.id for c in whole.cases]
        held.update(parts["val"])
    assert held == Counter(dict.fromkeys(pool, 1))


def test_folds_are_as_large_as_each_other_and_share_the_sites():
    whole = manifest([(n, True) for n in range(40)], splits=("train",))
    for number in range(5):
        held = whole.fold(number, 5, seed=3).by("val").cases
        assert len(held) == 8
        assert Counter(c.site for c in held) == {"site 0": 4, "site 1": 4}


def test_another_seed_deals_otherwise_and_the_same_seed_does_not():
    whole = manifest([(n, True) for n in range(20)], splits=("train",))
    assert whole.fold(0, 4, 1) == whole.fold(0, 4, 1)
    assert whole.fold(0, 4, 1) != whole.fold(0, 4, 2)


@pytest.mark.parametrize("number, folds", [(-1, 3), (3, 3), (0, 1), (0, 21)])
def test_folds_that_cannot_be_are_refused(number, folds):
    with pytest.raises(BadInput, match=f"fold {number} of {folds}"):
        manifest([(n, True) for n in range(20)], splits=("train",)).fold(number, folds, 0)
