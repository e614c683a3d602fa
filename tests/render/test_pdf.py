"""A report carries its notice on every page, holds everything that it was given, and its text can be selected."""

import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from PIL import Image

from medssl.errors import InputWarning
from medssl.render import pdf as pdf_module
from medssl.render.fonts import find_fonts
from medssl.render.pdf import PdfReport, build_document, write

NOTICE = "Research use only."
A4_POINTS = (595.28, 841.89)
TEXT = re.compile(rb"/F(\d+) [\d.]+ Tf|([-\d.]+) ([-\d.]+) Td|\(((?:\\.|[^\\)])*)\) Tj", re.DOTALL)
IMAGE = re.compile(rb"q [\d.]+ 0 0 [\d.]+ ([-\d.]+) ([-\d.]+) cm /I\d+ Do")


def a_report(rows: int, plates: int, note: str = "n") -> PdfReport:
    picture = Image.new("RGB", (30, 10))
    table = [[f"{n}.", note] for n in range(rows)]
    return PdfReport("t", NOTICE, [("a", "b")] * 8, ["#", "x"], [1, 9], table, [("c", picture)] * plates)


@dataclass
class Page:
    """The texts of a page, their positions, and the lower left corners of its pictures, in fractions of the page."""

    texts: list[str]
    positions: list[tuple[float, float]]
    pictures: list[tuple[float, float]]


def to_fraction(x: bytes, y: bytes) -> tuple[float, float]:
    return float(x) / A4_POINTS[0], float(y) / A4_POINTS[1]


def read_pages(report: PdfReport) -> list[Page]:
    """Reads the pages as a PDF viewer that copies text: by the map of each font from glyphs to characters."""
    pdf = build_document(report)
    pdf.set_compression(False)
    data = bytes(pdf.output())
    maps = [
        {int(glyph, 16): bytes.fromhex(text.decode()).decode("utf-16-be") for glyph, text in pairs}
        for block in re.findall(rb"beginbfchar(.*?)endbfchar", data, re.DOTALL)
        if (pairs := re.findall(rb"<(\w+)> <(\w+)>", block))
    ]
    pages = []
    for stream in re.findall(rb"stream\n(2 J\n.*?)\nendstream", data, re.DOTALL):
        page = Page([], [], [to_fraction(*corner) for corner in IMAGE.findall(stream)])
        font = 0
        for number, x, y, glyphs in TEXT.findall(stream):
            if number:
                font = int(number) - 1
            elif x:
                page.positions.append(to_fraction(x, y))
                page.texts.append("")
            else:
                plain = re.sub(rb"\\(.)", lambda m: {b"r": b"\r", b"n": b"\n"}.get(m[1], m[1]), glyphs, flags=re.DOTALL)
                codes = [int.from_bytes(plain[n : n + 2], "big") for n in range(0, len(plain), 2)]
                page.texts[-1] += "".join(maps[font][code] for code in codes)
        pages.append(page)
    return pages


def test_every_page_carries_the_notice_and_its_number():
    pages = read_pages(a_report(120, 4))
    assert len(pages) == 1 + 2 + 1
    assert all(NOTICE in page.texts and f"{n} / 4" in page.texts for n, page in enumerate(pages, 1))


def test_every_row_and_picture_is_on_one_page():
    pages = read_pages(a_report(120, 4))
    words = [word for page in pages for word in page.texts]
    assert all(words.count(f"{n}.") == 1 for n in range(120))
    assert words.count("c") == 4 and [len(page.pictures) for page in pages] == [0, 0, 0, 4]


@pytest.mark.parametrize("count", [90, 600])
def test_a_long_note_is_printed_to_its_end(count):
    note = [f"word{n}" for n in range(count)]
    words = [
        word for page in read_pages(a_report(1, 0, " ".join(note))) for text in page.texts for word in text.split()
    ]
    assert [word for word in words if word.startswith("word")] == note


def test_markup_and_formulas_are_printed_as_they_are():
    note = r"cost $x_ and $y^ more, **bold** __line__ (a\b) <b>"
    assert note in read_pages(a_report(1, 0, note))[0].texts


def test_nothing_leaves_the_page():
    for page in read_pages(a_report(120, 7, "word " * 60)):
        assert page.positions and all(0.03 < y < 0.96 and 0 <= x < 1 for x, y in page.positions)
        assert all(y > 0.05 for _, y in page.pictures)


def test_a_report_is_a_pdf_file(tmp_path):
    write(a_report(1, 1), tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")


def test_the_text_can_be_selected_in_several_scripts():
    name = "Ångström Ελένη Жанна"
    assert name in read_pages(a_report(1, 0, name))[0].texts
    assert name in read_pages(a_report(1, 0, name.replace("Å", "A\u030a")))[0].texts


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs pdftotext of poppler")
def test_another_program_reads_the_text(tmp_path):
    write(a_report(1, 0, "Ångström Ελένη Жанна"), tmp_path / "r.pdf")
    text = subprocess.run(["pdftotext", tmp_path / "r.pdf", "-"], capture_output=True, check=True).stdout.decode()
    assert "Ångström Ελένη Жанна" in text and NOTICE in text


def test_the_notes_of_any_script_are_printed_with_a_font_of_this_machine(tmp_path):
    if find_fonts("\u5f71\u50cf") == []:
        pytest.skip("needs a font with CJK letters (`apt-get install fonts-noto-cjk`)")
    assert "see \u5f71\u50cf" in "".join(read_pages(a_report(1, 0, "see \u5f71\u50cf"))[0].texts)


def test_letters_that_no_font_has_are_replaced_counted_by_script_and_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf_module, "find_fonts", lambda characters: [])
    report = a_report(1, 0, "see \u5f71\u50cf\u5f71")
    with pytest.warns(InputWarning, match=r"has 2 letters of the text \(2 cjk\).*fonts-noto") as messages:
        write(report, tmp_path / "r.pdf")
    assert "\u5f71" not in str(messages[0].message)
    texts = read_pages(report)[0].texts
    assert "see \ufffd\ufffd\ufffd" in texts and "letters that no font of this machine has: 2 cjk" in texts


def test_arabic_letters_join_and_are_printed_one_form_each():
    pdf = build_document(PdfReport("t", "", [], ["#"], [1], [["\u0628\u0628\u0628"]]))
    pdf.set_compression(False)
    stream = re.findall(rb"stream\n(2 J\n.*?)\nendstream", bytes(pdf.output()), re.DOTALL)[0]
    note = stream.split(b"Tf ET")[-2]
    assert len(set(re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", note))) == 3  # first, middle and last form of one letter
