"""Store: prepared cases on disk, one compressed file each, of which a crop reads only what it needs."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
from jaxtyping import Float32, Int, Shaped, UInt8
from pydantic import Field
from scipy import ndimage

from medssl import config
from medssl.data.fingerprint import CELLS, picture, sparse
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import AIR_HU, DECILES, Recipe, body, deciles, thinned, thinning
from medssl.errors import BadInput
from medssl.files import atomic, write_json
from medssl.io.voxels import present
from medssl.settings import Settings
from medssl.volume import NEIGHBOURS_26, Spacing, Unit, Volume

Corner = tuple[int, int, int]
Points = dict[str, Int[np.ndarray, "n 3"]]
CHUNK, BLOCK = 64, 32  # voxels a side: the unit of reading, and that of decompressing
POINTS = 4096  # coordinates kept of the body and of each class, to sample crops about
OPEN = 256  # files one process keeps open


class Card(Settings):
    """What holds for a whole store, written to store.json."""

    recipe: Recipe = Recipe()
    spacing_mm: Spacing | None = None
    labels: dict[int, str] = Field(default_factory=dict)
    present_labels: dict[str, list[int]] = Field(default_factory=dict)
    regions: dict[str, list[int]] = Field({}, description="unions of classes that have a name")
    shares: dict[str, float] = Field({}, description="of patients, as asked; empty stands for the usual ones")
    seed: int = Field(0, description="of the split")
    key: str = Field("", description="a mark of the key behind its pseudonyms; empty without de-identification")

    def write(self, folder: Path) -> None:
        """Writes FOLDER/store.json."""
        write_json(folder / "store.json", self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> "Card":
        """Reads FOLDER/store.json."""
        path = folder / "store.json"
        if not path.is_file():
            raise BadInput(
                f"{folder}: no store (store.json is missing); `medssl ingest SCANS --out {folder}` makes one"
            )
        try:
            return config.check(json.loads(path.read_text()), cls, str(path))
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: not JSON ({error}); ingest again into a new folder") from None


@dataclass(frozen=True)
class Stored:
    """An open file of the store: its voxels stay on disk until they are sliced."""

    array: Any
    affine: Shaped[np.ndarray, "4 4"]
    unit: Unit
    points: Points
    sha256: str
    deciles: Float32[np.ndarray, "c d"] | None = None
    picture: UInt8[np.ndarray, "q q q"] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.array.shape[-3:]
        return i, j, k

    @cached_property
    def parts(self) -> list[tuple[int, Int[np.ndarray, "n 3"]]]:
        """Every connected part of a label: its class and some of its voxels; reads the whole label once."""
        voxels, found = self.array[:], []
        for value in set(present(voxels)) - {0}:
            numbered, _ = ndimage.label(voxels == value, NEIGHBOURS_26)
            boxes = enumerate(ndimage.find_objects(numbered), 1)
            inside = [np.argwhere(numbered[box] == n) + [side.start for side in box] for n, box in boxes]
            found += [(value, _chosen(points)) for points in inside]
        return found

    def volume(self) -> Volume:
        """All of it, in memory."""
        return Volume(self.array[:], self.affine, self.unit)

    def input(self, recipe: Recipe) -> Float32[np.ndarray, "*c i j k"]:
        """All of it as a network takes it."""
        return recipe.apply(self.array[:], self.unit, self.deciles)

    def about(self) -> dict[str, Any]:
        """What it was made from: the shape and the affine that the scanner gave it, and where it was read."""
        return json.loads(self.array.schunk.vlmeta["about"])

    def crop(self, corner: Corner, size: Corner) -> Shaped[np.ndarray, "*c i j k"]:
        """The voxels from `corner` on; what lies outside the volume is air, or label 0."""
        low = [min(n, max(0, c)) for n, c in zip(self.shape, corner, strict=True)]
        high = [min(n, max(0, c + s)) for n, c, s in zip(self.shape, corner, size, strict=True)]
        (a, b, c), (p, q, r) = low, high
        inside = self.array[..., a:p, b:q, c:r]
        if inside.shape[-3:] == size:
            return inside
        fill = AIR_HU if self.unit == "HU" else 0
        whole = np.full((*inside.shape[:-3], *size), fill, inside.dtype)
        i, j, k = corner
        whole[..., a - i : p - i, b - j : q - j, c - k : r - k] = inside
        return whole


class Store:
    """The cases of a manifest as crops; keeps files open, so one object a process."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._open: OrderedDict[Path, Stored] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"manifest": self.manifest, "_open": OrderedDict()}

    def image(self, case: Case) -> Stored:
        """A case's open image."""
        return self._stored(self.manifest.path(case))

    def label(self, case: Case) -> Stored:
        """A case's open label."""
        return self._stored(self.manifest.label_path(case))

    def crop(self, case: Case, corner: Corner, size: Corner) -> Shaped[np.ndarray, "c i j k"]:
        """Stored voxels of a case's image from `corner` on, padded with air outside the volume."""
        return self.image(case).crop(corner, size)

    def _stored(self, path: Path) -> Stored:
        if path not in self._open:
            self._open[path] = read(path)
            if len(self._open) > OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]


def write(path: Path, volume: Volume, about: Mapping[str, Any]) -> str:
    """Writes a prepared volume atomically, with the points crops are drawn about; gives its content hash."""
    voxels = np.ascontiguousarray(volume.voxels)
    sha = content_sha256(volume)
    points = {name: p.astype(np.int16).tobytes() for name, p in _points(volume).items()}
    sides = [min(n, CHUNK) for n in volume.shape]
    blocks = [min(n, BLOCK) for n in volume.shape]
    lead = [1] * (voxels.ndim - 3)
    array = blosc2.asarray(
        voxels, chunks=(*lead, *sides), blocks=(*lead, *blocks), contiguous=True,
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
    )  # fmt: skip
    place: dict[str, Any] = {
        "affine": volume.affine.astype(float).ravel().tolist(),
        "unit": volume.unit,
        "sha256": sha,
    }
    place |= {"deciles": deciles(volume).ravel().tolist()} if volume.unit == "a.u." else {}
    place |= {"picture": looked_at(volume).tobytes()} if volume.unit != "label" else {}
    for key, value in (place | {"points": points, "about": json.dumps(about)}).items():
        array.schunk.vlmeta[key] = value
    with atomic(path) as part:
        part.write_bytes(array.to_cframe())
    return sha


def read(path: Path) -> Stored:
    """Opens a file of the store."""
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
        meta = array.schunk.vlmeta
        points = {name: np.frombuffer(p, np.int16).reshape(-1, 3) for name, p in meta["points"].items()}
        affine = np.array(meta["affine"], float).reshape(4, 4)
        scale = np.array(meta["deciles"], np.float32).reshape(-1, len(DECILES)) if "deciles" in meta else None
        shown = np.frombuffer(meta["picture"], np.uint8).reshape((CELLS,) * 3) if "picture" in meta else None
        return Stored(array, affine, cast(Unit, meta["unit"]), points, meta["sha256"], scale, shown)
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: not a file of a store ({error}); run the ingestion again") from error


def fault(path: Path, sha256: str) -> str:
    """What is wrong with a file that must hold voxels of this hash; empty if nothing is."""
    try:
        stored = read(path)
        volume = stored.volume()
        if sha256 not in (stored.sha256, "") or content_sha256(volume) != stored.sha256:
            return "holds other voxels than were written"
        points = _points(volume)
        told = stored.deciles is None or np.array_equal(deciles(volume), stored.deciles)
        seen = stored.picture is None or np.abs(looked_at(volume).astype(int) - stored.picture).max() <= 1
    except Exception as error:  # whatever a decoder of damaged bytes may raise
        return f"cannot be read ({type(error).__name__})"
    if not (told and seen):
        return "tells other deciles or another picture than were written"
    same = points.keys() == stored.points.keys() and all(np.array_equal(points[n], stored.points[n]) for n in points)
    return "" if same else "draws its crops about other points than were written"


def looked_at(volume: Volume) -> UInt8[np.ndarray, "n n n"]:
    """The picture of a prepared image's first channel, under the usual recipe."""
    first = volume.voxels.reshape(-1, *volume.shape)[0]
    return picture(Recipe().apply(sparse(first), volume.unit))


def content_sha256(volume: Volume) -> str:
    """One hash over voxels, their type and their place, whatever the compression."""
    head = f"{volume.voxels.dtype}{volume.voxels.shape}{volume.unit}{np.round(volume.affine, 4).tolist()}"
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(volume.voxels).data)
    return digest.hexdigest()


def _points(volume: Volume) -> Points:
    first = volume.voxels.reshape(-1, *volume.shape)[0]
    if volume.unit == "label":
        places = np.flatnonzero(first != 0)
        classes = first.ravel()[places]
        chosen = {str(v): _chosen(places[classes == v]) for v in present(classes)}
        return {v: np.stack(np.unravel_index(at, first.shape), axis=1) for v, at in chosen.items()}
    return {"body": _chosen(np.argwhere(body(thinned(first), volume.unit)) * thinning(volume.shape))}


def _chosen(points: Int[np.ndarray, "n *xyz"]) -> Int[np.ndarray, "m *xyz"]:
    if len(points) <= POINTS:
        return points
    return points[np.sort(np.random.default_rng(len(points)).choice(len(points), POINTS, replace=False))]
