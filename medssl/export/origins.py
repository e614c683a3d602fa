"""Finds out which tool and which person made the outlines of a case."""

import re
from typing import get_args

from medssl.export.reviewed_findings import ReviewedFinding
from medssl.io.dicom.derived.provenance import AlgorithmInfo, AlgorithmType, MaskOrigin
from medssl.predictions_folder import IMPORTED, NOTICE, Index


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


def find_origin(item: ReviewedFinding, algorithm: AlgorithmInfo, reader: str) -> MaskOrigin | None:
    """Returns who made the outline of a finding; None if the finding has no outline.

    Args:
        item: The finding after the review.
        algorithm: The tool that predicted.
        reader: The login of the reader of the case.
    """
    if item.number is None:
        return None
    if item.finding.source == "reader":
        return MaskOrigin(None, reader)
    return MaskOrigin(algorithm, reader if item.is_corrected else "")
