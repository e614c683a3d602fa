"""Classifies voxels as inside or outside from few examples: a Gaussian process on features and position.

The process is approximated by random Fourier features (Rahimi and Recht, NIPS 2007). What was seen is kept as sums over
examples, so that clicks, masks and signed cases add up, and no voxel of a patient is stored.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import linalg

SIZE = 128  # the number of random features
FEATURE_LENGTH = 1.0  # the length scale of the process along each feature
POSITION_LENGTH_MM = 10.0  # the length scale along the position
RIDGE = 0.02
MAX_EXAMPLES = 3000  # of one kind; more are thinned out
SEED = 20261129

Embedding = Float32[np.ndarray, "d n"]
Positions = Float32[np.ndarray, "3 n"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Sums over examples: of the outer products of their embeddings, and of their embeddings times +1 or -1."""

    gram: Float[np.ndarray, "d d"]
    moment: Float[np.ndarray, " d"]

    @classmethod
    def empty(cls) -> "Evidence":
        """Returns the evidence of no example."""
        return cls(np.zeros((SIZE, SIZE), np.float32), np.zeros(SIZE, np.float32))

    @classmethod
    def from_examples(cls, examples: Embedding, is_inside: bool) -> "Evidence":
        """Returns the mean evidence of examples of one kind, whatever their number."""
        if not examples.shape[1]:
            return cls.empty()
        thinned = examples[:, :: -(-examples.shape[1] // MAX_EXAMPLES)]
        mean = thinned.mean(1)
        return cls(thinned @ thinned.T / np.float32(thinned.shape[1]), mean if is_inside else -mean)

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.gram + other.gram, self.moment + other.moment)

    def __mul__(self, weight: float) -> "Evidence":
        return Evidence(self.gram * np.float32(weight), self.moment * np.float32(weight))

    def fit(self) -> Float[np.ndarray, " d"]:
        """Returns the weights of the embedding by ridge regression of +1 inside and -1 outside."""
        return linalg.solve(self.gram + RIDGE * np.eye(SIZE, dtype=np.float32), self.moment, assume_a="pos")


def embed_voxels(features: Float32[np.ndarray, "c n"], positions_mm: Positions) -> Embedding:
    """Returns the random Fourier features of voxels.

    Args:
        features: The features of each voxel.
        positions_mm: The position of each voxel relative to the centre of the finding, in mm.
    """
    frequencies, position_frequencies, phases = _draw_frequencies(len(features))
    angles = frequencies @ features + position_frequencies @ positions_mm
    angles += phases
    return np.cos(angles, out=angles) * np.float32(np.sqrt(2 / SIZE))


def measure_evidence(examples: Embedding, is_inside: Bool[np.ndarray, " n"], weight: float = 1.0) -> Evidence:
    """Returns the evidence of examples of both kinds, each kind with the same weight."""
    inside = Evidence.from_examples(examples[:, is_inside], is_inside=True)
    return (inside + Evidence.from_examples(examples[:, ~is_inside], is_inside=False)) * weight


@lru_cache(maxsize=4)
def _draw_frequencies(
    channels: int,
) -> tuple[Float32[np.ndarray, "d c"], Float32[np.ndarray, "d 3"], Float32[np.ndarray, "d 1"]]:
    """Draws the same frequencies at every call, so that stored evidence stays valid."""
    generator = np.random.default_rng(SEED)
    positions = generator.standard_normal((SIZE, 3)) / POSITION_LENGTH_MM
    phases = generator.uniform(0, 2 * np.pi, (SIZE, 1))
    features = generator.standard_normal((SIZE, channels)) / FEATURE_LENGTH
    return features.astype(np.float32), positions.astype(np.float32), phases.astype(np.float32)
