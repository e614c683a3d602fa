"""Cuts axial, coronal and sagittal planes in radiological convention: the patient's right is on the left."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from scipy import ndimage

from medssl.render.windows import Window
from medssl.volume import AXES

Plane = Literal["axial", "coronal", "sagittal"]
Colour = tuple[int, int, int]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
# Which axis of a RAS volume a plane is cut across, and which run along the screen's x and y. Every axis is drawn
# backwards: R, A and S lie at the left or the top of the screen.
ACROSS: dict[Plane, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
ALONG: dict[Plane, tuple[int, int]] = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
LABEL_COLOURS: tuple[Colour, ...] = (
    (255, 176, 59), (77, 208, 225), (240, 98, 146), (174, 213, 129),
    (149, 117, 205), (255, 241, 118), (100, 181, 246), (255, 138, 101),
)  # fmt: skip
HIDDEN: Colour = (28, 38, 52)


def cut(voxels: Shaped[np.ndarray, "i j k"], plane: Plane, index: int) -> Shaped[np.ndarray, "row column"]:
    """Returns the voxels of one plane of a RAS volume in screen order, without interpolation."""
    return voxels.take(index, axis=ACROSS[plane]).T[::-1, ::-1]


def draw(
    values: Shaped[np.ndarray, "row column"],
    window: Window,
    labels: Integer[np.ndarray, "row column"] | None = None,
    colours: Mapping[int, Colour] | None = None,
    opacity: float = 0.35,
) -> UInt8[np.ndarray, "row column 3"]:
    """Returns a plane in grey with its labels filled and outlined; NaN is drawn in the colour HIDDEN."""
    hidden = np.isnan(values)
    rgb = np.repeat(window.to_grey(np.nan_to_num(values))[..., None], 3, axis=-1)
    rgb[hidden] = HIDDEN
    if labels is None:
        return rgb
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        colour = np.array((colours or {}).get(int(label), default_colour(int(label))), np.float64)
        rgb[inside] = np.rint(rgb[inside] * (1 - opacity) + colour * opacity)
        rgb[outline(inside)] = colour
    return rgb


def default_colour(label: int) -> Colour:
    """Returns the colour of a label for which none is set."""
    return LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]


def outline(inside: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """Returns the pixels of a mask that share an edge with the background."""
    return inside & ~ndimage.binary_erosion(inside, border_value=1)


def plane_size_mm(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], plane: Plane
) -> tuple[float, float]:
    """Returns the width and the height of a plane in mm."""
    x, y = ALONG[plane]
    return shape[x] * spacing_mm[x], shape[y] * spacing_mm[y]


def orientation_letters(affine: Float[np.ndarray, "4 4"], plane: Plane) -> tuple[str, str, str, str]:
    """Returns the letters at the left, right, top and bottom of the screen; two letters each if oblique."""
    x, y = (affine[:3, axis] for axis in ALONG[plane])
    return _format_direction(x), _format_direction(-x), _format_direction(y), _format_direction(-y)


def _format_direction(direction: Float[np.ndarray, "3"]) -> str:
    unit = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(unit), kind="stable")[:2]
    return "".join(AXES[axis][int(unit[axis] > 0)] for n, axis in enumerate(order) if n == 0 or abs(unit[axis]) > 0.3)
