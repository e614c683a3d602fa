"""Files that are either whole or absent."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

from medssl.errors import BadInput

SEALS = "SHA256SUMS"
LOCK = ".lock"
PART = ".part-"  # begins the name of what is not whole yet


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path in the same folder; on success it is fsynced and renamed to `path`, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PART, suffix="".join(path.suffixes))
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o644)
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def fresh(folder: Path, over: bool = False) -> Iterator[Path]:
    """A temporary folder beside; on success it becomes `folder`, else it is removed.

    There must be none yet, or with `over` it takes its place.
    """
    if folder.exists() and not over:
        raise BadInput(f"{folder}: exists already; choose another --out, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PART) as place:
        part = Path(place) / "new"
        part.mkdir()
        yield part
        if over and folder.exists():
            folder.replace(Path(place) / "old")
        part.replace(folder)
    sync(folder.parent)


@contextmanager
def alone(folder: Path, busy: str) -> Iterator[None]:
    """Nobody else works in a folder meanwhile; `busy` is what a second one is told. A killed process holds nothing."""
    with (folder / LOCK).open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{folder}: {busy}") from None
        yield


def ready(folder: Path) -> None:
    """Refuses a place where nothing can be written, before the work whose results are to lie there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder if folder.exists() else folder.parent).close()
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror}); choose another place") from None


def sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file atomically; names of files that are no UTF-8 keep their bytes."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path | str, value: Any) -> None:
    """Writes a JSON file atomically, readable by people; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256(path: Path | str) -> str:
    """The content hash of a file."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seal(folder: Path, names: Iterable[str]) -> None:
    """Writes down what files of a folder hold now, beside what was written down before; `sha256sum -c` reads it too."""
    before = read_checksums(folder) if (folder / SEALS).is_file() else {}
    known = before | {name: sha256(folder / name) for name in names}
    write_text(folder / SEALS, "".join(f"{known[name]}  {name}\n" for name in sorted(known)))


def read_checksums(folder: Path) -> dict[str, str]:
    """The hashes that were written down of a folder's files; none without the file."""
    path = folder / SEALS
    if not path.is_file():
        return {}
    found = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in path.read_text(errors="replace").splitlines()]
    if not all(found):
        raise BadInput(f"{path}: line {found.index(None) + 1} is no hash with a name; remove the file")
    return {match[2]: match[1] for match in found if match}
