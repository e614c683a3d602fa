"""Divides cases into clusters of similar pooled features, by k-means.

Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007), https://doi.org/10.5555/1283383.1283494.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy.cluster.vq import kmeans2

from medssl.errors import BadInput
from medssl.inference.case_selection import standardize

NUM_STARTS = 20  # k-means from different centres, of which the best is kept


@dataclass(frozen=True)
class ClusteredCase:
    """A case and its cluster.

    Args:
        cluster: The name of the cluster: cluster-1 for the largest, and so on.
        rank: The rank in the cluster from 1, the case nearest to its centre, which represents it best, first.
        case: The id of the case.
        distance: The distance from the centre, in standard deviations of a feature over all cases.
    """

    cluster: str
    rank: int
    case: str
    distance: float


def cluster_cases(
    names: Sequence[str], embeddings: Float[np.ndarray, "m d"], count: int, seed: int = 0
) -> list[ClusteredCase]:
    """Returns all cases by cluster and rank; the order of the cases has no influence.

    Args:
        names: The id of each case.
        embeddings: The pooled features of each case.
        count: The number of clusters.
        seed: The seed of the first centres.

    Raises:
        BadInput: There are fewer different cases than clusters.
    """
    order = np.argsort(names)
    features = standardize(embeddings[order])
    most = len(np.unique(features.round(6), axis=0))
    if not 1 <= count <= most:
        raise BadInput(f"--clusters {count}: the scans have {most} different features; give 1 to {most} clusters")
    generator = np.random.default_rng(seed)
    partitions = (_partition(features, count, generator) for _ in range(NUM_STARTS))
    distances, cluster = min(partitions, key=lambda partition: float(np.square(partition[0]).sum()))
    groups = sorted(
        (np.flatnonzero(cluster == n) for n in np.unique(cluster)), key=lambda group: (-len(group), group[0])
    )
    return [
        ClusteredCase(f"cluster-{number}", rank, names[order[n]], float(distances[n]))
        for number, group in enumerate(groups, 1)
        for rank, n in enumerate(group[np.argsort(distances[group], kind="stable")], 1)
    ]


def _partition(
    features: Float[np.ndarray, "m d"], count: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "m"], Integer[np.ndarray, "m"]]:
    """Returns the root mean square distance of each case to the centre of its cluster, and its cluster."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of a cluster that lost all its cases
        centres, cluster = kmeans2(features, count, iter=100, minit="++", seed=generator)
    return np.sqrt(np.square(features - centres[cluster]).mean(1)), cluster
