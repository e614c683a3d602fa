"""Composes pictures of planes for reports and training logs."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, ImageDraw, ImageFont

from medssl.render.planes import ACROSS, PLANES, Colour, Plane, cut, draw, orientation_letters, plane_size_mm
from medssl.render.windows import Window, default_preset, window_presets
from medssl.volume import Spacing, Volume

BACKGROUND, INK, DIM = (11, 14, 19), (226, 232, 240), (138, 150, 168)
GAP, TITLE, MARGIN_MM = 6, 24, 45.0
DISAGREEMENT_COLOURS = ((255, 200, 60), (255, 110, 60), (235, 50, 120))  # few, many or half of the readers differ


def reconstruction_preview(
    volumes: Mapping[str, Float[np.ndarray, "c i j k"]], spacing_mm: Spacing = (1.0, 1.0, 1.0), side: int = 240
) -> Image.Image:
    """Returns the three middle planes of volumes with values in [0, 1], with one column per volume.

    NaN is drawn as hidden, and only the first channel is drawn. `side` is the longest edge in pixels.
    """
    window = Window(0, 1)
    first = next(iter(volumes.values()))
    columns = []
    for voxels in volumes.values():
        if voxels.shape != first.shape:
            raise ValueError(f"a preview compares volumes of one shape; got {voxels.shape} and {first.shape}")
        middle = {plane: voxels.shape[1 + ACROSS[plane]] // 2 for plane in PLANES}
        cuts = {plane: draw(cut(voxels[0], plane, index), window) for plane, index in middle.items()}
        columns.append([_resize_plane(rgb, voxels.shape[1:], spacing_mm, plane, side) for plane, rgb in cuts.items()])
    return _arrange_columns(columns, list(volumes))


def contact_sheet(volume: Volume, labels: Volume | None = None, columns: int = 6, rows: int = 4) -> Image.Image:
    """Returns evenly spaced axial planes from feet to head, with the labels outlined."""
    image = volume.reorient("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).reorient("RAS").voxels
    window = window_presets(image)[default_preset(image)]
    levels = np.unique(np.linspace(0, image.shape[2] - 1, columns * rows).round().astype(int))
    tiles = [_draw_tile(image, mask, window, "axial", int(level), 160) for level in levels]
    return _arrange_columns([tiles[column::columns] for column in range(min(columns, len(tiles)))], [])


def planes_through(volume: Volume, point_mm: tuple[float, float, float], labels: Volume | None = None) -> Image.Image:
    """Returns the three planes through a point in patient coordinates, with orientation letters."""
    image = volume.reorient("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).reorient("RAS").voxels
    window = window_presets(image)[default_preset(image)]
    indices = np.rint(image.to_index(np.array(point_mm))).astype(int).clip(0, np.array(image.shape) - 1)
    tiles = [[_draw_tile(image, mask, window, plane, int(indices[ACROSS[plane]]), 320)] for plane in PLANES]
    return _arrange_columns(tiles, [str(plane) for plane in PLANES])


def compare_labels(volume: Volume, reference: Volume, prediction: Volume, side: int = 160) -> Image.Image:
    """Returns the axial plane with the largest reference area twice: with the reference and with the prediction.

    Args:
        volume: The image.
        reference: The reference label map, on the grid of the image; negative values are unknown.
        prediction: The predicted label map, on the same grid.
        side: The longest edge of the volume in pixels.
    """
    image = volume.reorient("RAS")
    masks = [labels.require_same_grid(volume).reorient("RAS").voxels for labels in (reference, prediction)]
    area = (masks[0] > 0).sum((0, 1))
    level = int(area.argmax()) if area.any() else image.shape[2] // 2
    window = window_presets(image)[default_preset(image)]
    tiles = [[_draw_tile(image, mask, window, "axial", level, side)] for mask in masks]
    return _arrange_columns(tiles, ["reference", "predicted"])


def disagreement_map(volume: Volume, num_differing: Integer[np.ndarray, "i j k"], readers: int) -> Image.Image:
    """Returns the three planes with the most disagreement between readers, coloured by how many readers differ.

    Args:
        volume: The image.
        num_differing: The number of readers who differ from the majority, on the grid of the image.
        readers: The number of readers.
    """
    window = window_presets(volume)[default_preset(volume)]
    image, over = volume.reorient("RAS"), replace(volume, voxels=num_differing, unit="label").reorient("RAS").voxels
    image, over = _crop_around(image, over)
    indices = [int(np.argmax(over.sum(tuple(other for other in range(3) if other != axis)))) for axis in range(3)]
    colours = {
        n: DISAGREEMENT_COLOURS[
            min(len(DISAGREEMENT_COLOURS), 1 + (n - 1) * len(DISAGREEMENT_COLOURS) // max(1, readers // 2)) - 1
        ]
        for n in range(1, readers)
    }
    tiles = [[_draw_tile(image, over, window, plane, indices[ACROSS[plane]], 320, colours)] for plane in PLANES]
    return _arrange_columns(tiles, [str(plane) for plane in PLANES])


def encode_png(image: Image.Image) -> bytes:
    """Returns the bytes of a PNG file."""
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _crop_around(image: Volume, over: Integer[np.ndarray, "i j k"]) -> tuple[Volume, Integer[np.ndarray, "i j k"]]:
    """Crops to the coloured voxels with a margin of MARGIN_MM on each side."""
    coloured = np.argwhere(over)
    if not len(coloured):
        return image, over
    reach = np.ceil(MARGIN_MM / np.array(image.spacing_mm())).astype(int)
    low, high = np.maximum(coloured.min(0) - reach, 0), np.minimum(coloured.max(0) + reach + 1, image.shape)
    crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = image.affine.copy()
    affine[:3, 3] = image.to_mm(low.astype(float))
    return replace(image, voxels=image.voxels[crop], affine=affine), over[crop]


def _draw_tile(
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
    tile = _resize_plane(rgb, image.shape, image.spacing_mm(), plane, side)
    _write_letters(tile, orientation_letters(image.affine, plane))
    return tile


def _resize_plane(rgb: np.ndarray, shape: Sequence[int], spacing_mm: Spacing, plane: Plane, side: int) -> Image.Image:
    """Resizes a plane to its true proportions; the longest edge of the volume gets `side` pixels."""
    pixels_per_mm = side / max(n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    width, height = (
        max(1, round(mm * pixels_per_mm)) for mm in plane_size_mm((shape[0], shape[1], shape[2]), spacing_mm, plane)
    )
    return Image.fromarray(rgb).resize((width, height), Image.Resampling.NEAREST)


def _write_letters(tile: Image.Image, edges: tuple[str, str, str, str]) -> None:
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    width, height = tile.size
    positions = (
        (3, height / 2, "lm"),
        (width - 3, height / 2, "rm"),
        (width / 2, 3, "ma"),
        (width / 2, height - 3, "md"),
    )
    for letter, (x, y, anchor) in zip(edges, positions, strict=True):
        pen.text((x, y), letter, fill=INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=BACKGROUND)


def _arrange_columns(columns: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Arranges pictures in columns; a row is as high and a column as wide as its largest picture."""
    top = TITLE if titles else GAP
    widths = [max(tile.width for tile in column) for column in columns]
    heights = [max(c[row].height for c in columns if row < len(c)) for row in range(max(len(c) for c in columns))]
    size = (sum(widths) + GAP * (len(widths) + 1), top + sum(heights) + GAP * len(heights))
    page = Image.new("RGB", size, BACKGROUND)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for n, column in enumerate(columns):
        x = GAP + sum(widths[:n]) + GAP * n
        if titles:
            pen.text((x + widths[n] / 2, TITLE / 2), titles[n], fill=DIM, font=font, anchor="mm")
        for row, tile in enumerate(column):
            page.paste(tile, (x + (widths[n] - tile.width) // 2, top + sum(heights[:row]) + GAP * row))
    return page
