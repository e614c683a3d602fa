"""Figures: pictures for reports and training logs, composed of planes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, ImageDraw, ImageFont

from medssl.render.planes import ACROSS, PLANES, Colour, Plane, cut, draw, letters, size_mm
from medssl.render.windows import Window, first_preset, presets
from medssl.volume import Spacing, Volume

BACKGROUND, INK, DIM = (11, 14, 19), (226, 232, 240), (138, 150, 168)
GAP, TITLE, AROUND_MM = 6, 24, 45.0
DISPUTED = ((255, 200, 60), (255, 110, 60), (235, 50, 120))  # a few differ, many, half


def preview(
    volumes: Mapping[str, Float[np.ndarray, "c i j k"]], spacing_mm: Spacing = (1.0, 1.0, 1.0), side: int = 240
) -> Image.Image:
    """Volumes on one grid, values in [0, 1], side by side: a column each, the three middle planes below one another.

    NaN is drawn as hidden. Only the first channel is shown.
    """
    window = Window(0, 1)
    first = next(iter(volumes.values()))
    columns = []
    for voxels in volumes.values():
        if voxels.shape != first.shape:
            raise ValueError(f"a preview compares volumes of one shape; got {voxels.shape} and {first.shape}")
        middle = {plane: voxels.shape[1 + ACROSS[plane]] // 2 for plane in PLANES}
        cuts = {plane: draw(cut(voxels[0], plane, at), window) for plane, at in middle.items()}
        columns.append([_scaled(rgb, voxels.shape[1:], spacing_mm, plane, side) for plane, rgb in cuts.items()])
    return _table(columns, list(volumes))


def sheet(volume: Volume, labels: Volume | None = None, columns: int = 6, rows: int = 4) -> Image.Image:
    """A contact sheet: axial planes from feet to head, evenly spread, labels outlined."""
    image = volume.oriented("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).oriented("RAS").voxels
    window = presets(image)[first_preset(image)]
    levels = np.unique(np.linspace(0, image.shape[2] - 1, columns * rows).round().astype(int))
    tiles = [_tile(image, mask, window, "axial", int(level), 160) for level in levels]
    return _table([tiles[column::columns] for column in range(min(columns, len(tiles)))], [])


def around(volume: Volume, point_mm: tuple[float, float, float], labels: Volume | None = None) -> Image.Image:
    """The three planes through a point of the patient, in the volume's first preset, with letters."""
    image = volume.oriented("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).oriented("RAS").voxels
    window = presets(image)[first_preset(image)]
    at = np.rint(image.to_index(np.array(point_mm))).astype(int).clip(0, np.array(image.shape) - 1)
    tiles = [[_tile(image, mask, window, plane, int(at[ACROSS[plane]]), 320)] for plane in PLANES]
    return _table(tiles, [str(plane) for plane in PLANES])


def disputed(volume: Volume, apart: Integer[np.ndarray, "i j k"], readers: int) -> Image.Image:
    """The three planes through the voxel about which readers differ most, with a colour for how many differ.

    `apart` lies on the volume's grid: how many of `readers` drew something else than most did.
    """
    window = presets(volume)[first_preset(volume)]
    image, over = volume.oriented("RAS"), replace(volume, voxels=apart, unit="label").oriented("RAS").voxels
    image, over = _about(image, over)
    at = [int(np.argmax(over.sum(tuple(other for other in range(3) if other != axis)))) for axis in range(3)]
    colours = {
        n: DISPUTED[min(len(DISPUTED), 1 + (n - 1) * len(DISPUTED) // max(1, readers // 2)) - 1]
        for n in range(1, readers)
    }
    tiles = [[_tile(image, over, window, plane, at[ACROSS[plane]], 320, colours)] for plane in PLANES]
    return _table(tiles, [str(plane) for plane in PLANES])


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _about(image: Volume, over: Integer[np.ndarray, "i j k"]) -> tuple[Volume, Integer[np.ndarray, "i j k"]]:
    """What is coloured, and AROUND_MM more on each side."""
    found = np.argwhere(over)
    if not len(found):
        return image, over
    reach = np.ceil(AROUND_MM / np.array(image.spacing_mm())).astype(int)
    low, high = np.maximum(found.min(0) - reach, 0), np.minimum(found.max(0) + reach + 1, image.shape)
    crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = image.affine.copy()
    affine[:3, 3] = image.to_mm(low.astype(float))
    return replace(image, voxels=image.voxels[crop], affine=affine), over[crop]


def _tile(
    image: Volume,
    labels: Integer[np.ndarray, "i j k"] | None,
    window: Window,
    plane: Plane,
    index: int,
    side: int,
    colours: Mapping[int, Colour] | None = None,
) -> Image.Image:
    over = None if labels is None else cut(labels, plane, index)
    rgb = draw(cut(image.voxels, plane, index), window, over, colours)
    tile = _scaled(rgb, image.shape, image.spacing_mm(), plane, side)
    _write_letters(tile, letters(image.affine, plane))
    return tile


def _scaled(rgb: np.ndarray, shape: Sequence[int], spacing_mm: Spacing, plane: Plane, side: int) -> Image.Image:
    """A plane in its true proportions, voxels as blocks; the longest edge of the volume is `side` pixels."""
    pixels_per_mm = side / max(n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    width, height = (
        max(1, round(mm * pixels_per_mm)) for mm in size_mm((shape[0], shape[1], shape[2]), spacing_mm, plane)
    )
    return Image.fromarray(rgb).resize((width, height), Image.Resampling.NEAREST)


def _write_letters(tile: Image.Image, edges: tuple[str, str, str, str]) -> None:
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    width, height = tile.size
    places = ((3, height / 2, "lm"), (width - 3, height / 2, "rm"), (width / 2, 3, "ma"), (width / 2, height - 3, "md"))
    for letter, (x, y, anchor) in zip(edges, places, strict=True):
        pen.text((x, y), letter, fill=INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=BACKGROUND)


def _table(columns: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Pictures in columns, each row as high as its highest and each column as wide as its widest."""
    top = TITLE if titles else GAP
    widths = [max(tile.width for tile in column) for column in columns]
    heights = [max(c[row].height for c in columns if row < len(c)) for row in range(max(len(c) for c in columns))]
    size = (sum(widths) + GAP * (len(widths) + 1), top + sum(heights) + GAP * len(heights))
    page = Image.new("RGB", size, BACKGROUND)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for n, column in enumerate(columns):
        left = GAP + sum(widths[:n]) + GAP * n
        if titles:
            pen.text((left + widths[n] / 2, TITLE / 2), titles[n], fill=DIM, font=font, anchor="mm")
        for row, tile in enumerate(column):
            page.paste(tile, (left + (widths[n] - tile.width) // 2, top + sum(heights[:row]) + GAP * row))
    return page
