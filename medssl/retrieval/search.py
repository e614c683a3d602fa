"""Searches scans for cases and places like those of a query, and reads each scan once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.finding import Point
from medssl.inference.case_selection import case_similarity
from medssl.retrieval.features import FeatureSource, embed_case
from medssl.retrieval.normalized_cut import propose_region
from medssl.retrieval.places import match_place
from medssl.volume import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimilarCase:
    """A case that is like the query as a whole.

    Args:
        rank: The rank from 1, the most similar case first.
        case: The id of the case.
        similarity: The similarity of the pooled features, 0 to 1.
    """

    rank: int
    case: str
    similarity: float


@dataclass(frozen=True)
class SimilarPlace:
    """The place of a case that is most like a place of the query.

    Args:
        place: The number of the given place, from 1.
        rank: The rank from 1, the most similar place first.
        case: The id of the case.
        similarity: The cosine similarity of the features, at most 1.
        x_mm: The place found, towards the patient's right.
        y_mm: The place found, towards the front.
        z_mm: The place found, towards the head.
        back_mm: The distance from the given place to where the way back from the place found ends.
        is_consistent: Whether that distance is within the tolerance.
    """

    place: int
    rank: int
    case: str
    similarity: float
    x_mm: float
    y_mm: float
    z_mm: float
    back_mm: float
    is_consistent: bool

    @property
    def place_mm(self) -> Point:
        """The place found in mm, RAS+."""
        return self.x_mm, self.y_mm, self.z_mm


def find_scan(scans: Sequence[ScanRef], case: str) -> ScanRef:
    """Returns the scan of a case, or raises BadInput if there is none or no other one to compare it with."""
    matches = [scan for scan in scans if scan.case == case]
    if not matches:
        names = ", ".join(scan.case for scan in scans[:5])
        raise BadInput(f"{case}: no such case among {len(scans)} scans; give one of {names}, ...")
    if len(scans) < 2:
        raise BadInput(f"{case}: is the only scan; give a folder or a manifest with more scans")
    return matches[0]


def require_inside(scan: Volume, case: str, place_mm: Point) -> None:
    """Raises BadInput if a place in mm, RAS+, is not inside a scan."""
    index = scan.to_index(np.array(place_mm))
    if (index < -0.5).any() or (index > np.array(scan.shape) - 0.5).any():
        raise BadInput(
            f"{case}: the place {_format(place_mm)} mm is the voxel {_format(index.tolist())}, outside the scan of"
            f" {_format(scan.shape)} voxels; give a place in mm (RAS+) or a voxel index inside"
        )


def search_scans(
    scans: Sequence[ScanRef],
    query: ScanRef,
    places_mm: Sequence[Point],
    features: FeatureSource,
    tolerance_mm: float = 10.0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[SimilarCase], list[SimilarPlace]]:
    """Returns all other cases by their similarity to the query, and the place of each that is most like each place.

    A scan that cannot be read, or that the network was not trained for, is left out, with the reason in the log.

    Args:
        scans: The scans to search, among them the query.
        query: The scan that others are compared with.
        places_mm: Places of the query in mm, RAS+.
        features: What computes the features of a scan.
        tolerance_mm: The largest distance, after the way there and back, of a match that counts as consistent.
        on_progress: Called with the number of searched scans and of all scans.

    Raises:
        BadInput: The query or all other scans cannot be used.
    """
    source = features.compute(query.read())
    others = [scan for scan in scans if scan.case != query.case]
    names, embeddings, matches = list[str](), [embed_case(source)], []
    for name, target in _compute_usable(others, features, on_progress):
        names.append(name)
        embeddings.append(embed_case(target))
        matches.append([match_place(source, place_mm, target) for place_mm in places_mm])
    if not names:
        raise BadInput(
            f"{query.case}: none of the {len(others)} other scans can be compared with it; see the reasons above"
        )
    similarity = case_similarity(np.stack(embeddings))[0, 1:]
    cases = [
        SimilarCase(rank, names[n], float(similarity[n]))
        for rank, n in enumerate(np.argsort(-similarity, kind="stable"), 1)
    ]
    places = []
    for number in range(len(places_mm)):
        order = np.argsort([-row[number].similarity for row in matches], kind="stable")
        for rank, n in enumerate(order, 1):
            match = matches[n][number]
            is_consistent = match.back_mm <= tolerance_mm
            score = (match.similarity, *match.place_mm, match.back_mm, is_consistent)
            places.append(SimilarPlace(number + 1, rank, names[n], *score))
    return cases, places


def embed_scans(
    scans: Sequence[ScanRef],
    features: FeatureSource,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], Float[np.ndarray, "m d"]]:
    """Returns the ids and the pooled features of all scans that can be used; arguments as in `search_scans`.

    Raises:
        BadInput: No scan can be used.
    """
    rows = [(name, embed_case(levels)) for name, levels in _compute_usable(scans, features, on_progress)]
    if not rows:
        raise BadInput(f"none of the {len(scans)} scans can be used; see the reasons above")
    return [name for name, _ in rows], np.stack([row for _, row in rows])


def _compute_usable(
    scans: Sequence[ScanRef], features: FeatureSource, on_progress: Callable[[int, int], None]
) -> Iterator[tuple[str, list[Volume]]]:
    """Yields the id and the features of each scan that can be used, and logs why the others cannot."""
    for number, scan in enumerate(scans, 1):
        try:
            levels = features.compute(scan.read())
        except BadInput as error:
            log.warning("%s: is left out: %s", scan.case, error)
        else:
            yield scan.case, levels
        on_progress(number, len(scans))


def propose_regions(
    read: Callable[[str], Volume], matches: Sequence[tuple[int, str, Point]], features: FeatureSource, reach_mm: float
) -> dict[tuple[int, str], Volume]:
    """Returns the region around each place that a normalised cut proposes, by the number of the place and the case.

    Each case is read and encoded once.

    Args:
        read: Reads the scan of a case.
        matches: Number of the place, case, and the place in mm, RAS+.
        features: What computes the features of a scan, of which the finest level is cut.
        reach_mm: The distance of the faces of the box around a place from the place.
    """
    regions = {}
    for name in dict.fromkeys(case for _, case, _ in matches):
        finest = features.compute(read(name))[0]
        for number, case, place_mm in matches:
            if case == name:
                regions[number, case] = propose_region(finest, place_mm, reach_mm)
    return regions


def _format(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
