"""Infers the patients of image files from their folders."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from medssl.data.ingest.layouts.evidence import IMAGE_WORDS, LABEL_WORDS, PART_WORDS, split_words

SESSION = re.compile(
    r"(ses|session|visit|tp|timepoint|time|baseline|follow-?up|pre|post|day|week|month|year|study|series|exam|anat|"
    r"nifti|nii|dicom|dcm|t)[-_ ]?\d*|\d{1,2}|\d{4}[-_.]?\d{2}[-_.]?\d{2}.*",
    re.IGNORECASE,
)


def infer_patients(places: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    """Returns the patient of each image, named by its folder, or an empty text where folders do not tell patients.

    Folders are those of patients if there are several of them and images of one name are in more than one, if each
    holds one image, or if images are named after their folder. Folders of sessions (ses-1, 2020-01-31) and of kinds of
    files (images, CT) belong to the folder above them.

    Args:
        places: The folders, from the top, and the name of each image.
    """
    levels = zip(*(parts for parts, _ in places), strict=False)
    num_common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = [_strip_sessions(parts[num_common:]) for parts, _ in places]
    groups: dict[str, set[str]] = {}
    for folder, (_, name) in zip(folders, places, strict=True):
        groups.setdefault(folder, set()).add(name)
    sizes = Counter(folders)
    if len(groups) < 2 or "" in groups:
        return [""] * len(places)
    holders = Counter(name for names in groups.values() for name in names)
    is_repeated = any(count > 1 for count in holders.values())
    is_single = max(sizes.values()) == 1
    is_named = all(
        name.startswith(folder.rpartition("/")[2]) for folder, (_, name) in zip(folders, places, strict=True)
    )
    return folders if is_repeated or is_single or is_named else [""] * len(places)


def _strip_sessions(parts: tuple[str, ...]) -> str:
    """Returns the folder of a patient: the path without the last folders of sessions or kinds of files."""
    while parts and _is_kind(parts[-1]):
        parts = parts[:-1]
    if len(parts) > 1 and SESSION.fullmatch(parts[-1]) and not _is_kind(parts[-2]):
        return _strip_sessions(parts[:-1])
    return "/".join(parts)


def _is_kind(folder: str) -> bool:
    """Whether a folder is named after a kind of file, such as images or labelsTr."""
    words = split_words(folder)
    return bool(words) and set(words) <= IMAGE_WORDS | LABEL_WORDS | PART_WORDS
