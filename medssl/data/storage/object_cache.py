"""Keeps local copies of files of an object store and evicts those that were unused for longest."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath

from medssl.errors import BadInput
from medssl.files import PART_PREFIX, atomic_file

FOLDER_VARIABLE, SIZE_VARIABLE = "MEDSSL_CACHE", "MEDSSL_CACHE_GB"
DEFAULT_FOLDER, DEFAULT_GB = "~/.cache/medssl", "100"
PROTOCOLS = ("s3", "gs", "az", "abfs", "http", "https", "file")  # others of fsspec run programs or nest in each other


def is_url(location: str) -> bool:
    """Whether a location is in an object store; otherwise it is a path."""
    return "://" in location


@dataclass(frozen=True)
class ObjectCache:
    """A folder of downloaded files, which all processes of a machine share.

    Attributes:
        folder: The folder; it holds nothing else.
        max_bytes: Size above which the files that were unused for longest are removed.
    """

    folder: Path
    max_bytes: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ObjectCache":
        """Returns the cache that MEDSSL_CACHE and MEDSSL_CACHE_GB describe."""
        text = environment.get(SIZE_VARIABLE, DEFAULT_GB)
        try:
            size_gb = float(text)
        except ValueError:
            size_gb = 0
        if not 0 < size_gb < 1e9:
            raise BadInput(f"{SIZE_VARIABLE}={text}: not a size; give the gigabytes that the cache may fill")
        return cls(Path(environment.get(FOLDER_VARIABLE, DEFAULT_FOLDER)).expanduser(), int(size_gb * 1e9))

    def fetch(self, url: str) -> Path:
        """Returns the local copy of a file, which is downloaded if it is not there.

        Raises:
            BadInput: The address is of an unknown kind, or the file cannot be read.
        """
        if "::" in url or url.partition("://")[0] not in PROTOCOLS:
            raise BadInput(f"{url}: not an address of a file; give one with {', '.join(PROTOCOLS)}")
        path = self.folder / (hashlib.sha256(url.encode()).hexdigest() + PurePosixPath(url).suffix)
        if path.is_file():
            os.utime(path)
            return path
        try:
            filesystem, remote = import_module("fsspec.core").url_to_fs(url)  # most stores lie on the disk
            with atomic_file(path) as part:
                filesystem.get_file(remote, str(part))
        except Exception as error:  # of whichever library speaks to the store
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{url}: cannot be read ({reason}); check address, access and network") from error
        self._evict(path)
        return path

    def _evict(self, newest: Path) -> None:
        """Removes the files that were unused for longest until the others fit; never the newest one.

        Processes that have a removed file open can still read it.
        """
        sizes = {}
        for path in self.folder.iterdir():
            if not path.name.startswith(PART_PREFIX):
                try:
                    sizes[path] = path.stat()
                except FileNotFoundError:
                    continue  # another process has removed it
        total = sum(stat.st_size for stat in sizes.values())
        for path in sorted(sizes.keys() - {newest}, key=lambda path: sizes[path].st_mtime_ns):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= sizes[path].st_size
