"""A report says on every page what it is not for, and leaves out nothing that it was given."""

import pytest
from PIL import Image

from medssl.errors import Doubt
from medssl.render.pdf import Report, pages, write

NOTICE = "Research use only."


def a_report(rows: int, plates: int, note: str = "n") -> Report:
    picture = Image.new("RGB", (30, 10))
    table = [[f"{n}.", note] for n in range(rows)]
    return Report("t", NOTICE, [("a", "b")] * 8, ["#", "x"], [1, 9], table, [("c", picture)] * plates)


def shown(report: Report) -> list[list[str]]:
    return [[text.get_text() for text in page.texts] for page in pages(report)]


def test_every_page_carries_the_notice_and_its_number():
    drawn = shown(a_report(120, 4))
    assert len(drawn) == 1 + 2 + 2
    assert all(NOTICE in page and f"{n} / 5" in page for n, page in enumerate(drawn, 1))


def test_every_row_and_picture_is_on_one_page():
    words = [word for page in shown(a_report(120, 4)) for word in page]
    assert all(words.count(f"{n}.") == 1 for n in range(120))
    assert words.count("c") == 4


def test_a_long_note_is_told_to_its_end():
    note = " ".join(f"word{n}" for n in range(90))
    words = [word for page in shown(a_report(1, 0, note)) for text in page for word in text.split()]
    assert note in " ".join(words)


def test_a_dollar_sign_begins_no_formula(tmp_path):
    write(a_report(1, 0, "cost $x_ and $y^ more"), tmp_path / "r.pdf")


def test_nothing_leaves_the_page():
    for page in pages(a_report(120, 7, "word " * 60)):
        assert all(0.03 < y < 0.96 and 0 <= x < 1 for x, y in (text.get_position() for text in page.texts))
        assert all(axes.get_position().y0 > 0.05 for axes in page.axes)


def test_a_report_is_a_pdf_file(tmp_path):
    write(a_report(1, 1), tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_letters_that_the_font_lacks_are_told(tmp_path):
    with pytest.warns(Doubt, match="lacks 2 letters"):
        write(a_report(1, 0, "see \u5f71\u50cf"), tmp_path / "r.pdf")
