"""Composes axial planes of a volume, with its labels outlined, into one picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageDraw, ImageFont

from medssl.finding import Point
from medssl.render.figures import BACKGROUND, GAP, INK, TITLE, arrange_columns, draw_tile
from medssl.render.windows import default_preset, window_presets
from medssl.volume import Volume


def contact_sheet(
    volume: Volume, labels: Volume | None = None, columns: int = 6, rows: int = 4, points_mm: Sequence[Point] = ()
) -> Image.Image:
    """Returns evenly spaced axial planes from feet to head, with the labels outlined.

    Args:
        volume: The image.
        labels: The label map, on the grid of the image.
        columns: The number of columns.
        rows: The number of rows.
        points_mm: Points in mm, RAS+, the most important first; each moves the nearest plane to itself.
    """
    image = volume.reorient("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).reorient("RAS").voxels
    window = window_presets(image)[default_preset(image)]
    levels = _move_levels(
        np.unique(np.linspace(0, image.shape[2] - 1, columns * rows).round().astype(int)), image, points_mm
    )
    tiles = [draw_tile(image, mask, window, "axial", int(level), 160) for level in levels]
    return arrange_columns([tiles[column::columns] for column in range(min(columns, len(tiles)))], [])


def add_caption(picture: Image.Image, text: str) -> Image.Image:
    """Returns a picture with a line of text below it."""
    page = Image.new("RGB", (picture.width, picture.height + TITLE), BACKGROUND)
    page.paste(picture)
    ImageDraw.Draw(page).text((GAP, picture.height), text, fill=INK, font=ImageFont.load_default(13))
    return page


def _move_levels(
    levels: Integer[np.ndarray, "n"], image: Volume, points_mm: Sequence[Point]
) -> Integer[np.ndarray, "n"]:
    """Returns the levels, of which the nearest to each point is moved to it, as long as some are free."""
    is_free = np.ones(len(levels), bool)
    levels = levels.copy()
    for point in points_mm:
        level = int(np.rint(image.to_index(np.array(point))[2]).clip(0, image.shape[2] - 1))
        if is_free.any() and not (levels[~is_free] == level).any():
            nearest = int(np.argmin(np.where(is_free, np.abs(levels - level), image.shape[2])))
            levels[nearest], is_free[nearest] = level, False
    return np.unique(levels)
