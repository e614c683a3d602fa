"""Draws the places and the cases that a search has found, or clusters of cases, as one HTML page with pictures."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from medssl.finding import Point
from medssl.render.figures import crop_around_lesion, encode_png, planes_through
from medssl.render.report import NOTICE
from medssl.render.templates import render_template
from medssl.retrieval.clusters import ClusteredCase
from medssl.retrieval.search import SimilarCase, SimilarPlace
from medssl.volume import Volume

TEMPLATE, CLUSTER_TEMPLATE = (Path(__file__).with_name(name) for name in ("retrieval.html", "clusters.html"))
PIXELS = 200  # the longest edge of a scan, or of what is shown of it
REACH_MM = 40.0  # of the tissue around a place; the margin of `crop_around_lesion` adds as much


def render_page(
    query: tuple[str, Volume],
    places_mm: Sequence[Point],
    cases: Sequence[SimilarCase],
    places: Sequence[SimilarPlace],
    read: Callable[[str], Volume],
    num_shown: int,
    regions: Mapping[tuple[int, str], Volume] = MappingProxyType({}),
) -> str:
    """Returns a page with the query next to the best matches of each place, and next to the most similar cases.

    Args:
        query: The id of the query and its scan.
        places_mm: The given places in mm, RAS+.
        cases: The cases, the most similar first.
        places: The places found, the most similar first.
        read: Reads the scan of a case.
        num_shown: How many matches of a place, and how many cases, are drawn.
        regions: Label maps to outline, by the number of the place and the case.
    """
    name, scan = query
    groups = []
    for number, place_mm in enumerate(places_mm, 1):
        matches = [match for match in places if match.place == number][:num_shown]
        pairs = []
        for match in matches:
            picture = _draw(read(match.case), match.place_mm, regions.get((number, match.case)))
            pairs.append(_pair(match, _describe_place(match), picture))
        picture = _draw(scan, place_mm, regions.get((number, name)))
        groups.append({"title": f"Places like {_format(place_mm)} mm", "query": picture, "pairs": pairs})
    pairs = [_pair(case, f"similarity {case.similarity:.3f}", _draw(read(case.case))) for case in cases[:num_shown]]
    groups.append({"title": "Cases like this one", "query": _draw(scan), "pairs": pairs})
    return render_template(TEMPLATE, title=f"Like {name}", name=name, groups=groups, notice=NOTICE)


def render_clusters(cases: Sequence[ClusteredCase], read: Callable[[str], Volume], num_shown: int) -> str:
    """Returns a page with the cases that represent each cluster best.

    Args:
        cases: All cases by cluster and rank.
        read: Reads the scan of a case.
        num_shown: How many cases of a cluster are drawn.
    """
    groups = []
    for name in dict.fromkeys(row.cluster for row in cases):
        members = [row for row in cases if row.cluster == name]
        pictures = [
            {
                "title": f"{row.rank}. {row.case}",
                "facts": f"distance {row.distance:.3f}",
                "picture": _draw(read(row.case)),
            }
            for row in members[:num_shown]
        ]
        groups.append({"title": f"{name.capitalize()}: {len(members)} of {len(cases)} cases", "pictures": pictures})
    return render_template(CLUSTER_TEMPLATE, title=f"{len(groups)} clusters of cases", groups=groups, notice=NOTICE)


def _pair(match: SimilarCase | SimilarPlace, facts: str, picture: str) -> dict[str, Any]:
    return {"title": f"{match.rank}. {match.case}", "facts": facts, "picture": picture}


def _draw(scan: Volume, place_mm: Point | None = None, region: Volume | None = None) -> str:
    """Returns the planes through a place and what is near it, or through the middle of a scan, as PNG in base64."""
    first = scan if scan.voxels.ndim == 3 else Volume(scan.voxels[0], scan.affine, scan.unit)
    if place_mm is None:
        x, y, z = first.to_mm((np.array(first.shape) - 1) / 2).tolist()
        picture = planes_through(first, (x, y, z), side=PIXELS)
    else:
        low_mm, high_mm = ((place_mm[0] + r, place_mm[1] + r, place_mm[2] + r) for r in (-REACH_MM, REACH_MM))
        near = crop_around_lesion(first.reorient("RAS"), low_mm, high_mm)
        labels = None if region is None else region.resample_to(near, 0)
        picture = planes_through(near, place_mm, labels, PIXELS, is_marked=True)
    return base64.b64encode(encode_png(picture)).decode()


def _describe_place(match: SimilarPlace) -> str:
    way_back = "consistent" if match.is_consistent else "not consistent"
    return (
        f"similarity {match.similarity:.3f}, at {_format(match.place_mm)} mm;"
        f" the way back ends {match.back_mm:.1f} mm from the place: {way_back}"
    )


def _format(place_mm: Point) -> str:
    return ", ".join(f"{value:.1f}" for value in place_mm)
