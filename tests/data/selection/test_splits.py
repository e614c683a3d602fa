"""New patients of a store: fractions are met in whatever batches patients arrive, and no patient moves. Every split
follows from the scans, not from the names.
"""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.manifest import Case, Manifest
from medssl.data.selection.splits import assign_fold, assign_new_patients, assign_splits, select_labelled

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def make_case(number, site=""):
    name = f"p{number}"
    return Case(name, name, "", None, "MR", "a.u.", (1, 1, 1), (1, 1, 1), 1, "", "", "", site=site)


def assign_in_batches(batches, fractions=FRACTIONS, seed=0, sites=None):
    """Assigns patients who arrive in batches of these sizes and returns all cases."""
    cases, number = [], 0
    for size in batches:
        new = [make_case(n, sites[n % len(sites)] if sites else "") for n in range(number, number + size)]
        split = assign_new_patients(cases, new, fractions, seed)
        cases += [Case(**{**vars(c), "split": split[c.patient]}) for c in new]
        number += size
    return cases


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 5))
def test_fractions_are_met_whatever_the_batches(batches, seed):
    cases = assign_in_batches(batches, seed=seed)
    counts = Counter(c.split for c in cases)
    assert all(abs(counts[name] - fraction * len(cases)) <= 1 for name, fraction in FRACTIONS.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.lists(st.sampled_from("abcd"), min_size=1, max_size=7))
def test_fractions_are_met_at_every_site_too(batches, sites):
    cases = assign_in_batches(batches, sites=sites)
    split_counts = Counter((c.site, c.split) for c in cases)
    site_counts = Counter(c.site for c in cases)
    for site, number in site_counts.items():
        assert all(split_counts[site, name] <= fraction * number + 1 for name, fraction in FRACTIONS.items())
    overall = Counter(c.split for c in cases)
    assert all(abs(overall[name] - fraction * len(cases)) <= 2 for name, fraction in FRACTIONS.items())


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(range(12))))
def test_the_order_within_a_batch_does_not_matter(order):
    cases = assign_in_batches([7])
    new = [make_case(100 + n) for n in range(12)]
    assert assign_new_patients(cases, [new[n] for n in order], FRACTIONS, 3) == assign_new_patients(
        cases, new, FRACTIONS, 3
    )


def test_single_patients_of_many_sites_are_not_all_in_train():
    cases = assign_in_batches([1] * 40, sites=[f"site-{n}" for n in range(40)])
    assert Counter(c.split for c in cases) == {"train": 28, "test": 8, "val": 4}


def test_splits_without_a_fraction_are_not_counted():
    declared = [Case(**{**vars(make_case(n)), "split": "kept apart"}) for n in range(50)]
    assert set(assign_new_patients(declared, [make_case(n) for n in range(100, 120)], FRACTIONS, 0).values()) == set(
        FRACTIONS
    )


def rename(manifest, key):
    """Returns the same scans under other names of cases, patients and sites, in the order of the names."""

    def hide(name):
        return hashlib.sha256(f"{key}{name}".encode()).hexdigest()[:12]

    cases = (replace(c, id=hide(c.id), patient=hide(c.patient), site=hide(c.site)) for c in manifest.cases)
    return replace(manifest, cases=tuple(sorted(cases, key=lambda case: case.id)))


def list_splits(manifest):
    return {case.sha256: case.split for case in manifest.cases}


ASSIGNMENTS = {
    "splits": lambda manifest: list_splits(assign_splits(manifest, FRACTIONS, 1)),
    "folds": lambda manifest: list_splits(assign_fold(manifest, 1, 3, 1)),
    "labelled": lambda manifest: set(list_splits(select_labelled(manifest, 7, 1))),
    "new": lambda manifest: list_splits(
        replace(
            manifest,
            cases=tuple(
                replace(case, split=assign_new_patients([], manifest.cases, FRACTIONS, 1)[case.patient])
                for case in manifest.cases
            ),
        )
    ),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_other_names_of_the_same_scans_change_nothing(name):
    scans = [(n // 2 if n < 10 else n, "AB"[n % 2]) for n in range(40)]
    cases = [
        replace(make_case(n), patient=f"p{p}", site=site, label="l", sha256=f"{n * 7919 % 101:064x}")
        for n, (p, site) in enumerate(scans)
    ]
    manifest = Manifest(tuple(cases), Path())
    first, second = (ASSIGNMENTS[name](rename(manifest, key)) for key in ("one", "two"))
    assert first == second
    assert len(set(first.values() if isinstance(first, dict) else first)) > 1
