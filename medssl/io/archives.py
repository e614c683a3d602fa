"""Opens files of their own and members of zip and tar archives; a member has the path archive.zip/member."""

import gzip
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase, BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from isal import igzip
from isal.igzip_lib import IsalError

from medssl.errors import BadInput, Message
from medssl.io.rejected import ReadRejected

MAX_MEMBER_BYTES = 2 << 30
MAX_ARCHIVE_BYTES = 64 << 30
BOMB_RATIO, BOMB_BYTES = 200, 64 << 20
READ_BYTES = 16 << 20
GZIP, ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # the first bytes of the ._ files that macOS writes beside others
TAR_NAMES = re.compile(r"\.(tar|tgz|tar\.gz)$", re.IGNORECASE)
ARCHIVE_NAMES = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
DAMAGES = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, KeyError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class FileOpener:
    """Opens files and members of archives; each archive stays open, and its list is read once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._archives: dict[Path, _Archive] = {}

    def __enter__(self) -> "FileOpener":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open_archive(self, path: Path) -> "_Archive":
        """Returns an open archive, which is closed with this object."""
        if path not in self._archives:
            self._archives[path] = _open_archive(path, self._stack)
        return self._archives[path]

    @contextmanager
    def open(self, path: Path, gunzip: bool = True) -> Iterator[BufferedIOBase]:
        """Opens a regular file, the file that a link points to, or a member of an archive as a seekable stream.

        Args:
            path: The file.
            gunzip: Whether a gzipped file is unpacked, up to a limit.
        """
        try:
            archive = find_archive(path)
            if archive is not None:
                content = self.open_archive(archive).read(path.relative_to(archive).as_posix())
                yield BytesIO(_gunzip(content, path) if gunzip and content[:2] == GZIP else content)
                return
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                raise ReadRejected("not-a-file", Message("a pipe or device, not a file; copy the file itself"))
            if state.st_size == 0:
                raise ReadRejected("not-a-file", Message("empty; copy the file again"))
            with path.open("rb") as file:
                is_gzip = gunzip and file.read(2) == GZIP
                file.seek(0)
                yield BytesIO(_gunzip(file.read(MAX_MEMBER_BYTES), path)) if is_gzip else file
        except OSError as error:
            raise ReadRejected(
                "unreadable", Message("cannot be opened ({strerror})", strerror=error.strerror)
            ) from None


@contextmanager
def open_file(path: Path, gunzip: bool = True) -> Iterator[BufferedIOBase]:
    """Opens one file or member of an archive as a seekable stream; see `FileOpener` for many."""
    with FileOpener() as opener, opener.open(path, gunzip) as file:
        yield file


@contextmanager
def open_stream(path: Path) -> Iterator[BufferedIOBase]:
    """Opens a file or a member of an archive as uncompressed bytes; reading past its end verifies its checksum.

    isal needs half the time of the gzip module.
    """
    if not exists(path):
        raise BadInput(Message("{path}: no such file", path=path))
    try:
        with open_file(path, gunzip=False) as file:
            is_gzip = file.read(2) == GZIP
            file.seek(0)
            try:
                yield igzip.GzipFile(fileobj=file) if is_gzip else file
            except (OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # its stub calls it a variable
                raise BadInput(
                    Message("{path}: truncated or damaged ({error}); copy the file again", path=path, error=error)
                ) from None
    except ReadRejected as error:
        raise BadInput(Message("{path}: {reason}", path=path, reason=error.message)) from None


def find_archive(path: Path) -> Path | None:
    """Returns the archive that a path is a member of; None for a file of its own."""
    return None if os.path.lexists(path) else next((parent for parent in path.parents if parent.is_file()), None)


def list_members(path: Path) -> list[Path]:
    """Returns the files in an archive named as one; none for other files and for archives that cannot be read."""
    if not ARCHIVE_NAMES.search(path.name):
        return []
    try:
        with FileOpener() as opener:
            names = opener.open_archive(path).names if is_archive(path) else []
    except ReadRejected:  # whoever reads it gives the reason
        return []
    return [path / name for name in names if not PurePosixPath(name).name.startswith("._")]


def get_size(path: Path) -> int:
    """Returns the number of bytes of a file, or of a member of an archive when it is unpacked."""
    if path.is_file():
        return path.stat().st_size
    with open_file(path, gunzip=False) as file:
        return file.seek(0, 2)


def exists(path: Path) -> bool:
    """Returns whether a path is a file, a folder or a path in an archive."""
    return path.exists() or find_archive(path) is not None


def is_apple_double(path: Path) -> bool:
    """Returns whether a file holds what macOS keeps about the file of the same name without `._`."""
    if not path.name.startswith("._") or not path.is_file() or not os.access(path, os.R_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == APPLE_DOUBLE


def is_archive(path: Path) -> bool:
    """Returns whether a file is a zip or tar archive, by its first bytes and, for tar, its name."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return False
    if TAR_NAMES.search(path.name):
        return True
    with path.open("rb") as file:
        return file.read(4) in ZIP


def check_bomb(path: Path, num_bytes: int, free_bytes: int = BOMB_BYTES) -> None:
    """Rejects a file, or a member of an archive, that unpacks to implausibly many times its stored size.

    Args:
        path: The file or the member.
        num_bytes: Its size when it is unpacked.
        free_bytes: A size that is always allowed.
    """
    stored = (find_archive(path) or path).stat().st_size
    if num_bytes > free_bytes and num_bytes > BOMB_RATIO * max(1, stored):
        ratio = num_bytes // max(1, stored)
        raise ReadRejected("too-big", Message("unpacks to {ratio} times its size: a decompression bomb", ratio=ratio))


class _Archive:
    """An open zip or tar archive.

    Attributes:
        names: The names of its files.
    """

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._archive = archive
        if isinstance(archive, zipfile.ZipFile):
            self._members: dict[str, Any] = {m.filename: m for m in archive.infolist() if not m.is_dir()}
        else:
            self._members = {m.name.removeprefix("./"): m for m in archive.getmembers() if m.isreg()}
        self.names = list(self._members)

    def read(self, name: str) -> bytes:
        """Unpacks one file into memory, up to the size limit."""
        try:
            with self._open(name) as member:
                content = member.read(MAX_MEMBER_BYTES + 1)
        except DAMAGES as error:
            raise ReadRejected("archive", Message("cannot be unpacked ({error})", error=error)) from None
        if len(content) > MAX_MEMBER_BYTES:
            raise ReadRejected("too-big", Message("unpacks to more than {limit} GiB", limit=MAX_MEMBER_BYTES >> 30))
        return content

    def _open(self, name: str) -> BufferedIOBase:
        if isinstance(self._archive, zipfile.ZipFile):
            return cast(BufferedIOBase, self._archive.open(self._members[name]))
        member = self._archive.extractfile(self._members[name])
        assert member is not None, "only regular files are listed"
        return cast(BufferedIOBase, member)


def _open_archive(path: Path, stack: ExitStack) -> _Archive:
    """Opens an archive; rejects one that is damaged, or has harmful sizes or names."""
    try:
        if TAR_NAMES.search(path.name):
            packed = path.stat().st_size
            archive: Any = stack.enter_context(tarfile.open(fileobj=_unpack_tar(path, stack)))  # noqa: SIM115
            members = [(m.name, m.size) for m in archive.getmembers() if m.isreg()]
            is_encrypted = False
        else:
            archive = stack.enter_context(zipfile.ZipFile(path))
            files = [m for m in archive.infolist() if not m.is_dir()]
            packed, members = sum(m.compress_size for m in files), [(m.filename, m.file_size) for m in files]
            is_encrypted = any(m.flag_bits & 1 for m in files)
    except (*DAMAGES, OSError) as error:
        raise ReadRejected("archive", Message("a damaged archive ({error})", error=error)) from None
    _check_members(members, packed)
    if is_encrypted:
        raise ReadRejected("archive", Message("encrypted; unpack it first"))
    return _Archive(archive)


def _check_members(members: Sequence[tuple[str, int]], packed: int) -> None:
    """Rejects an archive by the names and sizes of its files."""
    total = sum(size for _, size in members)
    if total > MAX_ARCHIVE_BYTES or any(size > MAX_MEMBER_BYTES for _, size in members):
        raise ReadRejected("archive", Message("unpacks to {total} bytes, more than can be read; split it", total=total))
    if total > BOMB_BYTES and total > BOMB_RATIO * max(1, packed):
        ratio = total // max(1, packed)
        raise ReadRejected("archive", Message("unpacks to {ratio} times its size: a zip bomb", ratio=ratio))
    if len({name for name, _ in members}) < len(members):
        raise ReadRejected("archive", Message("holds two files with one name; unpack it first"))
    if any(".." in PurePosixPath(name).parts or name.startswith("/") for name, _ in members):
        raise ReadRejected("archive", Message("holds a path that leads out of the archive"))


def _unpack_tar(path: Path, stack: ExitStack) -> IO[bytes]:
    """Returns the uncompressed tar archive: the file itself, or its content in an unnamed temporary file."""
    file: IO[bytes] = stack.enter_context(path.open("rb"))
    is_gzip = file.read(2) == GZIP
    file.seek(0)
    if not is_gzip:
        return file
    unpacked: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with gzip.open(file) as stream:
        while block := stream.read(READ_BYTES):
            unpacked.write(block)
            check_bomb(path, unpacked.tell())
            if unpacked.tell() > MAX_ARCHIVE_BYTES:
                raise ReadRejected("archive", Message("unpacks to more than can be read; split it"))
    unpacked.seek(0)
    return unpacked


def _gunzip(content: bytes, path: Path) -> bytes:
    """Unpacks a gzipped file up to a limit; reading to its end verifies its checksum."""
    parts, total = [], 0
    try:
        with gzip.open(BytesIO(content)) as stream:
            while block := stream.read(READ_BYTES):
                parts.append(block)
                total += len(block)
                check_bomb(path, total)
                if total > MAX_MEMBER_BYTES:
                    limit = MAX_MEMBER_BYTES >> 30
                    raise ReadRejected("too-big", Message("unpacks to more than {limit} GiB", limit=limit))
    except (*DAMAGES, OSError) as error:
        raise ReadRejected("unreadable", Message("cannot be unpacked ({error}); copy it again", error=error)) from None
    return b"".join(parts)
