"""Reads the label of a case on the grid of its image."""

import warnings
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from medssl.data.ingest.source import LabelPart, Source
from medssl.errors import BadInput, InputWarning, Message, as_message
from medssl.io import images, slicer_segmentation
from medssl.io.dicom import annotations
from medssl.io.dicom.structures import draw_structures
from medssl.io.voxels import list_label_values
from medssl.volume import Volume


def read_label(source: Source, image: Volume) -> Volume:
    """Reads the label of a case; the objects of an instance mask become their class.

    A label of the whole scan fills it with its class.

    Raises:
        BadInput: The label is not on the grid of the image, or holds classes that the data set does not declare.
    """
    if source.whole_class is not None:
        return Volume(np.full(image.shape, source.whole_class, np.int16), image.affine, "label")
    if source.label is None:
        raise BadInput(f"{source.id}: has no label")
    if source.series is not None:
        return _read_structures(source, image)
    if source.label_parts:
        return _merge_parts(source, image)
    label = images.read(source.label, label=True)
    require_same_grid(label, image, Message("label {name}", name=source.label.name))
    values = list_label_values(label.voxels)
    if source.instances is not None:
        return _instances_to_classes(label, values, source.instances)
    unknown = sorted(set(values) - {0, *source.classes})
    if source.classes and unknown:
        raise BadInput(
            Message(
                "label {name} holds classes {unknown}, dataset.json declares {declared}",
                name=source.label.name,
                unknown=unknown,
                declared=list(source.classes),
            )
        )
    return label


def require_same_grid(volume: Volume, image: Volume, name: Message) -> None:
    """Raises BadInput if a volume does not lie on the grid of an image."""
    try:
        volume.require_same_grid(image)
    except ValueError as error:
        reason = as_message(error.args[0])
        raise BadInput(Message("{name} does not lie on its image's grid: {reason}", name=name, reason=reason)) from None


def _read_structures(source: Source, image: Volume) -> Volume:
    """Draws the structures of a DICOM annotation with the classes that their names have in the whole data set."""
    files = [path for path in (source.label, *source.annotations) if path]
    structures = [structure for path in files for structure in annotations.read(path).structures]
    return draw_structures(list(zip(source.classes, structures, strict=True)), image, source.priority)


def _merge_parts(source: Source, image: Volume) -> Volume:
    """Merges the named structures of a label; where two overlap, the smaller one is kept."""
    masks = [
        (part, number, _read_part(part, image)) for part, number in zip(source.label_parts, source.classes, strict=True)
    ]
    merged = np.zeros(image.shape, np.int16)
    num_overlaps = 0
    for _, number, mask in sorted(masks, key=lambda item: -int(np.count_nonzero(item[2]))):
        num_overlaps += int(np.count_nonzero(merged[mask]))
        merged[mask] = number
    if num_overlaps:
        warnings.warn(
            Message("structures overlap in {count} voxels; the smaller one is kept there", count=num_overlaps),
            InputWarning,
            stacklevel=2,
        )
    return Volume(merged, image.affine, "label")


def _read_part(part: LabelPart, image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Reads the voxels of one structure."""
    if slicer_segmentation.is_segmentation(part.path) and part.value is not None:
        segment = slicer_segmentation.Segment(part.name, part.value, part.layer)
        label = slicer_segmentation.read_segment(part.path, segment)
        value = None
    else:
        label, value = images.read(part.path, label=True), part.value
    require_same_grid(label, image, Message("label {name}", name=part.path.name))
    values = set(list_label_values(label.voxels)) - {0}
    if value is None and len(values) > 1:
        raise BadInput(
            Message(
                "label {name} holds the values {values}, a file of one structure holds one; choose labels with --label",
                name=part.path.name,
                values=sorted(values),
            )
        )
    return label.voxels != 0 if value is None else label.voxels == value


def _instances_to_classes(label: Volume, values: list[int], instances: tuple[int, ...]) -> Volume:
    if set(values) - {0} != set(range(1, len(instances) + 1)):
        raise BadInput(
            Message(
                "the mask holds instances {values}, dataset.json lists {count}", values=values, count=len(instances)
            )
        )
    return replace(label, voxels=np.array([0, *instances], np.int16)[label.voxels])
