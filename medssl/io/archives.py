"""Files in folders and in zip archives, opened alike; an archive's member is the path archive.zip/member."""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path, PurePosixPath

from medssl.errors import BadInput
from medssl.io.rejected import Refusal, Refused

MEMBER_BYTES = 2 << 30
ARCHIVE_BYTES = 64 << 30
BOMB_RATIO, BOMB_BYTES = 200, 64 << 20


def walk(source: Path | Sequence[Path]) -> Iterator[Path | Refused]:
    """Every file of a folder (or a file, or a list of them), archives opened; links are listed, never followed."""
    for path in _below(source) if isinstance(source, Path) else source:
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK) or not _is_zip(path):
            yield path
            continue
        try:
            yield from _members(path)
        except Refusal as refusal:
            yield Refused((path,), f"{path.name}: {refusal}", refusal.code)


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """A regular file, or a member of an archive, as a stream that can be sought."""
    try:
        archive = next((p for p in path.parents if p.is_file()), None)
        if archive is not None:
            yield BytesIO(_unpacked(archive, str(path.relative_to(archive))))
            return
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode):
            raise Refusal("not-a-file", "a link, pipe or device, not a file; copy the file itself")
        if state.st_size == 0:
            raise Refusal("not-a-file", "empty")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Refusal("unreadable", f"cannot be opened ({error.strerror})") from None


def _below(folder: Path) -> Iterator[Path]:
    """Every entry below a folder that is not a folder itself."""
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the DICOM files")
    for root, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from (Path(root) / name for name in sorted(names + links))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _members(path: Path) -> Iterator[Path]:
    """The files of an archive, unless their declared sizes or names show ill will."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise Refusal("archive", f"a damaged archive ({error})") from None
    total = sum(m.file_size for m in members)
    packed = max(1, sum(m.compress_size for m in members))
    if total > ARCHIVE_BYTES or any(m.file_size > MEMBER_BYTES for m in members):
        raise Refusal("archive", f"unpacks to {total} bytes, more than is read; split it")
    if total > BOMB_BYTES and total > BOMB_RATIO * packed:
        raise Refusal("archive", f"unpacks to {total // packed} times its size: a zip bomb")
    if len({m.filename for m in members}) < len(members):
        raise Refusal("archive", "holds two files of one name")
    if any(".." in PurePosixPath(m.filename).parts or m.filename.startswith("/") for m in members):
        raise Refusal("archive", "holds a path that leads out of it")
    if any(m.flag_bits & 1 for m in members):
        raise Refusal("archive", "encrypted; unpack it first")
    return (path / m.filename for m in members)


def _unpacked(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(name) as member:
            content = member.read(MEMBER_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise Refusal("archive", f"cannot be unpacked ({error})") from None
    if len(content) > MEMBER_BYTES:
        raise Refusal("too-big", f"unpacks to more than {MEMBER_BYTES >> 30} GiB")
    return content
