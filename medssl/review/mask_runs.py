"""Corrected masks as runs: what a stroke changed, small enough to travel and to store with each event."""

import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, Integer

from medssl.errors import BadInput

Labels = Integer[np.ndarray, "i j k"]
Runs = Int64[np.ndarray, "n 3"]  # first voxel (i fastest), number of voxels, the label they get


def diff(before: Labels, after: Labels) -> Runs:
    """The runs that turn one label image into another."""
    old, new = before.ravel(order="F"), after.ravel(order="F")
    at = np.flatnonzero(old != new)
    starts = np.flatnonzero(np.diff(at, prepend=-2) - 1 | np.diff(new[at].astype(np.int64), prepend=-1))
    lengths = np.diff(starts, append=len(at))
    return np.stack([at[starts], lengths, new[at[starts]]], 1).astype(np.int64)


def apply(labels: Labels, runs: Runs) -> Labels:
    """The label image after the runs; runs outside it are refused."""
    flat = labels.ravel(order="F").copy()
    if len(runs) and (runs[:, :2].min() < 0 or (runs[:, 0] + runs[:, 1]).max() > flat.size):
        raise BadInput(f"a stroke leaves the image of {flat.size} voxels; it was drawn on another image")
    for start, length, value in runs:
        flat[start : start + length] = value
    return flat.reshape(labels.shape, order="F")


def pack(runs: Runs | Iterable[Iterable[int]]) -> bytes:
    """Runs as compressed bytes; the starts are stored as differences."""
    table = np.array([list(r) for r in runs], "<i8").reshape(-1, 3)
    table[1:, 0] -= table[:-1, 0].copy()
    return zlib.compress(table.tobytes(), 9)


def unpack(packed: bytes) -> Runs:
    """The runs that were packed."""
    table = np.frombuffer(zlib.decompress(packed), "<i8").reshape(-1, 3).astype(np.int64)
    table[:, 0] = np.cumsum(table[:, 0])
    return table
