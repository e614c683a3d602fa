"""Finds out which tool and which person made the outlines of a case."""

import json
import re
from collections.abc import Sequence
from typing import get_args

from medssl.export.reviewed_findings import ReviewedFinding
from medssl.io.dicom.derived.provenance import AlgorithmInfo, AlgorithmType, MaskOrigin
from medssl.predictions_folder import IMPORTED, NOTICE, Index
from medssl.review.event import Event


def describe_algorithm(index: Index) -> AlgorithmInfo:
    """Returns the tool that predicted: a run of this project, or the tool whose masks were imported."""
    model = {name: str(value) for name, value in index.model.items()}
    tool = model.get("tool") or (model.get("run", "unknown") if index.weights_sha256 == IMPORTED else "")
    if tool:
        types: tuple[AlgorithmType, ...] = get_args(AlgorithmType)
        type_ = next((name for name in types if name == model.get("tool_type", "").upper()), types[0])
        return AlgorithmInfo(tool, model.get("tool_version") or "unknown", "", NOTICE, type_)
    weights = index.weights_sha256 if re.fullmatch(r"[0-9a-f]{64}", index.weights_sha256) else ""
    run = re.split(r"[/\\]", model.get("run", ""))[-1]
    return AlgorithmInfo("medssl", model.get("version") or "unknown", weights, NOTICE, run=run)


def find_origin(
    item: ReviewedFinding, algorithm: AlgorithmInfo, reader: str, strokes: Sequence[Event] = ()
) -> MaskOrigin | None:
    """Returns who made the outline of a finding; None if the finding has no outline.

    Args:
        item: The finding after the review.
        algorithm: The tool that predicted.
        reader: The login of the reader of the case.
        strokes: The strokes of the reader.
    """
    if item.number is None:
        return None
    if item.finding.source == "reader":
        return MaskOrigin(_find_assistant(item.finding.id, strokes), reader)
    return MaskOrigin(algorithm, reader if item.is_corrected else "")


def _find_assistant(finding: str, strokes: Sequence[Event]) -> AlgorithmInfo | None:
    """Returns the tool that proposed a stroke of a finding that a reader added; None if the reader drew them all."""
    id_, _, event = finding.partition("-part-")[0].rpartition("-drawn-")
    for stroke in strokes:
        is_part = stroke.finding == finding.partition("-part-")[0] or bool(id_ and event == str(stroke.id))
        if is_part and (tool := json.loads(stroke.details or "{}").get("assist")):
            return AlgorithmInfo(tool["engine"], tool["version"], "", NOTICE, "SEMIAUTOMATIC")
    return None
