"""Manifests are read and written exactly; splits keep patients together and are stratified by site; subsets nest."""

import math
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.data.manifest import Case, Manifest
from medssl.data.selection.splits import allocate_counts, assign_splits, select_labelled
from medssl.data.storage.arrow_rows import ArrowRows

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def make_case(number, patient, site, label="l.b2nd"):
    columns = (
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
    return Case(*columns, site=site)


SCANNED = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["", "A", "B", "C"])), min_size=1, max_size=60)


def make_manifest(scanned):
    """Up to 60 cases of up to 40 patients; a patient may have cases at several sites."""
    return Manifest(tuple(make_case(n, patient, site) for n, (patient, site) in enumerate(scanned)), Path("/store"))


@given(SCANNED, st.integers(0, 5))
def test_no_patient_straddles_splits_and_a_seed_repeats_them(scanned, seed):
    manifest = make_manifest(scanned)
    split = assign_splits(manifest, FRACTIONS, seed)
    assert len({(c.patient, c.split) for c in split.cases}) == len({c.patient for c in manifest.cases})
    assert split == assign_splits(manifest, FRACTIONS, seed)
    shuffled = assign_splits(replace(manifest, cases=manifest.cases[::-1]), FRACTIONS, seed)
    assert {c.id: c.split for c in shuffled.cases} == {c.id: c.split for c in split.cases}


def find_uneven_sites(manifest, split):
    """Lists the sites of which a split has at least one patient too many or too few."""
    site_of = {c.patient: c.site for c in sorted(manifest.cases, key=lambda c: (c.sha256, c.id), reverse=True)}
    split_of = {c.patient: c.split for c in split.cases}
    sizes, counts = Counter(site_of.values()), Counter((site_of[p], split_of[p]) for p in site_of)
    return [s for s in sizes for n, fraction in FRACTIONS.items() if abs(counts[s, n] - fraction * sizes[s]) >= 1]


@given(SCANNED, st.integers(0, 5))
def test_every_split_has_its_fraction_of_each_site_to_within_one_patient(scanned, seed):
    manifest = make_manifest(scanned)
    assert not find_uneven_sites(manifest, assign_splits(manifest, FRACTIONS, seed))


def test_a_split_that_ignores_sites_is_caught():
    """The planted fault."""
    manifest = make_manifest([(n, "ABC"[n % 3]) for n in range(60)])
    blind = replace(manifest, cases=tuple(replace(c, site="") for c in manifest.cases))
    assert all(find_uneven_sites(manifest, assign_splits(blind, FRACTIONS, seed)) for seed in range(5))


@given(st.lists(st.integers(1, 3), min_size=20, max_size=40))
def test_many_small_sites_still_fill_every_split(sizes):
    totals = [sum(column) for column in zip(*allocate_counts(sizes, list(FRACTIONS.values())), strict=True)]
    assert all(
        abs(total - fraction * sum(sizes)) <= 2 for total, fraction in zip(totals, FRACTIONS.values(), strict=True)
    )


@given(SCANNED, st.integers(0, 5), st.data())
def test_subsets_of_labelled_cases_are_nested(scanned, seed, data):
    manifest = make_manifest(scanned)
    large_count = data.draw(st.integers(0, len(manifest.cases)))
    small_count = data.draw(st.integers(0, large_count))
    small, large = select_labelled(manifest, small_count, seed), select_labelled(manifest, large_count, seed)
    assert len(small.cases) == small_count and set(small.cases) <= set(large.cases)
    assert large == select_labelled(manifest, large_count, seed)
    unused = Counter(c.patient for c in manifest.cases) - Counter(c.patient for c in large.cases)
    incomplete = {c.patient for c in large.cases} & set(unused)
    assert len(incomplete) <= 1  # a patient is used up before the next one begins


@given(SCANNED)
def test_a_manifest_reads_back_as_it_was_written(tmp_path_factory, scanned):
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    cases = tuple(replace(c, age_years=63.0, sex="F", label_sha256="ab") for c in make_manifest(scanned).cases)
    whole = Manifest(cases, path.parent)
    whole.write(path)
    assert Manifest.read(path) == whole


@pytest.mark.parametrize("change", [{"sha256": "y"}, {"label_sha256": "y"}, {"split": "y"}, {"patient": "y"}])
def test_the_digest_depends_on_everything_a_training_uses(change):
    manifest = Manifest((make_case(1, 1, "A"), make_case(2, 2, "B")), Path("/store"))
    changed = replace(manifest, cases=(replace(manifest.cases[0], **change), manifest.cases[1]))
    assert manifest.digest() != changed.digest()
    assert manifest.digest() == replace(manifest, folder=Path("/elsewhere"), cases=manifest.cases[::-1]).digest()


def test_a_single_patient_goes_to_the_largest_split():
    assert allocate_counts([1], [0.7, 0.1, 0.2]) == [[1, 0, 0]]
    assert math.isclose(sum(allocate_counts([10], [0.7, 0.1, 0.2])[0]), 10) and allocate_counts([10], [7, 1, 2]) == [
        [7, 1, 2]
    ]


def make_long_manifest(count):
    cases = (replace(make_case(n, n // 2, "AB"[n % 2]), split="train" if n % 3 else "val") for n in range(count))
    return Manifest(tuple(replace(case, label=None) if n % 5 == 0 else case for n, case in enumerate(cases)), Path())


@pytest.fixture
def long_manifest(tmp_path, monkeypatch):
    """A manifest and its Arrow file, as `read` returns it."""
    monkeypatch.setattr("medssl.data.manifest.MIN_ARROW_CASES", 40)
    expected = replace(make_long_manifest(60), folder=tmp_path)
    expected.write(tmp_path / "manifest.csv")
    return expected, Manifest.read(tmp_path / "manifest.csv")


def test_a_long_manifest_stays_on_the_disk_and_holds_the_same_cases(long_manifest):
    expected, manifest = long_manifest
    assert isinstance(manifest.cases, ArrowRows) and tuple(manifest.cases) == expected.cases
    assert manifest.cases[7] == expected.cases[7] and manifest.cases[-1] == expected.cases[-1]
    assert tuple(manifest.cases[50:70]) == expected.cases[50:70] and tuple(manifest.head(3).cases) == expected.cases[:3]
    assert manifest.digest() == expected.digest() and manifest.split_digest() == expected.split_digest()
    part, expected_part = (m.in_split("train").with_labels().select([5, 2, 9]) for m in (manifest, expected))
    assert tuple(part.cases) == expected_part.cases and part.column("id") == expected_part.column("id")
    with pytest.raises(IndexError):
        part.cases[3]


def test_another_process_gets_no_rows_but_maps_the_file(long_manifest):
    _, manifest = long_manifest
    len(manifest.cases)
    pickled = pickle.dumps(manifest.in_split("val"))
    assert len(pickled) < 1500 and b"c42" not in pickled
    assert tuple(pickle.loads(pickled).cases) == tuple(manifest.in_split("val").cases)


def test_an_edited_table_and_a_damaged_arrow_file_are_noticed(long_manifest):
    expected, _ = long_manifest
    path = expected.folder / "manifest.csv"
    path.with_suffix(".arrow").write_bytes(path.with_suffix(".arrow").read_bytes()[:300])
    assert Manifest.read(path) == expected
    expected.write(path)
    path.write_text(path.read_text().replace("c59,", "renamed,"))
    assert Manifest.read(path).cases[59].id == "renamed"


def test_a_short_manifest_has_no_second_file(tmp_path):
    make_long_manifest(60).write(tmp_path / "manifest.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]
