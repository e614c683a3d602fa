"""Lists and opens files in folders and in zip archives; a member has the path archive.zip/member."""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path, PurePosixPath

from medssl.errors import BadInput, Message
from medssl.io.rejected import ReadRejected, RejectedFiles

MAX_MEMBER_BYTES = 2 << 30
MAX_ARCHIVE_BYTES = 64 << 30
BOMB_RATIO, BOMB_BYTES = 200, 64 << 20


def walk_files(source: Path | Sequence[Path]) -> Iterator[Path | RejectedFiles]:
    """Lists every file of a folder and every member of its archives; links are listed and never followed.

    Args:
        source: A folder, a file, or a list of files.

    Yields:
        The path of a file or a member, or an archive that was rejected.
    """
    for path in _list_files(source) if isinstance(source, Path) else source:
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK) or not _is_zip(path):
            yield path
            continue
        try:
            yield from _list_members(path)
        except ReadRejected as error:
            yield RejectedFiles((path,), Message("{path.name}: {reason}", path=path, reason=error.message), error.code)


@contextmanager
def open_file(path: Path) -> Iterator[BufferedIOBase]:
    """Opens a regular file or a member of an archive as a seekable stream."""
    try:
        archive = next((p for p in path.parents if p.is_file()), None)
        if archive is not None:
            yield BytesIO(_unpack(archive, str(path.relative_to(archive))))
            return
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode):
            raise ReadRejected("not-a-file", Message("a link, pipe or device, not a file; copy the file itself"))
        if state.st_size == 0:
            raise ReadRejected("not-a-file", Message("empty"))
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ReadRejected("unreadable", Message("cannot be opened ({strerror})", strerror=error.strerror)) from None


def _list_files(folder: Path) -> Iterator[Path]:
    """Lists the files and links below a folder in a fixed order."""
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise BadInput(Message("{folder}: no such folder; give the folder that holds the DICOM files", folder=folder))
    for root, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from (Path(root) / name for name in sorted(names + links))


def _is_zip(path: Path) -> bool:
    """Returns whether a file starts like a zip archive."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _list_members(path: Path) -> Iterator[Path]:
    """Lists the files of an archive; rejects archives with harmful sizes or names."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ReadRejected("archive", Message("a damaged archive ({error})", error=error)) from None
    total = sum(m.file_size for m in members)
    packed = max(1, sum(m.compress_size for m in members))
    if total > MAX_ARCHIVE_BYTES or any(m.file_size > MAX_MEMBER_BYTES for m in members):
        raise ReadRejected("archive", Message("unpacks to {total} bytes, more than can be read; split it", total=total))
    if total > BOMB_BYTES and total > BOMB_RATIO * packed:
        raise ReadRejected("archive", Message("unpacks to {ratio} times its size: a zip bomb", ratio=total // packed))
    if len({m.filename for m in members}) < len(members):
        raise ReadRejected("archive", Message("holds two files with one name"))
    if any(".." in PurePosixPath(m.filename).parts or m.filename.startswith("/") for m in members):
        raise ReadRejected("archive", Message("holds a path that leads out of the archive"))
    if any(m.flag_bits & 1 for m in members):
        raise ReadRejected("archive", Message("encrypted; unpack it first"))
    return (path / m.filename for m in members)


def _unpack(archive: Path, name: str) -> bytes:
    """Unpacks one member of an archive into memory, up to the size limit."""
    try:
        with zipfile.ZipFile(archive) as zipped, zipped.open(name) as member:
            content = member.read(MAX_MEMBER_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise ReadRejected("archive", Message("cannot be unpacked ({error})", error=error)) from None
    if len(content) > MAX_MEMBER_BYTES:
        raise ReadRejected("too-big", Message("unpacks to more than {limit} GiB", limit=MAX_MEMBER_BYTES >> 30))
    return content
