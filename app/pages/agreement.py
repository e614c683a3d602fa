"""Shows the agreement of readers who read independently, to those who may compare readers."""

from base64 import b64encode
from collections import Counter
from html import escape
from itertools import combinations

import numpy as np
import streamlit as st
from jaxtyping import Integer

from app import theme
from app.review_context import ReviewContext
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, Index, read_findings
from medssl.render.figures import disagreement_map, encode_png
from medssl.review.agreement import PairAgreement, compare_pairs, compute_dice, count_disagreement, measure_agreement
from medssl.review.corrected_labels import apply_reading
from medssl.review.event import DECISION_TEXT
from medssl.review.reading import Reading

Masks = dict[str, Integer[np.ndarray, "i j k"]]


def render_page(context: ReviewContext) -> None:
    """Shows the agreement over all cases with several signed readings, then one of these cases in detail."""
    pairs = compare_pairs(context.readings.values())
    if not pairs:
        theme.render_message(
            "No case has two signed readings",
            "Readers do not see each other's verdicts. A case appears here when two readers have signed it.",
        )
        return
    _render_kappas(context, pairs)
    num_disputed = Counter(case for pair in pairs for case, _, first, second in pair.decisions if first != second)
    readings = _group_signed_readings(context)
    shared = [case for case in context.index.cases if len(readings.get(case, ())) > 1]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        cases = sorted(shared, key=lambda case: -num_disputed[case])
        case = st.selectbox("Case (most disagreement first)", cases, width=320)
    _render_case(context.index, case, readings[case], pairs)


def _render_kappas(context: ReviewContext, pairs: list[PairAgreement]) -> None:
    header = "<div class='row kappas head'><span>Readers</span><span>Same verdict</span><span>Kappa</span></div>"
    rows = []
    for pair in pairs:
        total = len(pair.decisions)
        bar = theme.build_bar(pair.num_agreed, total, f"{pair.num_agreed} of {total} findings with the same verdict")
        rows.append(
            f"<div class='row kappas'><b>{escape(' and '.join(pair.readers))}</b><span>{bar}</span>"
            f"<span>{_format_kappa(pair.kappa)} <small>Cohen</small></span></div>"
        )
    if agreement := measure_agreement(context.readings.values()):
        rows.append(
            f"<div class='row kappas'><b>{len(agreement.readers)} readers</b><span>{agreement.num_findings} findings "
            f"with {agreement.readers_per_finding} readers each</span>"
            f"<span>{_format_kappa(agreement.kappa)} <small>Fleiss</small></span></div>"
        )
    st.html(header + "".join(rows))


def _format_kappa(kappa: float | None) -> str:
    return "not defined for a single verdict" if kappa is None else f"{kappa:.2f}"


def _group_signed_readings(context: ReviewContext) -> dict[str, list[Reading]]:
    """Returns the signed readings of each case, sorted by reviewer."""
    signed: dict[str, list[Reading]] = {}
    for (case, _), reading in sorted(context.readings.items()):
        if reading.signed_at:
            signed.setdefault(case, []).append(reading)
    return signed


def _render_case(index: Index, case: str, readings: list[Reading], pairs: list[PairAgreement]) -> None:
    """Shows where the masks of a case differ, their overlap, and the findings with different verdicts."""
    folder = index.case_folder(case)
    labels, findings = nifti.read(folder / LABELS, label=True), read_findings(folder)
    masks = {reading.reviewer: apply_reading(labels, findings, reading).voxels for reading in readings}
    image_column, table_column = st.columns([3, 2], gap="medium")
    num_different = count_disagreement(list(masks.values()))
    if num_different.any():
        image = disagreement_map(nifti.read(folder / IMAGE), num_different, len(masks))
        source = f"data:image/png;base64,{b64encode(encode_png(image)).decode()}"
        image_column.html(f"<img class=disputed alt='where the masks differ' src='{source}'>")
        image_column.html(
            "<small>Colour marks voxels where the masks differ; the redder, the more readers differ. Shown are the "
            "slices with the most disagreement.</small>"
        )
    else:
        image_column.html("<div class=calm>All readers have the same mask.</div>")
    table_column.html(_build_overlap_table(index, masks) + _build_verdict_table(case, pairs))


def _build_overlap_table(index: Index, masks: Masks) -> str:
    cells = "".join(
        f"<div class='row dice'><span>{escape(first)} and {escape(second)}</span><span>{escape(label.name)}</span>"
        f"<span>{compute_dice(first_mask, second_mask, label.value):.3f}</span></div>"
        for (first, first_mask), (second, second_mask) in combinations(masks.items(), 2) for label in index.labels
        if (first_mask == label.value).any() or (second_mask == label.value).any()
    )  # fmt: skip
    header = "<div class='row dice head'><span>Masks of</span><span>Label</span><span>Dice</span></div>"
    return f"{header}<div class=scroll>{cells or '<small>all masks are empty</small>'}</div>"


def _build_verdict_table(case: str, pairs: list[PairAgreement]) -> str:
    cells = "".join(
        f"<div class='row apart'><span>{escape(finding)}</span>"
        f"<span>{escape(pair.readers[0])}: {DECISION_TEXT[first]}</span>"
        f"<span>{escape(pair.readers[1])}: {DECISION_TEXT[second]}</span></div>"
        for pair in pairs for row_case, finding, first, second in pair.decisions
        if row_case == case and first != second
    )  # fmt: skip
    return f"<small>different verdicts</small>{cells}" if cells else "<small>all verdicts agree</small>"
