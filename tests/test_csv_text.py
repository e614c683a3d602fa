"""No cell of a table that people open starts a formula in a spreadsheet."""

import csv
import io
from dataclasses import dataclass

import pytest

from medssl.csv_text import neutralize
from medssl.export.findings_table import write_table
from medssl.metrics.case_scores import to_csv

FORMULAS = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1+1",
    "|x",
    "%0A=1",
    "- bleed",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_shown_as_text(text):
    assert neutralize(text) == f"'{text}".replace("\r", "\n")


@pytest.mark.parametrize("value", ["-3.25", "+4", "1e-5", "-.5", -3.25, 0, None, "", "nodule", "a=b", "2026-01-01"])
def test_everything_else_stays(value):
    assert neutralize(value) == value


def test_the_findings_and_the_scores_hold_no_formula(tmp_path):
    @dataclass
    class Row:
        case: str
        dice: float

    write_table(tmp_path / "findings.csv", [{"note": text, "name": text, "x_mm": -3.5} for text in FORMULAS])
    scores = to_csv([Row(text, -0.5) for text in FORMULAS])
    for table in ((tmp_path / "findings.csv").read_bytes().decode(), scores):
        rows = list(csv.reader(io.StringIO(table, newline="")))[1:]
        assert len(rows) == len(FORMULAS)
        assert all(row[0].startswith("'") and row[-1] in ("-3.5", "-0.5") for row in rows)
