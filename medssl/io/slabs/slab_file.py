"""Reads and writes slab files: the RAS voxels of a volume in gzipped slabs of axial planes, with a table of the slabs.

A file holds the gzipped slabs, the gzipped sample of values, the description as JSON, its length in 8 bytes, and
`MAGIC`. Voxels are int16 or uint8, little-endian, i fastest, then j, then k.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError
from jaxtyping import Float, Shaped

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io.slabs.stored_values import StoredValues

MAGIC = b"MEDSLAB1"
SLAB_BYTES = 4_000_000
SAMPLE_VALUES = 50_000
MAX_DESCRIPTION_BYTES = 1 << 20
COMPRESSION = 1  # of 0 to 3
GZIP_BITS = 31  # a gzip header, and the largest window


@dataclass(frozen=True)
class SlabTable:
    """The description of a slab file.

    Args:
        shape: The number of voxels along i, j, k.
        affine: Maps a voxel index to mm, RAS+; the axes are RAS.
        values: How the values are stored.
        planes: The number of planes of each slab but the last.
        source: What identifies the file that the voxels come from.
        sizes: The compressed bytes of each slab.
        sample_bytes: The compressed bytes of the sample.
        sha256: The hash of all stored voxels.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    values: StoredValues
    planes: int
    source: str
    sizes: tuple[int, ...] = ()
    sample_bytes: int = 0
    sha256: str = ""

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The first plane of each slab, and the one after its last."""
        return list_ranges(self.shape[2], self.planes)


class SlabFile:
    """An open slab file; it keeps its table, and a few slabs that were decompressed last.

    Args:
        path: The file.

    Raises:
        BadInput: If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.table = path, _read_table(path)
        self._offsets = np.cumsum([0, *self.table.sizes])
        self._decompress = lru_cache(maxsize=2)(self._read_slab)

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Maps a voxel index to mm, RAS+."""
        return np.array(self.table.affine, np.float64)

    def read_sample(self) -> Shaped[np.ndarray, "n"]:
        """Returns evenly spaced values of the whole volume."""
        size = 2 * SAMPLE_VALUES * self.table.values.little_endian.itemsize
        stored = self._unpack(int(self._offsets[-1]), self.table.sample_bytes, size)
        return self.table.values.decode(np.frombuffer(stored, self.table.values.little_endian))

    def read_packed(self, start: int, stop: int) -> bytes:
        """Returns the gzipped stored voxels of the planes from `start` up to, but not including, `stop`."""
        if (start, stop) in self.table.ranges:
            number = self.table.ranges.index((start, stop))
            return self._read_bytes(int(self._offsets[number]), self.table.sizes[number])
        return pack(self.read_planes(start, stop))

    def read_planes(self, start: int, stop: int) -> Shaped[np.ndarray, "i j k"]:
        """Returns the stored voxels of some planes."""
        if not 0 <= start < stop <= self.table.shape[2]:
            raise BadInput(f"axial planes {start} to {stop}: this volume has the planes 0 to {self.table.shape[2]}")
        parts = [
            self._decompress(number)[..., max(start - first, 0) : stop - first]
            for number, (first, last) in enumerate(self.table.ranges)
            if first < stop and start < last
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _read_slab(self, number: int) -> Shaped[np.ndarray, "i j k"]:
        first, last = self.table.ranges[number]
        shape, dtype = (*self.table.shape[:2], last - first), self.table.values.little_endian
        num_bytes = math.prod(shape) * dtype.itemsize
        content = self._unpack(int(self._offsets[number]), self.table.sizes[number], num_bytes)
        if len(content) != num_bytes:
            raise _build_damage_error(self.path, "a slab has another size than its table states")
        return np.frombuffer(content, dtype).reshape(shape, order="F")

    def _unpack(self, offset: int, size: int, max_bytes: int) -> bytes:
        """Returns at most `max_bytes` unpacked bytes, and one more if there are more."""
        try:
            packed = self._read_bytes(offset, size)
            return isal_zlib.decompressobj(wbits=GZIP_BITS).decompress(packed, max_bytes + 1)
        except (OSError, EOFError, IsalError, ValueError) as error:  # type: ignore[misc]  # its stub calls it a variable
            raise _build_damage_error(self.path, error) from None

    def _read_bytes(self, offset: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def write_slab_file(path: Path, table: SlabTable, slabs: Iterable[Shaped[np.ndarray, "i j k"]]) -> None:
    """Writes a slab file atomically.

    Args:
        path: The file.
        table: The description, in which `sizes`, `sample_bytes` and `sha256` are filled in.
        slabs: The stored voxels of each slab, from the first plane to the last.
    """
    digest, sizes, samples = hashlib.sha256(), list[int](), list[np.ndarray]()
    step = max(1, int(np.prod(table.shape)) // SAMPLE_VALUES)
    with atomic_file(path) as part, part.open("wb") as file:
        for slab in slabs:
            content = slab.tobytes(order="F")
            digest.update(content)
            sizes.append(file.write(igzip.compress(content, COMPRESSION, mtime=0)))
            samples.append(slab.ravel(order="F")[::step].copy())
        sample = igzip.compress(np.concatenate(samples).tobytes(), COMPRESSION, mtime=0)
        file.write(sample)
        fields = {"sizes": sizes, "sample_bytes": len(sample), "sha256": digest.hexdigest()}
        description = json.dumps(asdict(table) | fields).encode()
        file.write(description + len(description).to_bytes(8, "little") + MAGIC)


def list_ranges(num_planes: int, step: int) -> list[tuple[int, int]]:
    """Returns the first plane of each slab of `step` planes, and the one after its last."""
    return [(k, min(k + step, num_planes)) for k in range(0, num_planes, step)]


def count_slab_planes(shape: tuple[int, int, int], dtype: str) -> int:
    """Returns how many axial planes take about SLAB_BYTES."""
    return max(1, min(shape[2], SLAB_BYTES // (shape[0] * shape[1] * np.dtype(dtype).itemsize)))


def pack(voxels: Shaped[np.ndarray, "i j k"]) -> bytes:
    """Returns the gzipped bytes of some planes, i fastest."""
    return igzip.compress(voxels.tobytes(order="F"), COMPRESSION, mtime=0)


def _read_table(path: Path) -> SlabTable:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - 16))
            tail = file.read()
            size = int.from_bytes(tail[:8], "little")
            if tail[8:] != MAGIC or size > min(MAX_DESCRIPTION_BYTES, end - 16):
                raise ValueError("no slab file")
            file.seek(end - 16 - size)
            fields = json.loads(file.read(size))
        values = StoredValues(**fields.pop("values"))
        i, j, k = (int(n) for n in fields.pop("shape"))
        affine = tuple(tuple(float(x) for x in row) for row in fields.pop("affine"))
        sizes = tuple(int(size) for size in fields.pop("sizes"))
        table = SlabTable((i, j, k), affine, values, sizes=sizes, **fields)
        if values.dtype not in ("uint8", "int16") or not table.planes > 0 or -(-k // table.planes) != len(sizes):
            raise ValueError("its table does not fit")
        return table
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _build_damage_error(path, error) from None


def _build_damage_error(path: Path, error: Exception | str) -> BadInput:
    return BadInput(f"{path}: damaged ({error}); remove it, and it is made again from the image")
