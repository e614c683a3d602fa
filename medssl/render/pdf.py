"""Writes a PDF report of facts, a table and pictures on A4 pages, each of which carries the same notice."""

import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from fpdf import FPDF, FontFace
from fpdf.enums import MethodReturnValue, TableBordersLayout, XPos, YPos
from fpdf.errors import FPDFException
from fpdf.fonts import TTFFont
from PIL import Image

from medssl.errors import InputWarning
from medssl.files import atomic_file
from medssl.render.fonts import count_scripts, find_fonts, needs_shaping

INK, DIM, RULE = (15, 23, 42), (100, 116, 139), (203, 213, 225)
MARGIN_MM, TOP_MM, BOTTOM_MM = 14.7, 24.0, 22.0
NAME_WIDTH, VALUE_WIDTH = 1, 4  # relative widths of the names and the values of the facts
LINE_MM, PICTURES_PER_PAGE = 4.4, 4
MAX_ROW_LINES = 20  # a longer cell continues in a further row
FONT, NUM_STYLES = "dejavu", 2
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class PdfReport:
    """The content of a report.

    Args:
        title: The title, printed on every page.
        notice: The notice at the foot of every page.
        facts: Pairs of a name and a value, above the table.
        columns: The titles of the table's columns.
        widths: The relative widths of the columns.
        rows: The cells of each row of the table.
        plates: Pictures with their captions, after the table.
        is_one_page: Whether only the pictures that fit below the table are printed, instead of all on further pages.
    """

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    columns: Sequence[str]
    widths: Sequence[float]
    rows: Sequence[Sequence[str]]
    plates: Sequence[tuple[str, Image.Image]] = ()
    is_one_page: bool = False


class ReportPdf(FPDF):
    """A PDF document with the title at the head of each page, and the notice and the page number at its foot.

    The font is DejaVu Sans, which is embedded and covers the Latin, Greek, Cyrillic, Arabic, Hebrew and other scripts.
    For the letters that it lacks, fonts of this machine are embedded. `missing` holds the letters that no font has;
    each of them is printed as the replacement character U+FFFD.
    """

    def __init__(self, report: PdfReport) -> None:
        super().__init__(format="A4")
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.add_font(FONT, "", fonts / "DejaVuSans.ttf")
        self.add_font(FONT, "B", fonts / "DejaVuSans-Bold.ttf")
        text = _normalize(" ".join(_list_texts(report)))
        self.missing = set(text) - self._add_fallback_fonts(text)
        if needs_shaping(text):
            self.set_text_shaping(True)
        self._title, self._notice = self.clean(report.title), self.clean(report.notice)
        self.set_title(self._title)
        self.set_subject(self._notice)
        self.set_creator("medssl")
        self.set_lang("en")
        self.set_margins(MARGIN_MM, TOP_MM)
        self.set_auto_page_break(True, BOTTOM_MM)

    def clean(self, text: str) -> str:
        """Returns a text on one line, with the replacement character for each character that the fonts lack."""
        return "".join(REPLACEMENT if character in self.missing else character for character in _normalize(text))

    def _add_fallback_fonts(self, text: str) -> set[str]:
        """Embeds fonts for the characters that the font lacks; returns the characters that some font has."""
        available = set.intersection(*self._list_characters())
        fallbacks = []
        for n, font in enumerate(find_fonts(set(text) - available)):
            with suppress(FPDFException, NotImplementedError, ValueError, KeyError):  # a kind that cannot be embedded
                self.add_font(f"fallback{n}", "", font.path, collection_font_number=font.number)
                fallbacks.append(f"fallback{n}")
        self.set_fallback_fonts(fallbacks, exact_match=False)
        return available.union(*self._list_characters()[NUM_STYLES:])

    def _list_characters(self) -> list[set[str]]:
        """Returns the characters of each embedded font."""
        return [set(map(chr, font.cmap)) for font in self.fonts.values() if isinstance(font, TTFFont)]

    def header(self) -> None:
        """Prints the title, larger on the first page."""
        self.set_font(FONT, "B", 15 if self.page_no() == 1 else 10)
        self.set_text_color(INK)
        self.set_xy(MARGIN_MM, 12)
        self.multi_cell(0, 7 if self.page_no() == 1 else 5, self._title, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.set_y(max(TOP_MM, self.get_y() + 3))

    def footer(self) -> None:
        """Prints the notice and the page number."""
        self.set_y(7 - BOTTOM_MM)
        self.set_font(FONT, "B", 8)
        self.set_text_color(INK)
        self.cell(self.epw - 16, 5, self._notice)
        self.set_font(FONT, "", 8)
        self.set_text_color(DIM)
        self.cell(16, 5, f"{self.page_no()} / {{nb}}", align="R")


def write(report: PdfReport, path: Path) -> None:
    """Writes the report as a PDF file with selectable text.

    Warns:
        InputWarning: If no font has some of the characters; the file then holds the replacement character U+FFFD.
    """
    pdf = build_document(report)
    with atomic_file(path, is_private=True) as part:
        pdf.output(str(part))
    if pdf.missing:
        warnings.warn(
            f"{path.name}: no font on this machine has {len(pdf.missing)} letters of the text "
            f"({count_scripts(pdf.missing)}); each is printed as {REPLACEMENT}; install fonts-noto or fonts-noto-cjk, "
            "or copy a font of the script to ~/.local/share/fonts, and write the report again",
            InputWarning,
            stacklevel=2,
        )


def build_document(report: PdfReport) -> ReportPdf:
    """Returns the laid-out document: the facts and the table, then the pictures."""
    pdf = ReportPdf(report)
    pdf.add_page()
    _add_facts(pdf, report)
    _add_table(pdf, report)
    first_place = math.ceil((pdf.get_y() - TOP_MM) / (pdf.eph / PICTURES_PER_PAGE)) if report.is_one_page else 0
    for place, (caption, image) in enumerate(report.plates, first_place):
        if place % PICTURES_PER_PAGE == 0:
            if report.is_one_page:
                break
            pdf.add_page()
        _add_picture(pdf, pdf.clean(caption), image, place % PICTURES_PER_PAGE)
    return pdf


def _normalize(text: str) -> str:
    """Returns a text on one line, with composed letters."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _list_texts(report: PdfReport) -> Iterator[str]:
    """Yields every text of a report."""
    yield from (report.title, report.notice, *report.columns)
    yield from (text for row in (*report.facts, *report.rows) for text in row)
    yield from (caption for caption, _ in report.plates)


def _add_facts(pdf: ReportPdf, report: PdfReport) -> None:
    _set_body_font(pdf, 9)
    widths = (NAME_WIDTH, VALUE_WIDTH)
    facts = list(report.facts)
    if pdf.missing:
        facts.append(("Not printed", f"letters that no font of this machine has: {count_scripts(pdf.missing)}"))
    rows = [part for fact in facts for part in _split_row(pdf, [pdf.clean(text) for text in fact], widths)]
    name_style, value_style = FontFace(color=DIM), FontFace(color=INK)
    with pdf.table(
        col_widths=widths, line_height=LINE_MM, text_align="LEFT", v_align="TOP", first_row_as_headings=False,
        borders_layout=TableBordersLayout.NONE, padding=(0.4, 0.8, 0.4, 0),
    ) as table:  # fmt: skip
        for name, value in rows:
            row = table.row()
            row.cell(name, style=name_style)
            row.cell(value, style=value_style)
    pdf.ln(LINE_MM)


def _add_table(pdf: ReportPdf, report: PdfReport) -> None:
    """Adds the table; its column titles are repeated on each page."""
    _set_body_font(pdf, 8)
    with pdf.table(
        col_widths=tuple(report.widths), line_height=LINE_MM, text_align="LEFT", v_align="TOP",
        headings_style=FontFace(emphasis="", color=DIM), borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        padding=(0.5, 0.8, 0.5, 0),
    ) as table:  # fmt: skip
        table.row([pdf.clean(title) for title in report.columns])
        for cells in report.rows:
            for part in _split_row(pdf, [pdf.clean(cell) for cell in cells], report.widths):
                table.row(part)


def _split_row(pdf: ReportPdf, cells: Sequence[str], widths: Sequence[float]) -> Iterator[list[str]]:
    """Yields a row as parts of at most MAX_ROW_LINES lines, since a table row cannot continue on the next page."""
    if max(map(len, cells)) < MAX_ROW_LINES:
        yield list(cells)
        return
    columns = []
    for cell, width in zip(cells, widths, strict=True):
        width_mm = pdf.epw * width / sum(widths) - 1
        lines = pdf.multi_cell(width_mm, text=cell, dry_run=True, output=MethodReturnValue.LINES)
        columns.append(lines if isinstance(lines, list) else [])
    for start in range(0, max(map(len, columns)), MAX_ROW_LINES):
        yield [" ".join(lines[start : start + MAX_ROW_LINES]) for lines in columns]


def _add_picture(pdf: ReportPdf, caption: str, image: Image.Image, place: int) -> None:
    """Adds a caption and a picture, as large as it fits, in one of the PICTURES_PER_PAGE places of a page."""
    height_mm = pdf.eph / PICTURES_PER_PAGE
    top_mm = TOP_MM + place * height_mm
    _set_body_font(pdf, 9)
    pdf.set_xy(MARGIN_MM, top_mm)
    pdf.multi_cell(0, LINE_MM, caption, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    picture_mm = pdf.get_y() + 1
    scale = min(pdf.epw / image.width, (top_mm + height_mm - 4 - picture_mm) / image.height)
    pdf.image(image, MARGIN_MM, picture_mm, image.width * scale, image.height * scale, alt_text=caption)


def _set_body_font(pdf: ReportPdf, size: int) -> None:
    pdf.set_font(FONT, "", size)
    pdf.set_text_color(INK)
    pdf.set_draw_color(RULE)
    pdf.set_line_width(0.2)
