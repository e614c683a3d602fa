"""Structures that were drawn on a series, and their label map: which one lies on top where several overlap."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from scipy import ndimage

from medssl.errors import InputWarning, Message
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

OUTLINES = re.compile(r"(external|body|skin|outline)([ _-]?(contour|outline|surface|\d+))?", re.IGNORECASE)


@runtime_checkable
class Structure(Protocol):
    """One structure of an annotation."""

    @property
    def name(self) -> str:
        """The name that was given to it."""

    @property
    def is_outline(self) -> bool:
        """Whether it is the outline of the body, which contains the others."""

    def find_fault(self, image: Volume) -> Message | None:
        """Returns why it cannot be drawn on the grid of an image; None if it can."""

    def draw(self, image: Volume) -> Bool[np.ndarray, "i j k"]:
        """Returns its voxels, with warnings about parts that are left out."""


@dataclass(frozen=True)
class _Shape:
    """The voxels of one class inside their bounding box."""

    value: int
    name: str
    is_outline: bool
    box: tuple[slice, ...]
    mask: Bool[np.ndarray, "i j k"]

    @property
    def num_voxels(self) -> int:
        return int(np.count_nonzero(self.mask))


def has_outline_name(name: str) -> bool:
    """Returns whether the name of a structure is one of those for the outline of the body."""
    return OUTLINES.fullmatch(name.strip()) is not None


def draw_structures(structures: Sequence[tuple[int, Structure]], image: Volume, priority: Sequence[int] = ()) -> Volume:
    """Draws structures as a label map on the grid of an image.

    Where classes overlap, those in `priority` lie on top, in this order. Below them a smaller class lies on a larger
    one, and the outline of the body lies at the bottom. Warnings name the classes that overlap, those without a voxel,
    and the structures that cannot be drawn.

    Args:
        structures: The class of each structure, and the structure; a class of 0 is not drawn.
        image: The image that they were drawn on.
        priority: Classes that lie on top of all others, the first one topmost.

    Raises:
        ReadRejected: If none of the structures can be drawn.
    """
    members: dict[int, list[Structure]] = {}
    faults: list[Message] = []
    for value, structure in structures:
        fault = structure.find_fault(image) if value else None
        if fault is not None:
            faults.append(Message("{name!r}: {fault}; it is left out", name=structure.name, fault=fault))
        elif value:
            members.setdefault(value, []).append(structure)
    if faults and not members:
        raise ReadRejected("geometry", faults[0])
    for message in faults:
        warnings.warn(message, InputWarning, stacklevel=2)
    shapes = [shape for value, parts in members.items() if (shape := _draw_class(value, parts, image))]
    dtype = np.uint8 if max(members, default=0) < 256 else np.uint16
    labels = np.zeros(image.shape, dtype)
    rank = {value: n for n, value in enumerate(priority)}
    names = {shape.value: shape.name for shape in shapes if not shape.is_outline}
    for shape in sorted(shapes, key=lambda s: (-rank.get(s.value, len(rank)), not s.is_outline, -s.num_voxels)):
        _paint(labels, shape, names)
    return Volume(labels, image.affine, "label")


def _draw_class(value: int, parts: Sequence[Structure], image: Volume) -> _Shape | None:
    """Draws the structures of one class; None, with a warning, if they have no voxel."""
    mask = parts[0].draw(image)
    for part in parts[1:]:
        mask = mask | part.draw(image)
    name, is_outline = parts[0].name, all(part.is_outline for part in parts)
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        message = Message("{name!r} (class {value}) has no voxel", name=name, value=value)
        warnings.warn(message, InputWarning, stacklevel=3)
        return None
    return _Shape(value, name, is_outline, boxes[0], mask[boxes[0]].copy())


def _paint(
    labels: UInt8[np.ndarray, "i j k"] | UInt16[np.ndarray, "i j k"], shape: _Shape, names: Mapping[int, str]
) -> None:
    """Paints a class over those below it, and warns of the voxels that it covers, unless they are of an outline."""
    region = labels[shape.box]
    hidden, counts = np.unique(region[shape.mask], return_counts=True)
    for value, count in zip(hidden, counts, strict=True):
        if int(value) in names:
            message = Message(
                "{name!r} (class {value}) covers {count} voxels of {other!r} (class {other_value})",
                name=shape.name,
                value=shape.value,
                count=int(count),
                other=names[int(value)],
                other_value=int(value),
            )
            warnings.warn(message, InputWarning, stacklevel=3)
    region[shape.mask] = shape.value
