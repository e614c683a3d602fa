"""Finds the modality of an image: what names state, and whether the values contradict them."""

import re
import warnings
from typing import Literal

import numpy as np

from medssl.arrays.disk_arrays import iterate_slabs
from medssl.errors import InputWarning, Message
from medssl.volume import Volume

PATTERNS = {
    "CT": r"(cb|nc|ce|ld|hr|cc)?ct(a|pa|ac|scan|angio\w*)?|tomography|hu",
    "PT": r"(petscan|pet|pt|suv(bw)?|psma|fdg)",
    "MR": r"mr(i|a)?|t[12]([a-z]+)?|flair|dwi|adc|dce|pdw?|swi|bold|resonance|mprage",
}
ModalityName = Literal["CT", "MR", "PT", ""]
NAMES = {"MR": Message("MR"), "PT": Message("PT")}
LOWEST_MR = -200  # values at or below it are Hounsfield units
AIR_HU = (-1100, -900)
MIN_AIR_FRACTION = 0.02  # of the voxels that are air in an image that has it


def parse_modality(name: str) -> ModalityName:
    """Returns the modality that a name states, such as CT for "noncontrast CT" and "CBCT".

    It is empty for a name that states none, or two ("PET and CT").
    """
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    stated = [m for m, pattern in PATTERNS.items() if any(re.fullmatch(pattern, word) for word in words)]
    match stated:
        case ["CT"]:
            return "CT"
        case ["PT"]:
            return "PT"
        case ["MR"]:
            return "MR"
    return ""


def check_modality(name: str, volume: Volume) -> str:
    """Returns the modality of an image file, and warns where it is guessed, or contradicts the values.

    Args:
        name: The modality that a description or a name states; empty if none does.
        volume: The image.
    """
    lowest = min(float(volume.voxels[slab].min()) for slab in iterate_slabs(volume.voxels))
    if not name:
        modality = Message("CT") if lowest <= LOWEST_MR else Message("MR")
        _warn(
            Message(
                "modality not given; assumed to be {modality} because the lowest value is {lowest:g} (set it with "
                "--modality)",
                modality=modality,
                lowest=lowest,
            )
        )
        return str(modality)
    if name == "CT" and lowest >= 0:
        _warn(
            Message(
                "named a CT, but its lowest value is {lowest:g}: air is -1000 HU; check its rescale, or set --modality",
                lowest=lowest,
            )
        )
    if name != "CT" and lowest <= LOWEST_MR and _has_air(volume):
        _warn(
            Message(
                "named {modality}, but its values go down to {lowest:g}, as HU of air do; for a CT set --modality",
                modality=NAMES.get(name, name),
                lowest=lowest,
            )
        )
    return name


def _has_air(volume: Volume) -> bool:
    """Whether many voxels have the value of air in HU."""
    slabs = (volume.voxels[slab] for slab in iterate_slabs(volume.voxels))
    num_air = sum(int(np.count_nonzero((values >= AIR_HU[0]) & (values <= AIR_HU[1]))) for values in slabs)
    return num_air >= MIN_AIR_FRACTION * volume.voxels.size


def _warn(message: Message) -> None:
    warnings.warn(message, InputWarning, stacklevel=4)
