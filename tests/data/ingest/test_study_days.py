"""The days between two studies reach a prediction, and no date does."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import ScanRef, list_scans
from medssl.data.manifest import Manifest
from medssl.inference.prediction_writer import make_study_refs
from medssl.io import nifti
from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.volume import Volume

DAYS = {"p": ("20240302", "20240901"), "q": ("20250110",), "r": ("",)}
OPTIONS = {"num_workers": 0, "split_fractions": {"test": 1.0}}


def volume(seed, unit="HU"):
    return Volume(np.random.default_rng(seed).integers(0, 900, (10, 12, 6)).astype(np.int16), np.eye(4), unit)


@pytest.fixture
def folders(tmp_path):
    """Four studies of three patients, the later one of the first patient in a folder of its own."""
    places = tmp_path / "first", tmp_path / "second"
    for patient, days in DAYS.items():
        for n, day in enumerate(days):
            info = SeriesInfo(patient, study=f"{n}", series=f"{n}", date=day)
            write_series(volume(ord(patient) + n), places[n] / patient, info)
    return places


def days_by_patient(scans):
    """The days of every patient's studies, the patients in the order of how many studies they have."""
    by: dict[str, list] = {}
    for study in make_study_refs(scans).values():
        by.setdefault(study.patient, []).append(study.day)
    return sorted((sorted(days, key=str) for days in by.values()), key=str)


@pytest.mark.parametrize("hidden", [True, False])
def test_folders_ingested_one_after_the_other_keep_the_days_between(folders, tmp_path, hidden):
    for folder in folders:
        ingest(folder, tmp_path / "store", IngestConfig(deidentify=hidden, **OPTIONS), lambda *_: None)
    manifest = tmp_path / "store/manifest.csv"
    assert days_by_patient(list_scans(manifest, "test", "")) == [[0, 183], [0], [None]]
    assert {study.date for study in make_study_refs(list_scans(manifest, "test", "")).values()} == {""}
    real = {date.fromisoformat(day).toordinal() for days in DAYS.values() for day in days if day}
    stored_days = {case.study_day for case in Manifest.read(manifest).cases if case.study_day}
    assert stored_days.isdisjoint(real) if hidden else stored_days == real


def test_a_folder_of_scans_gives_the_days_and_names_patients_after_cases(folders):
    scans = list_scans(folders[0].parent, "", "")
    assert days_by_patient(scans) == [[0, 183], [0], [None]]
    assert len({scan.patient for scan in scans}) == 3 and {scan.patient for scan in scans} < {s.case for s in scans}
    assert {study.date for study in make_study_refs(scans).values()} == {""}
    assert {study.date for study in make_study_refs(scans, include_dates=True).values()} == {
        day for days in DAYS.values() for day in days
    }


def test_a_table_dates_scans_that_have_no_header(tmp_path):
    for n in range(3):
        nifti.write(volume(n, "a.u."), tmp_path / f"scans/{n}.nii.gz")
    (tmp_path / "p.csv").write_text("case,patient,study_date\n0,a,2024-03-02\n1,a,20240901\n2,a,some day\n")
    options = IngestConfig(patients=tmp_path / "p.csv", modality="MR", **OPTIONS)
    ingest(tmp_path / "scans", tmp_path / "store", options, lambda *_: None)
    assert days_by_patient(list_scans(tmp_path / "store/manifest.csv", "test", "")) == [[0, 183, None]]


def test_a_manifest_of_before_has_no_days(folders, tmp_path):
    ingest(folders[0], tmp_path / "store", IngestConfig(**OPTIONS), lambda *_: None)
    path = tmp_path / "store/manifest.csv"
    whole = Manifest.read(path)
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    assert "day" not in lines[0] and sum(case.study_day is not None for case in whole.cases) == 2
    path.write_text("\n".join(lines) + "\n")
    assert {case.study_day for case in Manifest.read(path).cases} == {None}
    assert Manifest.read(path).digest() == whole.digest()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(1, 9)), max_size=8))
def test_days_count_from_the_patients_first_study(patients_and_days):
    scans = [ScanRef(f"{n}", patient, day, lambda: volume(0)) for n, (patient, day) in enumerate(patients_and_days)]
    studies = make_study_refs(scans)
    for patient in "ab":
        days = [day for whom, day in patients_and_days if whom == patient and day is not None]
        assert [s.day for s in studies.values() if s.patient == patient and s.day is not None] == [
            day - min(days) for day in days
        ]
    assert [studies[scan.case].day is None for scan in scans] == [scan.day is None for scan in scans]
