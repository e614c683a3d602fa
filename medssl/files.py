"""Writes files and folders that are either complete or absent, locks folders and records checksums."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medssl.errors import BadInput

CHECKSUMS = "SHA256SUMS"
LOCK_FILE = ".lock"
PART_PREFIX = ".part-"  # starts the names of files and folders that are still being written


@contextmanager
def atomic_file(path: Path | str, is_private: bool = False) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which becomes `path` when the block succeeds.

    The file is flushed to the disk before it is renamed. If the block fails, it is removed and an old file at `path`
    stays as it was. Missing parent folders are created.

    Args:
        path: The final path.
        is_private: Whether only its owner may read the file, since it holds data of patients.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PART_PREFIX, suffix="".join(path.suffixes))
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o600 if is_private else 0o644)
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path, overwrite: bool = False, is_private: bool = False) -> Iterator[Path]:
    """Gives a temporary folder on the same disk, which becomes `folder` when the block succeeds.

    If the block fails, the temporary folder is removed.

    Args:
        folder: The final path.
        overwrite: Whether an existing folder is replaced.
        is_private: Whether only its owner may read the folder, since it holds data of patients.

    Raises:
        BadInput: If `folder` exists and `overwrite` is false.
    """
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder}: exists already; choose another --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PART_PREFIX) as temporary:
        part = Path(temporary) / "new"
        part.mkdir()
        yield part
        if is_private:
            _make_private(part)
        if overwrite and folder.exists():
            folder.replace(Path(temporary) / "old")
        part.replace(folder)
    sync(folder.parent)


def _make_private(folder: Path) -> None:
    """Takes all access to a folder, and to everything in it, away from other users."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


@contextmanager
def exclusive_lock(folder: Path, message: str) -> Iterator[None]:
    """Holds the only lock on a folder while the block runs; the system releases it if the process dies.

    Args:
        folder: An existing folder.
        message: What another process that holds the lock is doing, and the remedy.

    Raises:
        BadInput: If another process holds the lock; there is no waiting.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"{folder}: {message}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_part(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder next to a folder; removes those that killed processes left there for the same folder."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{PART_PREFIX}{folder.name}-"
    for path in folder.parent.iterdir():
        if path.name.startswith(prefix) and not _is_locked(path):
            shutil.rmtree(path, ignore_errors=True)
    message = f"another process works there, which writes {folder}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as name, exclusive_lock(Path(name), message):
        yield Path(name)


def _is_locked(folder: Path) -> bool:
    """Returns whether a living process holds the lock of a folder."""
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True


def sweep_parts(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder; only for the process that holds its lock."""
    for part in sorted(folder.rglob(f"{PART_PREFIX}*"), reverse=True):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raises BadInput if a folder cannot be written to; called before the work."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder if folder.exists() else folder.parent).close()
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


def is_disk_full(error: Exception) -> bool:
    """Returns whether an error states that a disk, or a user's share of it, has no space left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def sync(path: Path) -> None:
    """Waits until a file or the entries of a folder are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str, is_private: bool = False) -> None:
    """Writes a UTF-8 text file atomically; file names in other encodings keep their bytes (surrogateescape)."""
    with atomic_file(path, is_private) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path | str, value: Any) -> None:
    """Writes an indented JSON file atomically; raises ValueError on NaN and infinity, which JSON does not know."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's content as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Adds the current hashes of these files to the folder's SHA256SUMS, which `sha256sum -c` can check."""
    checksums = read_checksums(folder) | {name: sha256(folder / name) for name in names}
    write_text(folder / CHECKSUMS, "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums)))


def read_checksums(folder: Path) -> dict[str, str]:
    """Returns the hash of each file named in a folder's SHA256SUMS; empty if there is no such file."""
    path = folder / CHECKSUMS
    if not path.is_file():
        return {}
    lines = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in path.read_text(errors="replace").splitlines()]
    if not all(lines):
        raise BadInput(f"{path}: line {lines.index(None) + 1} is not a hash and a file name; remove the file")
    return {match[2]: match[1] for match in lines if match}
