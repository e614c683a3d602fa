"""Measures the findings of a large case as a reader has drawn them, in the parts of it that the reader changed."""

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np

from medssl.export.drawn_findings import DrawnFinding, clear_sizes, measure_drawn_findings
from medssl.finding import Finding
from medssl.inference.findings.runs import Runs, find_runs, order_as_file
from medssl.inference.findings.sizes import measure_runs
from medssl.review.reading import Reading
from medssl.review.slabs.predicted_slabs import PredictedSlabs

PLANES = 16  # of an organ that are in memory at once


def measure_drawn_regions(
    predicted: PredictedSlabs, reading: Reading, names: Mapping[int, str]
) -> tuple[DrawnFinding, ...]:
    """Returns the findings with the sizes that `measure_drawn_findings` gives for the whole volume.

    The memory follows from what was drawn on, and from the surface of an organ that was.

    Args:
        predicted: The predicted findings.
        reading: The reading with the strokes.
        names: The name of each label value.
    """
    findings = (*predicted.findings, *reading.added)
    listed = {finding.id: DrawnFinding(finding, n) for n, finding in enumerate(findings, predicted.top + 1)}
    parts = list[DrawnFinding]()
    for region in predicted.list_regions(reading):
        for item in measure_drawn_findings(predicted.cut(region), reading, names).findings:
            if not item.is_listed:
                parts.append(item)
            elif item.is_changed:
                listed[item.finding.id] = item
    organs = [finding for finding in findings if finding.kind == "organ" and listed[finding.id].is_changed]
    for organ in organs:
        item = listed[organ.id]
        listed[organ.id] = replace(item, finding=_measure_organ(predicted, reading, organ, item.value))
    return (*listed.values(), *parts)


def _measure_organ(predicted: PredictedSlabs, reading: Reading, organ: Finding, value: int) -> Finding:
    """Returns an organ with its sizes after the strokes."""
    num_planes = predicted.grid.shape[2]
    columns = []
    for start in range(0, num_planes, PLANES):
        mask = predicted.cut_planes(start, min(start + PLANES, num_planes)).draw(reading).numbers.voxels == value
        columns.append(find_runs(order_as_file(mask, slice(0, mask.shape[2])), np.array([0, 0, start])).columns)
    runs = Runs(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))
    if not len(runs):
        return clear_sizes(organ)
    sizes = measure_runs(runs, predicted.grid)
    return replace(organ, **asdict(sizes), mean_intensity=None, sd_intensity=None)
