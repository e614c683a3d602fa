"""Averages several predictions of one volume slab by slab; large sums lie in a temporary file instead of in memory."""

from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile

import numpy as np
from jaxtyping import Float32

from medssl.inference.predictor import class_entropy
from medssl.inference.sliding_window import ROWS_PER_SLAB

MAX_BYTES_IN_MEMORY = 2**26


def stream_mean(
    predictions: Iterable[Iterator[Float32[np.ndarray, "n _ u v"]]], count: int
) -> Iterator[tuple[Float32[np.ndarray, "n w u v"], Float32[np.ndarray, "w u v"]]]:
    """Yields slabs of the mean of several predictions, and of their disagreement.

    The disagreement is the entropy of the mean minus the mean entropy, as a fraction of the largest possible entropy.

    Args:
        predictions: The slabs of each prediction, from the first row to the last. They are taken one after the other,
            and need not have the same numbers of rows.
        count: The number of predictions.
    """
    with SpooledTemporaryFile(max_size=MAX_BYTES_IN_MEMORY) as file:
        shape = (0, 0, 0)
        for slabs in predictions:
            file.seek(0)
            for slab in slabs:
                sums = np.concatenate([slab, -class_entropy(slab)[None]]) / np.float32(count)
                shape = sums.shape[0], sums.shape[2], sums.shape[3]
                _add_rows(file, sums.swapaxes(0, 1))
        file.seek(0)
        while content := file.read(ROWS_PER_SLAB * int(np.prod(shape)) * 4):
            rows = np.frombuffer(bytearray(content), np.float32).reshape(-1, *shape)
            total = rows.swapaxes(0, 1)
            mean, negative_entropy = total[:-1], total[-1]
            yield mean, ((negative_entropy + class_entropy(mean)) / np.float32(np.log(len(mean)))).clip(0, 1)


def _add_rows(file: "SpooledTemporaryFile[bytes]", rows: Float32[np.ndarray, "w c u v"]) -> None:
    """Adds rows to those at the current position of a file, or appends them at its end."""
    start = file.tell()
    if before := file.read(rows.nbytes):
        rows = rows + np.frombuffer(before, np.float32).reshape(rows.shape)
        file.seek(start)
    file.write(rows.tobytes())
