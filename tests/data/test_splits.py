"""Patients who join a store: shares are met however they come, and nobody moves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.manifest import Case
from medssl.data.splits import joined

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def case(number, site=""):
    name = f"p{number}"
    return Case(name, name, "", None, "MR", "a.u.", (1, 1, 1), (1, 1, 1), 1, "", "", "", site=site)


def grown(batches, shares=SHARES, seed=0, sites=None):
    """Everybody, after coming in batches of these sizes."""
    there, number = [], 0
    for size in batches:
        new = [case(n, sites[n % len(sites)] if sites else "") for n in range(number, number + size)]
        split = joined(there, new, shares, seed)
        there += [Case(**{**vars(c), "split": split[c.patient]}) for c in new]
        number += size
    return there


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 5))
def test_shares_are_met_however_few_come_at_a_time(batches, seed):
    there = grown(batches, seed=seed)
    counts = Counter(c.split for c in there)
    assert all(abs(counts[name] - share * len(there)) <= 1 for name, share in SHARES.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.lists(st.sampled_from("abcd"), min_size=1, max_size=7))
def test_every_site_is_shared_out_too(batches, sites):
    there = grown(batches, sites=sites)
    at = Counter((c.site, c.split) for c in there)
    of_site = Counter(c.site for c in there)
    for site, number in of_site.items():
        assert all(at[site, name] <= share * number + 1 for name, share in SHARES.items())
    overall = Counter(c.split for c in there)
    assert all(abs(overall[name] - share * len(there)) <= 2 for name, share in SHARES.items())


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(range(12))))
def test_the_order_within_a_batch_does_not_matter(order):
    there = grown([7])
    new = [case(100 + n) for n in range(12)]
    assert joined(there, [new[n] for n in order], SHARES, 3) == joined(there, new, SHARES, 3)


def test_patients_of_many_sites_who_come_alone_do_not_all_train():
    there = grown([1] * 40, sites=[f"site-{n}" for n in range(40)])
    assert Counter(c.split for c in there) == {"train": 28, "test": 8, "val": 4}


def test_splits_that_are_none_of_the_shares_count_for_nothing():
    declared = [Case(**{**vars(case(n)), "split": "kept apart"}) for n in range(50)]
    assert set(joined(declared, [case(n) for n in range(100, 120)], SHARES, 0).values()) == set(SHARES)
