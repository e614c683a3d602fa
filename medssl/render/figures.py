"""Composes pictures of planes for reports and training logs."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Integer
from PIL import Image, ImageDraw, ImageFont

from medssl.finding import Point
from medssl.render.planes import ACROSS, ALONG, PLANES, Colour, Plane, cut, draw, orientation_letters, plane_size_mm
from medssl.render.windows import Window, default_preset, window_presets
from medssl.volume import Spacing, Volume

Box = tuple[float, float, float, float]
BACKGROUND, INK, DIM = (11, 14, 19), (226, 232, 240), (138, 150, 168)
GAP, TITLE, MARGIN_MM = 6, 24, 45.0
ARROW: Colour = (255, 221, 87)
ARROW_PIXELS, SCALE_LENGTHS_MM = 40, (100, 50, 20, 10, 5, 2, 1)
# How much is shown around a lesion: a multiple of its size, but not more than its size and a margin.
CONTEXT_SCALE, CONTEXT_MARGIN_MM, MIN_CONTEXT_MM = 4.0, 80.0, 50.0
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
    return arrange_columns(columns, list(volumes))


def planes_through(
    volume: Volume,
    point_mm: tuple[float, float, float],
    labels: Volume | None = None,
    side: int = 320,
    is_marked: bool = False,
) -> Image.Image:
    """Returns the three planes through a point in patient coordinates, with orientation letters.

    Args:
        volume: The image.
        point_mm: The point in mm, RAS+.
        labels: The label map, on the grid of the image.
        side: The longest edge of the volume in pixels.
        is_marked: Whether a cross with an open middle marks the point.
    """
    image = volume.reorient("RAS")
    mask = None if labels is None else labels.require_same_grid(volume).reorient("RAS").voxels
    window = window_presets(image)[default_preset(image)]
    indices = np.rint(image.to_index(np.array(point_mm))).astype(int).clip(0, np.array(image.shape) - 1)
    tiles = [draw_tile(image, mask, window, plane, int(indices[ACROSS[plane]]), side) for plane in PLANES]
    for tile, plane in zip(tiles, PLANES, strict=True):
        if is_marked:
            _draw_cross(tile, _to_pixels(tile, image, plane, np.array([point_mm]))[:2])
    return arrange_columns([[tile] for tile in tiles], [str(plane) for plane in PLANES])


def crop_around_lesion(volume: Volume, low_mm: Point, high_mm: Point) -> Volume:
    """Returns the part of a RAS volume around the bounding box of a lesion, with the tissue next to it."""
    low, high = (volume.to_index(np.array(corner)) for corner in (low_mm, high_mm))
    size_mm = max(abs(b - a) for a, b in zip(low_mm, high_mm, strict=True))
    width_mm = max(MIN_CONTEXT_MM, min(CONTEXT_SCALE * size_mm, size_mm + CONTEXT_MARGIN_MM))
    reach = width_mm / 2 / np.array(volume.spacing_mm())
    middle = (low + high) / 2
    first = np.clip(np.floor(middle - reach), 0, np.array(volume.shape) - 1).astype(int)
    last = np.clip(np.ceil(middle + reach), first, np.array(volume.shape) - 1).astype(int)
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_mm(first.astype(float))
    crop = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
    return replace(volume, voxels=volume.voxels[crop], affine=affine)


def lesion_planes(
    volume: Volume, labels: Volume, low_mm: Point, high_mm: Point, centre_mm: Point, window: Window, side: int = 360
) -> Image.Image:
    """Returns the planes through a lesion, cropped to it, each with an arrow and a scale, after an overview.

    The overview is the whole axial plane with a frame around what the others show.

    Args:
        volume: The image.
        labels: The labels to outline, on the grid of the image.
        low_mm: The lower corner of the bounding box of the lesion in mm, RAS+.
        high_mm: The upper corner.
        centre_mm: The point that the planes go through.
        window: The window of the grey values.
        side: The longest edge of a picture in pixels.
    """
    image, mask = volume.reorient("RAS"), labels.require_same_grid(volume).reorient("RAS")
    near, near_mask = (crop_around_lesion(scan, low_mm, high_mm) for scan in (image, mask))
    corners = np.array([low_mm, high_mm])
    index = np.rint(image.to_index(np.array(centre_mm))).astype(int).clip(0, np.array(image.shape) - 1)
    whole = draw_tile(image, mask.voxels, window, "axial", int(index[2]), side)
    _frame(whole, _to_pixels(whole, image, "axial", near.to_mm(np.array([[0.0] * 3, np.array(near.shape) - 1.0]))))
    tiles = []
    for plane in PLANES:
        at = int((index - np.rint(image.to_index(near.affine[:3, 3])))[ACROSS[plane]])
        tile = _draw_smooth_tile(near, near_mask.voxels, window, plane, at, side)
        _write_letters(tile, orientation_letters(near.affine, plane))
        _point_at(tile, _to_pixels(tile, near, plane, corners), cut(near_mask.voxels, plane, at) > 0)
        _draw_scale(tile, tile.width / plane_size_mm(near.shape, near.spacing_mm(), plane)[0])
        tiles.append([tile])
    return arrange_columns([[whole], *tiles], ["overview", *map(str, PLANES)])


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
    tiles = [[draw_tile(image, mask, window, "axial", level, side)] for mask in masks]
    return arrange_columns(tiles, ["reference", "predicted"])


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
    tiles = [[draw_tile(image, over, window, plane, indices[ACROSS[plane]], 320, colours)] for plane in PLANES]
    return arrange_columns(tiles, [str(plane) for plane in PLANES])


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


def draw_tile(
    image: Volume,
    labels: Integer[np.ndarray, "i j k"] | None,
    window: Window,
    plane: Plane,
    index: int,
    side: int,
    colours: Mapping[int, Colour] | None = None,
) -> Image.Image:
    """Draws a plane of a RAS volume in its true proportions; the longest edge of the volume gets `side` pixels."""
    over = None if labels is None else cut(labels, plane, index)
    rgb = draw(cut(image.voxels, plane, index), window, over, colours)
    tile = _resize_plane(rgb, image.shape, image.spacing_mm(), plane, side)
    _write_letters(tile, orientation_letters(image.affine, plane))
    return tile


def _draw_smooth_tile(
    image: Volume, labels: Integer[np.ndarray, "i j k"], window: Window, plane: Plane, index: int, side: int
) -> Image.Image:
    """Draws a plane with interpolated grey values and, without a fill, the outlines of its labels."""
    over = cut(labels, plane, index)
    size = _resize_plane(np.zeros((*over.shape, 3), np.uint8), image.shape, image.spacing_mm(), plane, side).size
    values = np.asarray(cut(image.voxels, plane, index), np.float32)
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))
    wide = np.asarray(Image.fromarray(over.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(draw(smooth, window, wide, opacity=0))


def _to_pixels(tile: Image.Image, image: Volume, plane: Plane, points_mm: Float[np.ndarray, "n 3"]) -> Box:
    """Returns the box around points on a picture of a plane: left, top, right and bottom in pixels."""
    fractions = 1 - (image.to_index(points_mm) + 0.5) / np.array(image.shape)  # the screen shows each axis backwards
    x, y = (fractions[:, axis] * length for axis, length in zip(ALONG[plane], tile.size, strict=True))
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _draw_cross(tile: Image.Image, centre: tuple[float, float]) -> None:
    """Draws a cross that leaves its middle free."""
    pen, (x, y) = ImageDraw.Draw(tile), centre
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        pen.line([(x + 5 * dx, y + 5 * dy), (x + 14 * dx, y + 14 * dy)], fill=ARROW, width=2)


def _frame(tile: Image.Image, box: Box) -> None:
    ImageDraw.Draw(tile).rectangle(box, outline=ARROW, width=2)


def _point_at(tile: Image.Image, box: Box, mask: Bool[np.ndarray, "row column"]) -> None:
    """Draws an arrow to what a mask covers in a box, from the corner of the box with more space outside it."""
    x0, y0, x1, y1 = box
    x, dx = (x0, -1) if x0 > tile.width - x1 else (x1, 1)
    y, dy = (y0, -1) if y0 > tile.height - y1 else (y1, 1)
    path = [(x + part * ((x0 + x1) / 2 - x), y + part * ((y0 + y1) / 2 - y)) for part in np.linspace(0, 1, 50)]
    rows, columns = (n / length for n, length in zip(mask.shape, (tile.height, tile.width), strict=True))
    inside = [mask[min(int(b * rows), mask.shape[0] - 1), min(int(a * columns), mask.shape[1] - 1)] for a, b in path]
    x, y = path[inside.index(True)] if any(inside) else path[0]
    x, y = float(x) + 4 * dx, float(y) + 4 * dy
    pen = ImageDraw.Draw(tile)
    length = ARROW_PIXELS / math.sqrt(2)
    for colour, width in ((BACKGROUND, 6), (ARROW, 3)):
        pen.line([(x + dx * length, y + dy * length), (x + dx * 6, y + dy * 6)], fill=colour, width=width)
    pen.polygon([(x, y), (x + dx * 14, y + dy * 4), (x + dx * 4, y + dy * 14)], fill=ARROW, outline=BACKGROUND)


def _draw_scale(tile: Image.Image, pixels_per_mm: float) -> None:
    """Draws a bar of a round length, at most a third of the width, with its length in mm."""
    length_mm = next((mm for mm in SCALE_LENGTHS_MM if mm * pixels_per_mm <= tile.width / 3), SCALE_LENGTHS_MM[-1])
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(13)
    x, y, length = 12, tile.height - 14, length_mm * pixels_per_mm
    for colour, width in ((BACKGROUND, 6), (INK, 3)):
        pen.line([(x, y), (x + length, y)], fill=colour, width=width)
    pen.text((x, y - 6), f"{length_mm} mm", fill=INK, font=font, anchor="ld", stroke_width=2, stroke_fill=BACKGROUND)


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


def arrange_columns(columns: list[list[Image.Image]], titles: list[str]) -> Image.Image:
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
