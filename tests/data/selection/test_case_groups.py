"""Cases are grouped by what the store knows or by a table, and labels can be restricted to some groups."""

from pathlib import Path

import pytest

from medssl.data.manifest import Case, Manifest
from medssl.data.selection.case_groups import LabelDomain, group_cases
from medssl.errors import BadInput


def make_case(number, **facts):
    row = {"site": "", "sex": "", "age_years": None} | facts
    return Case(f"c{number}", f"p{number // 2}", "", None, "CT", "HU", (1, 1, 2.5), (9, 9, 9), 1, "", "", "", **row)


def test_properties_of_the_store_name_the_groups():
    cases = [make_case(0, site="A", sex="F", age_years=0.5), make_case(1, site="B", age_years=18), make_case(2)]
    assert list(group_cases(cases, "site").values()) == ["A", "B", "unknown"]
    assert list(group_cases(cases, "sex").values()) == ["F", "unknown", "unknown"]
    assert list(group_cases(cases, "age").values()) == ["0-17", "18-39", "unknown"]
    assert set(group_cases(cases, "spacing").values()) == {"1x1x2.5"} and set(
        group_cases(cases, "modality").values()
    ) == {"CT"}


@pytest.mark.parametrize(
    ("age", "band"), [(17.9, "0-17"), (39.99, "18-39"), (40, "40-59"), (79, "60-79"), (80, "80 and older")]
)
def test_ages_are_in_bands(age, band):
    assert group_cases([make_case(0, age_years=age)], "age") == {"c0": band}


def test_a_table_gives_each_case_or_patient_its_group(tmp_path):
    table = tmp_path / "scanners.csv"
    table.write_text("\ufeffcase,scanner\nc0,GE\nc1, Siemens \n")
    assert group_cases([make_case(n) for n in range(3)], f"{table}:scanner") == {
        "c0": "GE",
        "c1": "Siemens",
        "c2": "unknown",
    }
    table.write_text("patient,scanner\np0,GE\np1,Canon\n")
    assert set(group_cases([make_case(n) for n in range(2)], f"{table}:scanner").values()) == {"GE"}


def test_many_numbers_are_divided_at_the_median(tmp_path):
    table = tmp_path / "spacings.csv"
    table.write_text("id,mm\n" + "".join(f"c{n},{n}\n" for n in range(7)))
    groups = group_cases([make_case(n) for n in range(8)], f"{table}:mm")
    assert [groups[f"c{n}"] for n in (0, 3, 4, 7)] == ["up to 3", "up to 3", "above 3", "unknown"]
    assert group_cases([make_case(n) for n in range(3)], f"{table}:mm") == {f"c{n}": "up to 3" for n in range(3)}
    table.write_text("id,mm\n" + "".join(f"c{n},{n % 5}\n" for n in range(7)))
    assert set(group_cases([make_case(n) for n in range(7)], f"{table}:mm").values()) == set("01234")


@pytest.mark.parametrize(
    ("by", "text", "message"),
    [
        ("scanner", "", r"scanner: cases are grouped by site, sex, age, modality, spacing, or by a table"),
        ("missing.csv:scanner", None, r"missing\.csv: no such file"),
        ("t.csv:maker", "case,scanner\nc0,GE\n", r"t\.csv: needs a column maker; its columns are case, scanner"),
        ("t.csv:scanner", "name,scanner\nc0,GE\n", r"needs a column id or case or patient"),
        ("t.csv:scanner", "case,scanner\nc0,GE\nc0,Canon\n", r"lists c0 twice, as 'GE' and as 'Canon'"),
        ("t.csv:scanner", "case,scanner\nelse,GE\n", r"names none of the 1 cases"),
        ("t.csv:scanner", "", r"its columns are none"),
    ],
)
def test_groupings_that_cannot_be_made_are_refused(by, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("t.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        group_cases([make_case(0)], by)


def test_a_domain_selects_its_cases_and_refuses_unknown_names():
    manifest = Manifest(tuple(make_case(n, site="AB"[n % 2]) for n in range(4)), Path())
    assert [case.id for case in LabelDomain(by="site", values=("B",)).select(manifest).cases] == ["c1", "c3"]
    assert LabelDomain().select(manifest) is manifest and LabelDomain(by="site").select(manifest) is manifest
    with pytest.raises(BadInput, match=r"C: no group of these cases by site; these are A \(2\), B \(2\)"):
        LabelDomain(by="site", values=("A", "C")).select(manifest)
    with pytest.raises(ValueError, match="say by what cases are grouped"):
        LabelDomain(values=("A",))
