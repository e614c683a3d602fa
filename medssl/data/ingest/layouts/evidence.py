"""Evidence that a file is a label map and no scan: its name, its folders and its values."""

import re
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medssl.errors import BadInput
from medssl.io.image_headers import ImageHeader
from medssl.io.slabs.read_on_disk import read_on_disk
from medssl.io.slicer_segmentation import is_segmentation

LABEL_WORDS = {
    "seg", "segs", "segmentation", "segmentations", "mask", "masks", "label", "labels", "labelmap", "labelmaps", "dseg",
    "probseg", "gt", "truth", "groundtruth", "annotation", "annotations", "aseg", "aparc", "aparcaseg",
}  # fmt: skip
WEAK_WORDS = {"gt", "truth", "groundtruth"}  # also of images that others are compared with: the values decide
IMAGE_WORDS = {
    "image", "images", "img", "imgs", "imaging", "scan", "scans", "volume", "volumes", "vol", "raw", "data", "ct", "mr",
    "mri", "pet", "pt", "cta", "cbct",
}  # fmt: skip
PART_WORDS = {"tr", "ts", "train", "test", "val", "final", "original"}
FEW_VALUES, MAX_VALUES = 8, 256  # at most this many values make a label map: whatever their places, if in large patches
MAX_EDGE_FRACTION = 0.4  # of the neighbouring voxels that are not both 0, those that differ
DENSE_BYTES = 0.25  # per voxel; a compressed file of more is no label map
MAX_SAMPLED_PLANES = 64


def split_words(name: str) -> list[str]:
    """Splits a file or folder name into lower-case words without trailing digits: "lung_Seg2" is lung, seg."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [re.sub(r"\d+$", "", word) or word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word]
    return words


def image_stem(path: Path) -> str:
    """Returns the name of a file without the ending of an image."""
    return re.sub(r"(\.seg)?\.(nii|nii\.gz|hdr|mgh|mgz|nrrd|nhdr|mha|mhd)$", "", path.name, flags=re.IGNORECASE)


def is_label_name(path: Path, root: Path) -> bool:
    """Whether the name of a file, or the nearest folder with a telling name, is that of a label and of nothing else."""
    words_of_labels = LABEL_WORDS - WEAK_WORDS
    if is_segmentation(path) or not words_of_labels.isdisjoint(split_words(image_stem(path))):
        return True
    for folder in reversed(path.relative_to(root).parts[:-1]):
        words = split_words(folder)
        if words and words[-1] in PART_WORDS:
            words = words[:-1] or words
        if words and words[-1] in IMAGE_WORDS:
            return False
        if words and words[-1] in words_of_labels:
            return True
    return False


def has_label_values(path: Path, header: ImageHeader | None) -> bool:
    """Whether the voxels of an image file are those of a label map: few whole numbers from 0, in patches.

    A compressed file with much information per voxel is not read.
    """
    if header is None or header.num_volumes != 1:
        return False
    is_compressed = header.bytes_per_voxel < 1 and path.suffix != ".nii"
    if is_compressed and header.bytes_per_voxel > DENSE_BYTES and np.prod(header.shape) > 1 << 20:
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            return looks_like_label(read_on_disk(path).voxels)
    except BadInput:
        return False  # reading the case says why


def looks_like_label(voxels: Shaped[np.ndarray, "i j k"]) -> bool:
    """Whether voxels are few whole numbers from 0, and most neighbours are equal; a constant volume is no label."""
    sample = voxels[..., :: -(-voxels.shape[-1] // MAX_SAMPLED_PLANES)]
    if sample.min() < 0 or sample.max() > np.iinfo(np.int16).max or (sample != np.rint(sample)).any():
        return False
    num_values = np.count_nonzero(np.bincount(sample.ravel().astype(np.int64)))
    if num_values == 1 or num_values > MAX_VALUES:
        return False
    if num_values <= FEW_VALUES:
        return True
    a, b = sample[:-1], sample[1:]
    is_foreground = (a != 0) | (b != 0)
    return bool((a != b)[is_foreground].mean() < MAX_EDGE_FRACTION)
