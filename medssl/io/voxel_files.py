"""Finds the voxel files of images in two files: pairs of NIfTI, and detached headers of MetaImage and NRRD."""

import re
from pathlib import Path

from medssl.errors import BadInput, Message

MAX_HEADER_BYTES = 1 << 16
PAIR_ENDINGS = (".img", ".img.gz")
DATA_FILE = {
    ".mhd": re.compile(rb"^\s*ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE),
    ".nhdr": re.compile(rb"^data ?file:\s*(.+?)\s*$", re.MULTILINE),
}


def list_voxel_files(path: Path) -> tuple[Path, ...]:
    """Returns the files in the same folder with the voxels of a header; none for files that hold their own voxels."""
    ending = path.suffix.lower()
    if ending == ".hdr":
        return tuple(_list_pair_files(path))
    if ending not in DATA_FILE:
        return ()
    try:
        with path.open("rb") as file:
            match = DATA_FILE[ending].search(file.read(MAX_HEADER_BYTES))
    except OSError:  # reading the image explains it
        return ()
    name = match[1].decode("utf-8", "surrogateescape") if match else ""
    is_beside = name and Path(name).name == name and "\0" not in name
    return (path.with_name(name),) if is_beside and path.with_name(name).is_file() else ()


def find_pair_file(path: Path) -> Path:
    """Returns the voxel file of the header of a NIfTI pair.

    Raises:
        BadInput: If there is none, or more than one.
    """
    files = _list_pair_files(path)
    if len(files) != 1 or files[0].is_symlink():
        raise BadInput(Message(
            "{path}: {count} files of its name end in .img or .img.gz; one must lie in the same folder",
            path=path, count=len(files),
        ))  # fmt: skip
    return files[0]


def _list_pair_files(path: Path) -> list[Path]:
    endings = [ending.upper() for ending in PAIR_ENDINGS] if path.suffix.isupper() else PAIR_ENDINGS
    return [file for file in (path.with_suffix(ending) for ending in endings) if file.is_file()]
