"""Reads and writes features that an encoder made of the images of predictions, as half floats."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.volume import Volume

PROJECTION = "projection.npz"


def locate_encodings(predictions: Path) -> Path:
    """Returns the folder of the encodings of a predictions folder, which is never written to itself."""
    folder = predictions.absolute()
    return folder.with_name(f"{folder.name}-encodings")


def write_encoding(path: Path, encoding: Volume) -> None:
    """Writes features with the affine of their grid as an .npz file that only its owner may read."""
    with atomic_file(path, is_private=True) as part, part.open("wb") as file:
        np.savez_compressed(file, voxels=encoding.voxels.astype(np.float16), affine=encoding.affine)


def read_encoding(path: Path) -> Volume:
    """Reads features; raises BadInput if the file is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Volume(arrays["voxels"].astype(np.float32), arrays["affine"], "a.u.")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BadInput(f"{path}: no encoding ({error}); `medssl encode RUN PREDICTIONS` writes it") from None
