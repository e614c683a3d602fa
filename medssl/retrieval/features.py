"""Computes the features of scans that retrieval compares, and keeps them in a folder for the next time."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.volume import Volume

Encode = Callable[[Volume], Iterable[Volume]]
EPSILON = 1e-8


@dataclass(frozen=True)
class FeatureSource:
    """Computes the features of scans at some levels of an encoder.

    Args:
        encode: Returns the features of a scan at every level, fine to coarse, as `medssl.load_encoder` does.
        levels: The levels to compare, 0 is the finest; () for all but the finest, which is the largest.
        weights_sha256: The hash of the weights of the encoder.
        folder: The folder in which features are kept, readable by its owner only; None keeps none.
    """

    encode: Encode
    levels: tuple[int, ...]
    weights_sha256: str
    folder: Path | None = None

    def compute(self, scan: Volume) -> list[Volume]:
        """Returns the features "c i j k" of a scan with length 1 at each place, in half floats, fine to coarse.

        Raises:
            BadInput: The encoder has no such level.
        """
        path = None if self.folder is None else self.folder / f"{self._hash(scan)}.npz"
        stored = None if path is None else _read(path)
        if stored is not None:
            return stored
        pyramid = list(self.encode(scan))
        last = len(pyramid) - 1
        if not all(0 <= level <= last for level in self.levels):
            levels = " ".join(map(str, self.levels))
            raise BadInput(f"--levels {levels}: the encoder has levels 0 (finest) to {last}; give some of them")
        features = [normalize(pyramid[level]) for level in sorted({*self.levels} or range(min(1, last), last + 1))]
        if path is not None:
            _write(path, features)
        return features

    def _hash(self, scan: Volume) -> str:
        """Returns a hash of the weights, the levels and the voxels and the geometry of a scan."""
        settings = f"{self.weights_sha256} {sorted(self.levels)} {scan.unit} {scan.voxels.shape} {scan.voxels.dtype}"
        digest = hashlib.sha256(settings.encode())
        digest.update(np.ascontiguousarray(scan.affine, np.float64).tobytes())
        for slab in scan.voxels:
            digest.update(np.ascontiguousarray(slab).tobytes())
        return digest.hexdigest()


def normalize(features: Volume) -> Volume:
    """Returns features "c i j k" with length 1 at each place, in half floats."""
    values = features.voxels.astype(np.float32)
    length = np.sqrt(np.einsum("cijk,cijk->ijk", values, values))
    return replace(features, voxels=(values / np.maximum(length, EPSILON)).astype(np.float16))


def embed_case(levels: Sequence[Volume]) -> Float[np.ndarray, "d"]:
    """Returns the mean and the standard deviation of the coarsest features of a scan over all places."""
    rows = levels[-1].voxels.astype(np.float64).reshape(len(levels[-1].voxels), -1)
    return np.concatenate([rows.mean(1), rows.std(1)])


def _write(path: Path, features: Sequence[Volume]) -> None:
    arrays: dict[str, Any] = {f"voxels{n}": level.voxels for n, level in enumerate(features)}
    arrays |= {f"affine{n}": level.affine for n, level in enumerate(features)}
    with atomic_file(path, is_private=True) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> list[Volume] | None:
    """Returns stored features; None if there are none, or the file is damaged, so that it is written again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            count = len(arrays.files) // 2
            return [Volume(arrays[f"voxels{n}"], arrays[f"affine{n}"], "a.u.") for n in range(count)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
