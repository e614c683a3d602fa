"""Pseudonyms cannot be reversed without the key, and a header keeps only the listed attributes."""

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from medssl.errors import BadInput
from medssl.io.dicom.deidentify import KEY_BYTES, MAX_SHIFT_DAYS, PseudonymKey, filter_dataset, redact_structure_name
from tests.helpers.dicom_phantom import make_slices

KEY, OTHER_KEY = PseudonymKey(b"1" * KEY_BYTES), PseudonymKey(b"2" * KEY_BYTES)
names = st.text(min_size=1, max_size=20)
days = st.dates(min_value=datetime(1900, 1, 1).date(), max_value=datetime(2100, 1, 1).date())


@given(names, names)
def test_a_pseudonym_depends_on_the_key_the_kind_and_the_name_alone(first, second):
    assert re.fullmatch(r"[0-9a-f]{16}", KEY.make_pseudonym("case", first))
    pseudonym = KEY.make_pseudonym("case", first)
    assert (pseudonym == KEY.make_pseudonym("case", second)) == (first == second)
    assert len({pseudonym, KEY.make_pseudonym("file", first), OTHER_KEY.make_pseudonym("case", first)}) == 3


@given(names, names)
def test_new_uids_are_valid_and_differ_if_the_old_ones_do(first, second):
    uid = KEY.replace_uid(first)
    assert UID(uid).is_valid and uid.startswith("2.25.")
    assert (uid == KEY.replace_uid(second)) == (first == second) and uid != OTHER_KEY.replace_uid(first)


@given(names, days, days)
def test_all_dates_of_a_patient_move_by_the_same_days_and_never_stay(patient, first, second):
    moved = [datetime.strptime(KEY.shift_date(patient, f"{day:%Y%m%d}"), "%Y%m%d").date() for day in (first, second)]
    assert moved[1] - moved[0] == second - first
    assert 1 <= (first - moved[0]).days <= MAX_SHIFT_DAYS


@given(names, names, days, days)
def test_days_are_counted_from_a_date_that_only_the_key_knows(patient, other, first, second):
    counted = [KEY.count_relative_days(patient, f"{day:%Y%m%d}") for day in (first, second)]
    assert counted[1] - counted[0] == (second - first).days
    assert (KEY.count_relative_days(patient, f"{first}") == KEY.count_relative_days(other, f"{first}")) == (
        patient == other
    )
    other_count = OTHER_KEY.count_relative_days(patient, f"{first}")
    assert KEY.count_relative_days(patient, f"{first}") == counted[0] != other_count
    assert KEY.count_relative_days(patient, "in spring") is None


@pytest.mark.parametrize("day", ["", "2026", "20261399", "Smith", "2026-01-01", "00010101"])
def test_a_value_that_is_no_date_is_dropped(day):
    assert KEY.shift_date("p", day) == ""


def test_a_header_keeps_only_listed_attributes_with_listed_values():
    (data, *_) = make_slices(1)
    data.PatientAge, data.PatientSex, data.Manufacturer, data.KVP = "093Y", "F", "SIEMENS", "120"
    data.InstitutionName, data.StudyDate, data.PatientBirthDate = "St Elsewhere", "20260102", "19330101"
    allowed = filter_dataset(data, KEY)
    assert {n: allowed[n] for n in ("Modality", "PatientSex", "PatientAge", "Manufacturer", "KVP")} == {
        "Modality": "CT", "PatientSex": "F", "PatientAge": "090Y", "Manufacturer": "SIEMENS", "KVP": "120",
    }  # fmt: skip
    assert allowed["StudyDate"] == KEY.shift_date("patient-1", "20260102")
    assert allowed["StudyInstanceUID"].startswith("2.25.")
    assert not {"InstitutionName", "PatientBirthDate", "PatientName", "PatientID", "SeriesDescription"} & set(allowed)
    data.Manufacturer, data.PatientSex = "Smith Imaging", "SMITH"
    assert not {"Manufacturer", "PatientSex"} & set(filter_dataset(data, KEY))


@pytest.mark.parametrize("name", ["Heart", "GTV-1", "lung_left", "GTV_Mass_MR_T1", "Spinal cord"])
def test_anatomy_keeps_its_name(name):
    assert redact_structure_name(name, KEY) == name


@pytest.mark.parametrize("name", ["Smith", "Smith tumour", "GTV 19330101", "GTV Müller", "", "12", "GTV\nheart"])
def test_values_of_other_attributes_are_removed(name):
    assert redact_structure_name(name, KEY) == f"structure-{KEY.make_pseudonym('structure', name)}"


def test_a_key_is_kept_for_its_owner_alone(tmp_path):
    key = PseudonymKey.create(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600 and PseudonymKey.read(tmp_path / "key") == key
    assert key.secret.hex() not in repr(key) and [p.name for p in tmp_path.iterdir()] == ["key"]
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        PseudonymKey.read(tmp_path / "key")


@pytest.mark.parametrize("content", [None, "", "zz", "ab" * 8])
def test_what_is_no_key_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "key").write_text(content)
        (tmp_path / "key").chmod(0o600)
    with pytest.raises(BadInput, match="key"):
        PseudonymKey.read(tmp_path / "key")
