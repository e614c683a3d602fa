"""Lists the studies whose DICOM images lie in a folder that other programs fill."""

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread

from medssl.files import PART_PREFIX

MODALITIES = ("CT", "MR", "PT")
TAGS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "BodyPartExamined"]


@dataclass(frozen=True)
class InboxFile:
    """A DICOM image in the folder.

    Args:
        path: The file.
        study: The StudyInstanceUID.
        instance: The SOPInstanceUID.
        modality: The Modality.
        body_part: The BodyPartExamined; empty if the file does not state it.
        changed_at: When the file was changed or got its name, in seconds since 1970.
    """

    path: Path
    study: str = field(repr=False)
    instance: str = field(repr=False)
    modality: str
    body_part: str
    changed_at: float


@dataclass(frozen=True)
class InboxStudy:
    """The images of one study.

    Args:
        uid: The StudyInstanceUID.
        files: Its images, each SOP instance once.
    """

    uid: str = field(repr=False)
    files: tuple[InboxFile, ...] = field(repr=False)

    @property
    def instances(self) -> frozenset[str]:
        """The SOPInstanceUIDs, which become more when the study grows, and not when a file comes again."""
        return frozenset(file.instance for file in self.files)

    @property
    def version(self) -> str:
        """A hash of the SOPInstanceUIDs."""
        return hashlib.sha256("\n".join(sorted(self.instances)).encode()).hexdigest()

    @property
    def changed_at(self) -> float:
        """When the last of its files arrived, in seconds since 1970."""
        return max(file.changed_at for file in self.files)

    def select(self, modalities: Iterable[str] = (), body_parts: Iterable[str] = ()) -> tuple[Path, ...]:
        """Returns the files of the given modalities and body parts; empty accepts all."""
        modalities, body_parts = set(modalities), {part.upper() for part in body_parts}
        return tuple(
            file.path
            for file in self.files
            if (not modalities or file.modality in modalities) and (not body_parts or file.body_part in body_parts)
        )


class StudyInbox:
    """A folder of DICOM files, of which each header is read once.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, tuple[tuple[int, int], InboxFile | None]] = {}

    def list_studies(self) -> list[InboxStudy]:
        """Returns the studies with images, ordered by when they were complete."""
        files: dict[Path, tuple[tuple[int, int], InboxFile | None]] = {}
        for path in self._list_paths():
            try:
                state = path.stat()
            except OSError:  # removed meanwhile
                continue
            if not stat.S_ISREG(state.st_mode):
                continue
            version = state.st_size, state.st_mtime_ns
            earlier = self._files.get(path)
            files[path] = earlier if earlier and earlier[0] == version else (version, _read_file(path))
        self._files = files
        return sorted(_group_by_study(files), key=lambda study: study.changed_at)

    def _list_paths(self) -> list[Path]:
        """Returns the files that are not being written; folders may vanish meanwhile."""
        paths = []
        for root, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if not name.startswith(PART_PREFIX)]
            paths += [Path(root, name) for name in names if not name.startswith(PART_PREFIX)]
        return sorted(paths)


def _group_by_study(files: Mapping[Path, tuple[tuple[int, int], InboxFile | None]]) -> Iterable[InboxStudy]:
    studies: dict[str, dict[str, InboxFile]] = {}
    for _, file in files.values():
        if file:
            studies.setdefault(file.study, {}).setdefault(file.instance, file)
    return (InboxStudy(uid, tuple(instances.values())) for uid, instances in studies.items())


def _read_file(path: Path) -> InboxFile | None:
    """Returns an image of CT, MR or PET; None for other files, and for one that is still being written."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about details of DICOM, with private values
            data = dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            study, instance, modality, body_part = (
                str(data.get(tag) or "").strip() for tag in (TAGS[0], TAGS[2], TAGS[3], TAGS[4])
            )
            state = path.stat()
    except Exception:  # the parser of a damaged file can raise any exception
        return None
    if not study or not instance or modality not in MODALITIES:
        return None
    return InboxFile(path, study, instance, modality, body_part.upper(), max(state.st_mtime, state.st_ctime))
