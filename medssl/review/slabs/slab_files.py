"""Opens the slab files of a predictions folder, and makes those that it lacks."""

import hashlib
import os
import shutil
import tempfile
import weakref
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

from medssl.io.slabs.from_nifti import convert, name_slab_file, open_current
from medssl.io.slabs.slab_file import SlabFile
from medssl.volume import Unit


class SlabFiles:
    """Keeps the slab files that were opened last.

    A missing or outdated file is written next to its image, or in a private temporary folder where that is read-only.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._open = lru_cache(maxsize=8)(self._open_or_convert)

    def open(self, image: Path, unit: Unit) -> SlabFile:
        """Returns the slab file of a NIfTI file; raises BadInput if the image is damaged."""
        state = image.stat()
        with self._lock:  # the header and the voxels of a new image are requested at once
            return self._open(image, unit, state.st_mtime_ns, state.st_size)

    def _open_or_convert(self, image: Path, unit: Unit, _modified_ns: int, _size: int) -> SlabFile:
        neighbour = name_slab_file(image)
        if slabs := open_current(image, neighbour):
            return slabs
        if os.access(image.parent, os.W_OK):
            return convert(image, neighbour, unit)
        path = self._temporary_folder / hashlib.sha256(os.fsencode(image.absolute())).hexdigest()
        return open_current(image, path) or convert(image, path, unit)

    @cached_property
    def _temporary_folder(self) -> Path:
        """A folder that only this user can read, until the server ends."""
        folder = Path(tempfile.mkdtemp(prefix="medssl-slabs-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder
