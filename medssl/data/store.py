"""Stores prepared volumes as compressed, chunked files of which a crop reads only the blocks it needs."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped, UInt8
from scipy import ndimage

from medssl.data.fingerprint import THUMBNAIL_SIZE, subsample_for_thumbnail, thumbnail
from medssl.data.manifest import Case, Manifest, require_label
from medssl.data.normalization import (
    AIR_HU,
    DECILES,
    IntensityNormalization,
    body_mask,
    compute_deciles,
    subsample,
    subsample_strides,
)
from medssl.data.storage.codebook import Codebook, TokenArray
from medssl.data.storage.object_cache import ObjectCache, is_url
from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.io.voxels import list_label_values
from medssl.volume import NEIGHBOURS_26, Unit, Volume

IntTriple = tuple[int, int, int]
SamplePoints = dict[str, Int[np.ndarray, "n 3"]]
CHUNK, BLOCK = 64, 32  # edge in voxels of a chunk, which is read as one, and of a block, which is decompressed as one
MAX_SAMPLE_POINTS = 4096  # voxels stored of the body and of each class, to place crops around
MAX_OPEN_FILES = 256  # in each process


@dataclass(frozen=True)
class StoredVolume:
    """An open file of a store; its voxels stay on disk until they are sliced.

    Attributes:
        array: Voxels, with channels first in images.
        affine: Voxel index -> mm, RAS+.
        unit: Unit of the voxels.
        sample_points: Voxel indices inside the "body" of an image, or inside each label value.
        sha256: Hash of the voxels and their geometry.
        deciles: Deciles of the body in each channel, for images in arbitrary units.
        thumbnail: Small picture of an image, for finding copies.
    """

    array: Any
    affine: Shaped[np.ndarray, "4 4"]
    unit: Unit
    sample_points: SamplePoints
    sha256: str
    deciles: Float32[np.ndarray, "c d"] | None = None
    thumbnail: UInt8[np.ndarray, "q q q"] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.array.shape[-3:]
        return i, j, k

    @cached_property
    def components(self) -> list[tuple[int, Int[np.ndarray, "n 3"]]]:
        """Label value and sampled voxels of every connected component; the first access reads the whole label."""
        voxels, components = self.array[:], []
        for value in set(list_label_values(voxels)) - {0}:
            numbered, _ = ndimage.label(voxels == value, NEIGHBOURS_26)
            boxes = enumerate(ndimage.find_objects(numbered), 1)
            inside = [np.argwhere(numbered[box] == n) + [side.start for side in box] for n, box in boxes]
            components += [(value, _limit_points(points)) for points in inside]
        return components

    def volume(self) -> Volume:
        """Reads the whole volume into memory."""
        return Volume(self.array[:], self.affine, self.unit)

    def network_input(self, normalization: IntensityNormalization) -> Float32[np.ndarray, "*c i j k"]:
        """Reads the whole volume as network input in [0, 1]."""
        return normalization.apply(self.array[:], self.unit, self.deciles)

    def provenance(self) -> dict[str, Any]:
        """Returns what the volume was made from: its source and the shape and affine of the original scan."""
        return json.loads(self.array.schunk.vlmeta["about"])

    def crop(self, corner: IntTriple, size: IntTriple) -> Shaped[np.ndarray, "*c i j k"]:
        """Reads the voxels from `corner` on, padding with air, or with label 0, outside the volume."""
        low = [min(n, max(0, c)) for n, c in zip(self.shape, corner, strict=True)]
        high = [min(n, max(0, c + s)) for n, c, s in zip(self.shape, corner, size, strict=True)]
        (a, b, c), (p, q, r) = low, high
        inside = self.array[..., a:p, b:q, c:r]
        if inside.shape[-3:] == size:
            return inside
        fill = AIR_HU if self.unit == "HU" else 0
        padded = np.full((*inside.shape[:-3], *size), fill, inside.dtype)
        i, j, k = corner
        padded[..., a - i : p - i, b - j : q - j, c - k : r - k] = inside
        return padded


class Store:
    """Opens the images and labels of a manifest's cases and keeps the files open; use one object in each process.

    Files of an object store are copied into the local cache first.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._open: OrderedDict[str, StoredVolume] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"manifest": self.manifest, "_open": OrderedDict()}

    def image(self, case: Case) -> StoredVolume:
        """Opens a case's image."""
        return self._open_file(case.image)

    def label(self, case: Case) -> StoredVolume:
        """Opens a case's label."""
        return self._open_file(require_label(case))

    def crop(self, case: Case, corner: IntTriple, size: IntTriple) -> Shaped[np.ndarray, "c i j k"]:
        """Reads the stored voxels of a case's image from `corner` on, padded with air outside the volume."""
        return self.image(case).crop(corner, size)

    def _open_file(self, location: str) -> StoredVolume:
        if location not in self._open:
            is_remote = is_url(location)
            self._open[location] = read(
                ObjectCache.from_environment().fetch(location) if is_remote else self.manifest.folder / location
            )
            if len(self._open) > MAX_OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(location)
        return self._open[location]


def write(path: Path, volume: Volume, provenance: Mapping[str, Any], codebook: Path | None = None) -> str:
    """Writes a prepared volume atomically, together with the points that crops are placed around.

    Args:
        path: File to write, with suffix .b2nd.
        volume: A volume from `IntensityNormalization.prepare`, or a label.
        provenance: What `StoredVolume.provenance` returns later.
        codebook: File in the same folder with words by which the voxels of an image are kept; None keeps all voxels.

    Returns:
        The hash of the voxels, as they will be read, and their geometry.
    """
    tokens: dict[str, Any] = {}
    voxels = np.ascontiguousarray(volume.voxels)
    if codebook is not None:
        words, shape, dtype = Codebook.read(codebook), voxels.shape, voxels.dtype
        voxels = words.encode(voxels.reshape(-1, *volume.shape))
        volume = replace(volume, voxels=TokenArray(voxels, words, shape, dtype)[:])
        tokens = {"tokens": {"codebook": codebook.name, "shape": list(shape), "dtype": dtype.str}}
    sha = content_sha256(volume)
    points = {name: p.astype(np.int16).tobytes() for name, p in _draw_sample_points(volume).items()}
    chunks = [min(n, CHUNK) for n in voxels.shape[-3:]]
    blocks = [min(n, BLOCK) for n in voxels.shape[-3:]]
    channels = [1] * (voxels.ndim - 3)
    array = blosc2.asarray(
        voxels, chunks=(*channels, *chunks), blocks=(*channels, *blocks), contiguous=True,
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
    )  # fmt: skip
    metadata: dict[str, Any] = {
        "affine": volume.affine.astype(float).ravel().tolist(),
        "unit": volume.unit,
        "sha256": sha,
    }
    metadata |= {"deciles": compute_deciles(volume).ravel().tolist()} if volume.unit == "a.u." else {}
    metadata |= {"picture": make_thumbnail(volume).tobytes()} if volume.unit != "label" else {}
    for key, value in (metadata | tokens | {"points": points, "about": json.dumps(provenance)}).items():
        array.schunk.vlmeta[key] = value
    with atomic_file(path) as part:
        part.write_bytes(array.to_cframe())
    return sha


def read(path: Path) -> StoredVolume:
    """Opens a file of a store."""
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
        metadata = array.schunk.vlmeta
        tokens: Mapping[str, Any] | None = metadata.get("tokens")
        return StoredVolume(
            array if tokens is None else _open_tokens(path, array, tokens),
            affine=np.array(metadata["affine"], float).reshape(4, 4),
            unit=cast(Unit, metadata["unit"]),
            sample_points={n: np.frombuffer(p, np.int16).reshape(-1, 3) for n, p in metadata["points"].items()},
            sha256=metadata["sha256"],
            deciles=(
                np.array(metadata["deciles"], np.float32).reshape(-1, len(DECILES)) if "deciles" in metadata else None
            ),
            thumbnail=(
                np.frombuffer(metadata["picture"], np.uint8).reshape((THUMBNAIL_SIZE,) * 3)
                if "picture" in metadata
                else None
            ),
        )
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: not a file of a store ({error}); run `medssl ingest` again") from error


def _open_tokens(path: Path, numbers: Any, tokens: Mapping[str, Any]) -> TokenArray:
    """Returns the voxels that the numbers of words stand for."""
    codebook = Codebook.read(path.with_name(Path(tokens["codebook"]).name))
    return TokenArray(numbers, codebook, tuple(tokens["shape"]), np.dtype(tokens["dtype"]))


def find_damage(path: Path, sha256: str) -> str:
    """Checks a file against its own metadata and the expected hash of its voxels.

    Args:
        path: A file of a store.
        sha256: Hash from the manifest; empty if unknown.

    Returns:
        A description of the damage; empty if the file is intact.
    """
    try:
        stored = read(path)
        volume = stored.volume()
        if sha256 not in (stored.sha256, "") or content_sha256(volume) != stored.sha256:
            return "its voxels are not those that were written"
        points = _draw_sample_points(volume)
        deciles_match = stored.deciles is None or np.array_equal(compute_deciles(volume), stored.deciles)
        thumbnail_matches = (
            stored.thumbnail is None or np.abs(make_thumbnail(volume).astype(int) - stored.thumbnail).max() <= 1
        )
    except Exception as error:  # whatever a decoder of damaged bytes may raise
        return f"cannot be read ({type(error).__name__})"
    if not (deciles_match and thumbnail_matches):
        return "its stored deciles or thumbnail do not match its voxels"
    points_match = points.keys() == stored.sample_points.keys() and all(
        np.array_equal(points[name], stored.sample_points[name]) for name in points
    )
    return "" if points_match else "its stored sample points do not match its voxels"


def make_thumbnail(volume: Volume) -> UInt8[np.ndarray, "n n n"]:
    """Computes the thumbnail of a prepared image's first channel with the default normalization."""
    first = volume.voxels.reshape(-1, *volume.shape)[0]
    return thumbnail(IntensityNormalization().apply(subsample_for_thumbnail(first), volume.unit))


def content_sha256(volume: Volume) -> str:
    """Hashes voxels, their type, unit and affine, independently of compression and memory layout."""
    head = f"{volume.voxels.dtype}{volume.voxels.shape}{volume.unit}{np.round(volume.affine, 4).tolist()}"
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(volume.voxels).data)
    return digest.hexdigest()


def count_components(mask: Bool[np.ndarray, "i j k"]) -> int:
    """Returns the number of connected components of a mask; voxels that share a corner are connected."""
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return int(ndimage.label(mask[boxes[0]], NEIGHBOURS_26)[1]) if boxes else 0


def _draw_sample_points(volume: Volume) -> SamplePoints:
    """Selects voxels of each label value, or of the body of an image, always the same ones."""
    first = volume.voxels.reshape(-1, *volume.shape)[0]
    if volume.unit == "label":
        foreground = np.flatnonzero(first != 0)
        values = first.ravel()[foreground]
        selected = {str(v): _limit_points(foreground[values == v]) for v in list_label_values(values)}
        return {v: np.stack(np.unravel_index(flat, first.shape), axis=1) for v, flat in selected.items()}
    body = np.argwhere(body_mask(subsample(first), volume.unit)) * subsample_strides(volume.shape)
    return {"body": _limit_points(body)}


def _limit_points(points: Int[np.ndarray, "n *xyz"]) -> Int[np.ndarray, "m *xyz"]:
    """Selects MAX_SAMPLE_POINTS points, or all if there are fewer."""
    if len(points) <= MAX_SAMPLE_POINTS:
        return points
    return points[np.sort(np.random.default_rng(len(points)).choice(len(points), MAX_SAMPLE_POINTS, replace=False))]
