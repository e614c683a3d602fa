"""Scores scans by sentences, with an encoder that was aligned with reports: which scan a sentence fits, and where.

Radford et al., "Learning transferable visual models from natural language supervision" (2021),
https://arxiv.org/abs/2103.00020, section 3.1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from medssl.data.ingest.read_source import ScanRef
from medssl.volume import Volume

Project = Callable[[Float[np.ndarray, "n c"]], Float[np.ndarray, "n d"]]


@dataclass(frozen=True)
class PromptScore:
    """How well a sentence fits a scan.

    Attributes:
        case: Id of the case.
        prompt: The sentence.
        score: Largest cosine similarity of a window, less that of the opposite sentence if there is one.
        mean_score: The mean over all windows.
        place_mm: Centre of the window with the largest score, in mm, RAS+.
    """

    case: str
    prompt: str
    score: float
    mean_score: float
    place_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Prompts:
    """Sentences to look for.

    Attributes:
        sentences: The sentences.
        embeddings: A row of length 1 for each.
        opposite: The embedding of a sentence for scans that they do not fit; None compares with none.
    """

    sentences: tuple[str, ...]
    embeddings: Float[np.ndarray, "n d"]
    opposite: Float[np.ndarray, "d"] | None = None

    def score(self, windows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m n"]:
        """Returns the score of each sentence in each window, whose rows have length 1."""
        scores = windows @ self.embeddings.T
        return scores if self.opposite is None else scores - (windows @ self.opposite)[:, None]


def score_scans(
    scans: Sequence[ScanRef],
    encode: Callable[[Volume], Volume],
    window: tuple[int, int, int],
    project: Project,
    prompts: Prompts,
) -> Iterator[list[PromptScore]]:
    """Yields the scores of all sentences for each scan.

    Args:
        scans: The scans.
        encode: Returns the coarsest features "c i j k" of a scan.
        window: Cells of a training crop.
        project: Maps the mean and the maximum of the features of windows to the space of the sentences.
        prompts: The sentences.
    """
    for scan in scans:
        features = encode(scan.read())
        rows, centres = pool_windows(features.voxels, window)
        projected = project(rows)
        scores = prompts.score(projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12))
        best = scores.argmax(0)
        places = [features.to_mm(centres[number]).tolist() for number in best]
        yield [
            PromptScore(scan.case, sentence, float(scores[best[n], n]), float(scores[:, n].mean()), (x, y, z))
            for n, (sentence, (x, y, z)) in enumerate(zip(prompts.sentences, places, strict=True))
        ]


def pool_windows(
    features: Float[np.ndarray, "c i j k"], window: tuple[int, int, int]
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m 3"]]:
    """Returns the mean and the maximum of the features in windows that overlap by half, and the centre of each.

    Args:
        features: A map; a window that is larger is cut to it.
        window: Size of a window in cells.
    """
    sizes = [min(size, cells) for size, cells in zip(features.shape[1:], window, strict=True)]
    starts = [
        sorted({*range(0, n - size, max(1, size // 2)), n - size})
        for n, size in zip(features.shape[1:], sizes, strict=True)
    ]
    rows, centres = [], []
    for corner in product(*starts):
        i, j, k = (slice(first, first + size) for first, size in zip(corner, sizes, strict=True))
        part = features[:, i, j, k].reshape(len(features), -1)
        rows.append(np.concatenate([part.mean(1), part.max(1)]))
        centres.append([first + (size - 1) / 2 for first, size in zip(corner, sizes, strict=True)])
    return np.array(rows, np.float32), np.array(centres)
