"""The voxels that a text header describes: where they lie, how they are stored, and reading them."""

import bz2
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real

from medssl.errors import BadInput, Message
from medssl.io import archives
from medssl.io.nifti import FREE_LABEL_BYTES
from medssl.io.rejected import ReadRejected
from medssl.io.voxel_files import MAX_HEADER_BYTES

MAX_VOXELS = 1 << 31
ZLIB_OR_GZIP = 47  # window bits
PARENTHESES = str.maketrans("(),", "   ")  # around and in the vectors of an NRRD


@dataclass(frozen=True, eq=False)
class VoxelBlock:
    """Where the voxels of a file lie, and how they are stored.

    Attributes:
        path: The header, named in error messages.
        data_file: The file that holds the voxels, which is the header itself or another one.
        offset: The byte of that file at which they start.
        encoding: "raw", "gzip", which stands for zlib too, or "bzip2".
        dtype: The type of a voxel, with its byte order.
        shape: Voxels along i, j, k.
        num_layers: Numbers of each voxel, which lie side by side.
        affine: Voxel indices to mm, RAS+.
    """

    path: Path
    data_file: Path
    offset: int
    encoding: str
    dtype: np.dtype
    shape: tuple[int, int, int]
    num_layers: int
    affine: Float[np.ndarray, "4 4"]

    @property
    def num_bytes(self) -> int:
        """The size of the unpacked voxels."""
        return math.prod(self.shape) * self.num_layers * self.dtype.itemsize

    def check_size(self) -> None:
        """Rejects uncompressed voxels of another size than the header declares.

        Raises:
            BadInput: If the file is shorter or longer.
        """
        num_bytes = self.data_file.stat().st_size - self.offset
        if self.encoding == "raw" and num_bytes != self.num_bytes:
            raise BadInput(
                Message(
                    "{path}: {num_bytes} bytes of voxels, its header declares {expected_bytes}; "
                    "copy or write the file again",
                    path=self.path,
                    num_bytes=num_bytes,
                    expected_bytes=self.num_bytes,
                )
            )

    def read(self, label: bool) -> Real[np.ndarray, "n i j k"]:
        """Reads the voxels of each layer.

        Args:
            label: Whether they are a label map, which may be packed much smaller than an image.

        Raises:
            BadInput: If the packed voxels are damaged, or are more or fewer than the header declares.
        """
        try:
            archives.check_bomb(self.data_file, self.num_bytes, FREE_LABEL_BYTES if label else archives.BOMB_BYTES)
        except ReadRejected as error:
            raise BadInput(Message("{path}: {reason}", path=self.path, reason=error.message)) from None
        with self.data_file.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        content = content if self.encoding == "raw" else self._unpack(content)
        return np.frombuffer(content, self.dtype).reshape(self.num_layers, *self.shape, order="F")

    def _unpack(self, content: bytes) -> bytes:
        unpacker = bz2.BZ2Decompressor() if self.encoding == "bzip2" else zlib.decompressobj(ZLIB_OR_GZIP)
        try:
            unpacked = unpacker.decompress(content, self.num_bytes + 1)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise BadInput(
                Message("{path}: its voxels are damaged ({error}); copy the file again", path=self.path, error=error)
            ) from None
        if len(unpacked) != self.num_bytes or not unpacker.eof:
            raise BadInput(
                Message(
                    "{path}: its packed voxels are not the {expected_bytes} bytes that its header declares; "
                    "copy or write the file again",
                    path=self.path,
                    expected_bytes=self.num_bytes,
                )
            )
        return unpacked


def read_start(path: Path) -> bytes:
    """Returns the beginning of a file, which holds its header.

    Raises:
        BadInput: If there is no such file.
    """
    if not path.is_file():
        raise BadInput(Message("{path}: no such file", path=path))
    with path.open("rb") as file:
        return file.read(MAX_HEADER_BYTES)


def parse_fields(path: Path, head: bytes, separator: str) -> dict[str, str]:
    """Returns the keys and values of a text header, without comments.

    Raises:
        BadInput: If a key stands there twice.
    """
    lines = [line.partition(separator) for line in head.decode("latin-1").splitlines() if not line.startswith("#")]
    fields: dict[str, str] = {}
    for key, _, value in (line for line in lines if line[1]):
        if key.strip() in fields:
            raise BadInput(
                Message("{path}: its header has {key} twice; write the header again", path=path, key=key.strip())
            )
        fields[key.strip()] = value.strip()
    return fields


def check_required_fields(
    path: Path, fields: dict[str, str], required: Sequence[str], synonyms: Sequence[Sequence[str]] = ()
) -> None:
    """Rejects a header that lacks a required key, or all synonyms of one.

    Raises:
        BadInput: If a key is missing.
    """
    missing = [name for name in required if name not in fields]
    missing += [names[0] for names in synonyms if not {*names} & {*fields}]
    if missing:
        raise BadInput(
            Message(
                "{path}: its header has no {keys}; write the file with its geometry", path=path, keys=", ".join(missing)
            )
        )


def find_data_file(path: Path, name: str) -> Path:
    """Returns the file of voxels that a header names.

    Raises:
        BadInput: If it does not lie in the same folder.
    """
    data_file = path.parent / name
    if Path(name).name != name or data_file.is_symlink() or not data_file.is_file():
        raise BadInput(
            Message(
                "{path}: its header names the voxel file {name!r}; it must be a file in the same folder",
                path=path,
                name=name,
            )
        )
    return data_file


def parse_shape(path: Path, sizes: str) -> tuple[int, int, int]:
    """Returns the number of voxels along i, j, k.

    Raises:
        BadInput: If there are not three axes, or too many voxels.
    """
    shape = parse_numbers(path, sizes)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise BadInput(
            Message(
                "{path}: the sizes {sizes} are not those of one volume; three axes are needed", path=path, sizes=sizes
            )
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def parse_dtype(path: Path, voxel_type: str, dtypes: dict[str, str], is_big_endian: bool) -> np.dtype:
    """Returns the type of the voxels from its name in the header.

    Raises:
        BadInput: If the format has no such type, or if it is not that of plain numbers.
    """
    if voxel_type not in dtypes:
        raise BadInput(
            Message(
                "{path}: its voxels are of the type {voxel_type!r}; cast them to short or float",
                path=path,
                voxel_type=voxel_type,
            )
        )
    return np.dtype(dtypes[voxel_type]).newbyteorder(">" if is_big_endian else "<")


def parse_numbers(path: Path, text: str, count: int | None = None) -> list[float]:
    """Returns the finite numbers of a header value.

    Raises:
        BadInput: If there is none, another number of them than `count`, or a word that is not a finite number.
    """
    try:
        numbers = [float(word) for word in text.translate(PARENTHESES).split()]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) != (count or len(numbers)) or not all(map(math.isfinite, numbers)):
        raise BadInput(
            Message(
                "{path}: its header holds {text!r} where {count}finite numbers are needed; write the header again",
                path=path,
                text=text,
                count=f"{count} " if count else "",
            )
        )
    return numbers
