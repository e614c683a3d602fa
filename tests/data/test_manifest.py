"""Manifest: splits that no patient straddles, shares that every site has, subsets that nest."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.data.manifest import Case, Manifest, allotted

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def case(number, patient, site, label="l.b2nd"):
    plain = (
        f"c{number}",
        f"p{patient}",
        "i.b2nd",
        label,
        "CT",
        "HU",
        (1.0, 1.0, 2.5),
        (4, 5, 6),
        1,
        "",
        "x",
        f"{number}",
    )
    return Case(*plain, site=site)


SCANNED = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["", "A", "B", "C"])), min_size=1, max_size=60)


def filled(scanned):
    """Up to 60 cases of up to 40 patients; a patient may have cases at several sites."""
    return Manifest(tuple(case(n, patient, site) for n, (patient, site) in enumerate(scanned)), Path("/store"))


@given(SCANNED, st.integers(0, 5))
def test_no_patient_straddles_splits_and_a_seed_repeats_them(scanned, seed):
    manifest = filled(scanned)
    split = manifest.split(SHARES, seed)
    assert len({(c.patient, c.split) for c in split.cases}) == len({c.patient for c in manifest.cases})
    assert split == manifest.split(SHARES, seed)
    shuffled = replace(manifest, cases=manifest.cases[::-1]).split(SHARES, seed)
    assert {c.id: c.split for c in shuffled.cases} == {c.id: c.split for c in split.cases}


def uneven(manifest, split):
    """The sites of which a split has at least a patient too many or too few."""
    first = {c.patient: c.site for c in sorted(manifest.cases, key=lambda c: c.site, reverse=True)}
    of = {c.patient: c.split for c in split.cases}
    sizes, counts = Counter(first.values()), Counter((first[p], of[p]) for p in first)
    return [s for s in sizes for n, share in SHARES.items() if abs(counts[s, n] - share * sizes[s]) >= 1]


@given(SCANNED, st.integers(0, 5))
def test_each_site_has_its_share_of_every_split_to_within_one_patient(scanned, seed):
    manifest = filled(scanned)
    assert not uneven(manifest, manifest.split(SHARES, seed))


def test_a_split_that_is_blind_to_sites_is_caught():
    """The planted fault."""
    manifest = filled([(n, "ABC"[n % 3]) for n in range(60)])
    blind = replace(manifest, cases=tuple(replace(c, site="") for c in manifest.cases))
    assert all(uneven(manifest, blind.split(SHARES, seed)) for seed in range(5))


@given(st.lists(st.integers(1, 3), min_size=20, max_size=40))
def test_many_small_sites_still_fill_every_split(sizes):
    totals = [sum(column) for column in zip(*allotted(sizes, list(SHARES.values())), strict=True)]
    assert all(abs(got - share * sum(sizes)) <= 2 for got, share in zip(totals, SHARES.values(), strict=True))


@given(SCANNED, st.integers(0, 5), st.data())
def test_fewer_labels_are_a_part_of_more(scanned, seed, data):
    manifest = filled(scanned)
    more = data.draw(st.integers(0, len(manifest.cases)))
    fewer = data.draw(st.integers(0, more))
    small, large = manifest.few(fewer, seed), manifest.few(more, seed)
    assert len(small.cases) == fewer and set(small.cases) <= set(large.cases)
    assert large == manifest.few(more, seed)
    open_patients = Counter(c.patient for c in manifest.cases) - Counter(c.patient for c in large.cases)
    begun = {c.patient for c in large.cases} & set(open_patients)
    assert len(begun) <= 1  # a patient is used up before the next one begins


@given(SCANNED)
def test_a_manifest_reads_back_as_it_was_written(tmp_path_factory, scanned):
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    told = tuple(replace(c, age_years=63.0, sex="F", label_sha256="ab") for c in filled(scanned).cases)
    whole = Manifest(told, path.parent)
    whole.write(path)
    assert Manifest.read(path) == whole


@pytest.mark.parametrize("change", [{"sha256": "y"}, {"label_sha256": "y"}, {"split": "y"}, {"patient": "y"}])
def test_the_digest_sees_what_is_learned_from(change):
    one = Manifest((case(1, 1, "A"), case(2, 2, "B")), Path("/store"))
    other = replace(one, cases=(replace(one.cases[0], **change), one.cases[1]))
    assert one.digest() != other.digest()
    assert one.digest() == replace(one, folder=Path("/elsewhere"), cases=one.cases[::-1]).digest()


def test_a_lone_patient_goes_where_most_is_wanted():
    assert allotted([1], [0.7, 0.1, 0.2]) == [[1, 0, 0]]
    assert math.isclose(sum(allotted([10], [0.7, 0.1, 0.2])[0]), 10) and allotted([10], [7, 1, 2]) == [[7, 1, 2]]
