"""The key gives names that cannot be turned back, and a header keeps only what is listed."""

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from medssl.errors import BadInput
from medssl.io.dicom.deidentify import KEY_BYTES, LATEST_DAYS, Key, clean, structure
from tests.helpers.dicom_phantom import slices

ONE, OTHER = Key(b"1" * KEY_BYTES), Key(b"2" * KEY_BYTES)
names = st.text(min_size=1, max_size=20)
days = st.dates(min_value=datetime(1900, 1, 1).date(), max_value=datetime(2100, 1, 1).date())


@given(names, names)
def test_a_pseudonym_depends_on_the_key_the_kind_and_the_name_alone(one, other):
    assert re.fullmatch(r"[0-9a-f]{16}", ONE.pseudonym("case", one))
    assert (ONE.pseudonym("case", one) == ONE.pseudonym("case", other)) == (one == other)
    assert len({ONE.pseudonym("case", one), ONE.pseudonym("file", one), OTHER.pseudonym("case", one)}) == 3


@given(names, names)
def test_new_identifiers_are_valid_and_tell_the_same_apart(one, other):
    assert UID(ONE.uid(one)).is_valid and ONE.uid(one).startswith("2.25.")
    assert (ONE.uid(one) == ONE.uid(other)) == (one == other) and ONE.uid(one) != OTHER.uid(one)


@given(names, days, days)
def test_all_dates_of_a_patient_move_by_the_same_days_and_never_stay(patient, first, second):
    moved = [datetime.strptime(ONE.moved(patient, f"{day:%Y%m%d}"), "%Y%m%d").date() for day in (first, second)]
    assert moved[1] - moved[0] == second - first
    assert 1 <= (first - moved[0]).days <= LATEST_DAYS


@given(names, names, days, days)
def test_days_are_counted_from_one_that_only_the_key_knows(patient, other, first, second):
    counted = [ONE.counted(patient, f"{day:%Y%m%d}") for day in (first, second)]
    assert counted[1] - counted[0] == (second - first).days
    assert (ONE.counted(patient, f"{first}") == ONE.counted(other, f"{first}")) == (patient == other)
    assert ONE.counted(patient, f"{first}") == counted[0] != OTHER.counted(patient, f"{first}")
    assert ONE.counted(patient, "in spring") is None


@pytest.mark.parametrize("day", ["", "2026", "20261399", "Smith", "2026-01-01", "00010101"])
def test_what_is_no_date_is_dropped(day):
    assert ONE.moved("p", day) == ""


def test_a_header_keeps_only_listed_attributes_with_listed_values():
    (data, *_) = slices(1)
    data.PatientAge, data.PatientSex, data.Manufacturer, data.KVP = "093Y", "F", "SIEMENS", "120"
    data.InstitutionName, data.StudyDate, data.PatientBirthDate = "St Elsewhere", "20260102", "19330101"
    told = clean(data, ONE)
    assert {n: told[n] for n in ("Modality", "PatientSex", "PatientAge", "Manufacturer", "KVP")} == {
        "Modality": "CT", "PatientSex": "F", "PatientAge": "090Y", "Manufacturer": "SIEMENS", "KVP": "120",
    }  # fmt: skip
    assert told["StudyDate"] == ONE.moved("patient-1", "20260102") and told["StudyInstanceUID"].startswith("2.25.")
    assert not {"InstitutionName", "PatientBirthDate", "PatientName", "PatientID", "SeriesDescription"} & set(told)
    data.Manufacturer, data.PatientSex = "Smith Imaging", "SMITH"
    assert not {"Manufacturer", "PatientSex"} & set(clean(data, ONE))


@pytest.mark.parametrize("name", ["Heart", "GTV-1", "lung_left", "GTV_Mass_MR_T1", "Spinal cord"])
def test_anatomy_keeps_its_name(name):
    assert structure(name, ONE) == name


@pytest.mark.parametrize("name", ["Smith", "Smith tumour", "GTV 19330101", "GTV Müller", "", "12", "GTV\nheart"])
def test_other_words_lose_theirs(name):
    assert structure(name, ONE) == f"structure-{ONE.pseudonym('structure', name)}"


def test_a_key_is_kept_for_its_owner_alone(tmp_path):
    made = Key.make(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600 and Key.read(tmp_path / "key") == made
    assert made.secret.hex() not in repr(made) and [p.name for p in tmp_path.iterdir()] == ["key"]
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        Key.read(tmp_path / "key")


@pytest.mark.parametrize("content", [None, "", "zz", "ab" * 8])
def test_what_is_no_key_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "key").write_text(content)
        (tmp_path / "key").chmod(0o600)
    with pytest.raises(BadInput, match="key"):
        Key.read(tmp_path / "key")
