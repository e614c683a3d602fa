"""A vocabulary of small cubes, by which the voxels of a volume are kept as numbers of words.

Lee et al., "SeiT: storage-efficient vision training with tokens using 1% of pixel storage" (2023),
https://arxiv.org/abs/2303.11114. Deviation: words are cubes of voxels, found by k-means, and further words say what the
first ones leave (residual quantization: Juang and Gray, "Multiple stage vector quantization for speech coding", 1982),
instead of a network that is trained on other images.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Shaped, UInt8
from scipy.cluster.vq import kmeans2, vq

from medssl.errors import BadInput
from medssl.files import atomic_file

MAX_WORDS = 256  # numbers are bytes
CODEBOOK = "codebook"  # how the names of files of words begin
ITERATIONS = 20


@dataclass(frozen=True, eq=False)
class Codebook:
    """Words for cubes of voxels, and for what is left of a cube after each stage.

    Attributes:
        words: Words of each stage, as the voxels of a cube.
    """

    words: Float32[np.ndarray, "s k n"]

    @property
    def cell(self) -> int:
        """The side of a cube in voxels."""
        return round(self.words.shape[2] ** (1 / 3))

    @classmethod
    def fit(cls, cubes: Float32[np.ndarray, "m n"], num_words: int, num_stages: int, seed: int = 0) -> "Codebook":
        """Finds words by k-means, stage by stage.

        Args:
            cubes: Cubes of voxels.
            num_words: Words of each stage, at most 256.
            num_stages: Number of stages.
            seed: Seed of k-means.
        """
        rest, stages = cubes.copy(), []
        for stage in range(num_stages):
            draw = np.random.default_rng([seed, stage])
            different = np.unique(rest, axis=0)
            start = different[draw.choice(len(different), num_words, replace=len(different) < num_words)]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "One of the clusters is empty")  # a word that nothing is near stays
                words, numbers = kmeans2(rest, start, iter=ITERATIONS, minit="matrix", missing="warn", rng=draw)
            rest = rest - words[numbers]
            stages.append(words)
        return cls(np.array(stages, np.float32))

    def encode(self, voxels: Shaped[np.ndarray, "c i j k"]) -> UInt8[np.ndarray, "c s p q r"]:
        """Returns the number of each word, slab by slab; the last cubes are filled up with the voxels at the edge."""
        s = self.cell
        padding = [(0, -size % s) for size in voxels.shape[1:]]
        numbers = []
        for channel in voxels:
            padded = np.pad(channel, padding, mode="edge").astype(np.float32)
            slabs = [self._encode_slab(padded[i : i + s]) for i in range(0, len(padded), s)]
            numbers.append(np.stack(slabs, 1))
        return np.stack(numbers)

    def _encode_slab(self, slab: Float32[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "s q r"]:
        s = self.cell
        _, q, r = (size // s for size in slab.shape)
        rest = slab.reshape(s, q, s, r, s).transpose(1, 3, 0, 2, 4).reshape(q * r, -1)
        numbers = []
        for words in self.words:
            number, _ = vq(rest, words, check_finite=False)
            rest = rest - words[number]
            numbers.append(number.astype(np.uint8).reshape(q, r))
        return np.stack(numbers)

    def decode(self, numbers: UInt8[np.ndarray, "c s p q r"]) -> Float32[np.ndarray, "c i j k"]:
        """Returns the voxels that the words stand for."""
        cubes = sum(words[numbers[:, stage]] for stage, words in enumerate(self.words))
        c, p, q, r, _ = cubes.shape
        s = self.cell
        return cubes.reshape(c, p, q, r, s, s, s).transpose(0, 1, 4, 2, 5, 3, 6).reshape(c, p * s, q * s, r * s)

    def write(self, path: Path) -> None:
        """Writes the file."""
        with atomic_file(path) as part, part.open("wb") as file:
            np.savez(file, words=self.words)

    @classmethod
    def read(cls, path: Path) -> "Codebook":
        """Reads the file; raises BadInput if it is missing or damaged."""
        return _read(str(path), path.stat().st_mtime_ns if path.is_file() else 0)


@dataclass(frozen=True, eq=False)
class TokenArray:
    """Voxels that are decoded where they are sliced.

    Attributes:
        numbers: The open file of the numbers of words, with axes "c s p q r".
        codebook: The words.
        shape: Shape of the voxels.
        dtype: Type of the voxels.
    """

    numbers: Any
    codebook: Codebook
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def schunk(self) -> Any:
        """What holds the metadata of the file."""
        return self.numbers.schunk

    def __getitem__(self, key: Any) -> Shaped[np.ndarray, "..."]:
        ranges = self._find_ranges(key)
        s = self.codebook.cell
        first = [start // s for start, _ in ranges]
        last = [-(-stop // s) for _, stop in ranges]
        i, j, k = (slice(a, b) for a, b in zip(first, last, strict=True))
        decoded = self.codebook.decode(self.numbers[:, :, i, j, k])
        inside = tuple(slice(start - a * s, stop - a * s) for (start, stop), a in zip(ranges, first, strict=True))
        voxels = decoded[(slice(None), *inside)]
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            voxels = np.rint(voxels).clip(limits.min, limits.max)
        voxels = voxels.astype(self.dtype)
        return voxels if len(self.shape) == 4 else voxels[0]

    def _find_ranges(self, key: Any) -> list[tuple[int, int]]:
        """Returns the first and the last voxel + 1 along i, j, k of a slice of the array."""
        parts: Sequence[Any] = key if isinstance(key, tuple) else (key,)
        spatial = [part for part in parts if part is not Ellipsis] if len(parts) > 1 else []
        spatial = [slice(None)] * (3 - len(spatial[-3:])) + list(spatial[-3:])
        ranges = [part.indices(size) for part, size in zip(spatial, self.shape[-3:], strict=True)]
        return [(start, stop) for start, stop, _ in ranges]


@lru_cache(maxsize=8)
def _read(path: str, time_ns: int) -> Codebook:
    """Reads a file once in a process, unless it changes."""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            words = arrays["words"].astype(np.float32)
        if words.ndim != 3 or words.shape[1] > MAX_WORDS or not np.isfinite(words).all():
            raise ValueError("has words of another shape")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        raise BadInput(f"{path}: the words of a compressed store are missing or damaged; compress it again") from None
    return Codebook(words)
