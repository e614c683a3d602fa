"""Shows a senior by month what readers made of the model's findings, in total and by group."""

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import get_args

import streamlit as st

from app import theme
from app.review_context import ReviewContext
from medssl.data.manifest import Manifest
from medssl.review.monitoring.drift import (
    OF_DECISION,
    CaseGroup,
    Dimension,
    DriftRow,
    collect_outcomes,
    format_csv,
    summarize_outcomes,
)

NOTHING = "No signed case yet", "Each signed case is counted here, in the month of its signature."
COLUMNS = ("Month", "Model", "Group", "Cases", "Findings", *(name.capitalize() for name in OF_DECISION.values()))


def render_page(context: ReviewContext) -> None:
    """Shows the table of one dimension and offers all dimensions as a CSV file."""
    groups = _load_groups(context.config.manifest)
    outcomes, excluded = collect_outcomes(context.index, context.store.read_events(), groups)
    if excluded:
        names = "; ".join(f"{case}: {reason}" for case, reason in list(excluded.items())[:3])
        st.warning(theme.escape_markdown(f"{len(excluded)} signed cases do not count. {names}"))
    if not outcomes:
        theme.render_message(*NOTHING)
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        dimension: Dimension = st.segmented_control("By", get_args(Dimension), default="all") or "all"
        rows = [row for name in get_args(Dimension) for row in summarize_outcomes(outcomes, name)]
        st.download_button("Export as CSV", format_csv(rows), "drift.csv", "text/csv", icon=":material/download:")
    _render_table([row for row in rows if row.dimension == dimension])
    if dimension in ("site", "sex", "age") and not context.config.manifest:
        st.html(
            "<small>Sites, sexes and ages are unknown: start the review with --manifest STORE/manifest.csv.</small>"
        )


def _render_table(rows: list[DriftRow]) -> None:
    header = "".join(f"<span>{name}</span>" for name in COLUMNS)
    body = "".join(f"<div class='row drift'>{''.join(_list_cells(row))}</div>" for row in rows)
    st.html(f"<div class='row drift head'>{header}</div>{body}")
    st.html(
        "<small>Shares are those of the predicted findings; the share of missed ones is that of all findings that are "
        "there. Dice compares the predicted outline of an edited finding with the signed one. Few findings make large "
        "changes by chance.</small>"
    )


def _list_cells(row: DriftRow) -> list[str]:
    texts = [row.month, row.model, row.value, str(row.num_cases), str(row.num_predicted)]
    for outcome in OF_DECISION.values():
        share = row.compute_share(outcome)
        dice = f", Dice {row.mean_dice:.2f}" if outcome == "edited" and row.mean_dice is not None else ""
        texts.append("–" if share is None else f"{share:.0%} ({row.counts[outcome]}{dice})")
    return [f"<span>{escape(text)}</span>" for text in texts]


def _load_groups(manifest: str) -> dict[str, CaseGroup]:
    return _read_groups(manifest, Path(manifest).stat().st_mtime_ns) if manifest else {}


@lru_cache(maxsize=2)
def _read_groups(manifest: str, modified_ns: int) -> dict[str, CaseGroup]:
    cases = Manifest.read(manifest).cases
    return {case.id: CaseGroup(case.site, case.sex, case.age_years) for case in cases}
