"""Reads segmentations of 3D Slicer (.seg.nrrd): named segments, in one layer or, where they overlap, in several."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.errors import BadInput, InputWarning, Message
from medssl.io.text_headers import nrrd
from medssl.io.voxel_files import MAX_HEADER_BYTES
from medssl.io.voxels import list_label_values
from medssl.volume import Volume

FIELD = re.compile(rb"^Segment(\d+)_(Name|LabelValue|Layer):=(.*?)\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Segment:
    """One structure of a segmentation: the voxels that have its value in its layer."""

    name: str
    value: int
    layer: int


def is_segmentation(path: Path) -> bool:
    """Whether the ending of a file name is that of a segmentation of 3D Slicer."""
    return path.name.lower().endswith(".seg.nrrd")


def read_segments(path: Path) -> tuple[Segment, ...]:
    """Returns the segments that the header of a .seg.nrrd names; none if it is no such file."""
    try:
        with path.open("rb") as file:
            head = file.read(MAX_HEADER_BYTES).partition(b"\n\n")[0]
    except OSError:
        return ()
    fields: dict[int, dict[str, str]] = {}
    for number, key, value in FIELD.findall(head):
        fields.setdefault(int(number), {})[key.decode()] = value.decode("utf-8", "replace").strip()
    try:
        return tuple(
            Segment(entry.get("Name") or f"Segment {n}", int(entry.get("LabelValue", 1)), int(entry.get("Layer", n)))
            for n, entry in sorted(fields.items())
        )
    except ValueError:
        return ()


def read_segment(path: Path, segment: Segment) -> Volume:
    """Reads one segment as a label of 0 and 1.

    Raises:
        BadInput: The file is damaged, its geometry is incomplete, or it has no such layer.
    """
    layers = nrrd.read_layers(path)
    if not 0 <= segment.layer < len(layers):
        raise BadInput(
            Message(
                "{path}: a segment lies in layer {layer} of {count}; save the segmentation again",
                path=path,
                layer=segment.layer,
                count=len(layers),
            )
        )
    segments = read_segments(path)
    if segment in segments[:1]:
        _warn_of_unnamed_voxels(path, layers, segments)
    layer = layers[segment.layer]
    return Volume((layer.voxels == segment.value).astype(np.uint8), layer.affine, "label")


def _warn_of_unnamed_voxels(path: Path, layers: Sequence[Volume], segments: Sequence[Segment]) -> None:
    """Warns of voxels that belong to no segment, as in a layer that the header does not list."""
    named = {(segment.layer, segment.value) for segment in segments}
    values = [(n, value) for n, layer in enumerate(layers) for value in list_label_values(layer.voxels) if value]
    if unnamed := [pair for pair in values if pair not in named]:
        message = Message(
            "{path.name}: {count} values belong to none of its segments and are left out; save the segmentation again",
            path=path,
            count=len(unnamed),
        )
        warnings.warn(message, InputWarning, stacklevel=3)
