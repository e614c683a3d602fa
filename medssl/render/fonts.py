"""Finds fonts on this machine for the letters that the font of a report lacks."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from matplotlib import font_manager

STYLES = ("bold", "italic", "oblique", "black", "thin", "light", "condensed", "narrow", "mono")


@dataclass(frozen=True)
class FontFile:
    """A font: its file, and its number in a file that holds several."""

    path: Path
    number: int = 0


def find_fonts(characters: Iterable[str], paths: Sequence[Path] | None = None) -> list[FontFile]:
    """Returns fonts that together hold as many of the characters as any font on this machine does.

    Args:
        characters: The characters.
        paths: The files to search; None searches the folders in which the system keeps its fonts.
    """
    missing, fonts = {ord(character) for character in characters}, []
    if missing and paths is None:
        paths = [Path(path) for path in font_manager.findSystemFonts()]
    for path in sorted(paths or (), key=_rank_font):
        if missing & (covered := _read_characters(path)):
            fonts.append(FontFile(path))
            missing -= covered
        if not missing:
            break
    return fonts


def count_scripts(characters: Iterable[str]) -> str:
    """Returns how many of the characters belong to each script, for example `2 cjk, 1 thai`, but no character."""
    scripts = Counter(unicodedata.name(character, "unknown").split()[0].lower() for character in characters)
    return ", ".join(f"{count} {script}" for script, count in sorted(scripts.items()))


def needs_shaping(text: str) -> bool:
    """Whether letters of a text join, combine or run from right to left, so that printing them one by one is wrong."""
    return any(
        unicodedata.bidirectional(character) in ("R", "AL") or unicodedata.category(character) in ("Mn", "Mc")
        for character in text
    )


def _rank_font(path: Path) -> tuple[int, bool, str]:
    """Orders fonts: upright and of normal weight first, without serifs first."""
    name = path.stem.lower()
    return sum(style in name for style in STYLES), "sans" not in name, str(path)


@lru_cache(maxsize=2000)
def _read_characters(path: Path) -> frozenset[int]:
    """Returns the characters of a font, or of the first one in a collection; none of a file that cannot be read."""
    try:
        with TTFont(path, lazy=True, fontNumber=0) as font:
            return frozenset(font.getBestCmap() or {})
    except (OSError, TTLibError, KeyError, AssertionError, ValueError):
        return frozenset()
