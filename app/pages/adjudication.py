"""Shows the cases on which readers differ to a senior, who decides finding by finding and signs the consensus."""

from base64 import b64encode
from dataclasses import replace
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import theme
from app.act_recorder import get_session_id, next_number, show_toast
from app.review_context import ReviewContext
from medssl.finding import Finding, Point, format_volume
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, Index
from medssl.render.figures import crop_around_lesion, encode_png, lesion_planes
from medssl.render.windows import choose_window
from medssl.review.consensus.adjudication import Dispute, find_obstacle, list_disputes, record_choice, sign_consensus
from medssl.review.consensus.differences import Difference, load_predicted_map
from medssl.review.reading import ActRejected, Reading
from medssl.volume import Volume

NO_DISPUTES = "No readers differ", "A case appears here when two readers have signed it and differ on a finding."
PICTURE_SIDE = 200


def render_page(context: ReviewContext) -> None:
    """Shows the cases in dispute and one of them in detail."""
    disputes = list_disputes(context.index, context.store.read_events())
    if not disputes:
        theme.render_message(*NO_DISPUTES)
        return
    num_open = sum(dispute.consensus is None for dispute in disputes)
    st.html(f"<small>{num_open} of {len(disputes)} cases on which readers differ have no consensus.</small>")
    names = {dispute.case: dispute for dispute in disputes}
    case = st.selectbox("Case (without a consensus first)", list(names), width=320)
    _render_dispute(context, names[case])


def _render_dispute(context: ReviewContext, dispute: Dispute) -> None:
    obstacle = find_obstacle(dispute, context.reviewer)
    if obstacle:
        st.html(f"<div class=calm>{escape(obstacle)}</div>")
    if context.reviewer.name in dispute.readings:  # a reader does not see the verdicts of the others here
        return
    if dispute.consensus:
        text = f"Consensus signed by {dispute.consensus.reviewer} at {dispute.consensus.at[:16].replace('T', ' ')} UTC"
        st.html(f"<div class=signed-strip>{escape(text)}</div>")
    choices = dispute.choices.get(context.reviewer.name, {})
    differences = dispute.find_differences(context.index)
    for difference in differences:
        _render_difference(context, dispute, difference, choices.get(difference.finding, ""), bool(obstacle))
    num_decided = sum(difference.finding in choices for difference in differences)
    label = f"Sign the consensus ({num_decided} of {len(differences)} decided)"
    st.button(
        label, type="primary", disabled=bool(obstacle) or num_decided < len(differences), on_click=_sign,
        args=(context, dispute.case),
    )  # fmt: skip


def _render_difference(
    context: ReviewContext, dispute: Dispute, difference: Difference, choice: str, is_locked: bool
) -> None:
    """Shows one finding as each reader left it, with a button that takes the version of this reader."""
    title = f"{difference.name} {difference.finding}".strip()
    st.html(f"<h4 class=difference>{escape(title)}</h4>")
    for column, (reader, text) in zip(st.columns(len(difference.versions)), difference.versions.items(), strict=True):
        reading = dispute.readings[reader]
        _render_version(column, context.index, reading, difference, text)
        is_chosen = reader == choice
        column.button(
            f"{'Chosen' if is_chosen else 'Take'}: {theme.escape_markdown(reader)}",
            key=f"take-{dispute.case}-{difference.finding}-{reader}",
            type="primary" if is_chosen else "secondary",
            disabled=is_locked,
            on_click=_choose,
            args=(context, dispute.case, difference.finding, reader),
        )


def _render_version(column: DeltaGenerator, index: Index, reading: Reading, difference: Difference, text: str) -> None:
    verdict = reading.verdicts.get(difference.finding)
    remarks = "; ".join(filter(None, (verdict.reason, verdict.note))) if verdict else ""
    picture, size = _draw_version(_Version(index, reading, difference.finding))
    lines = f"<b>{escape(reading.reviewer)}</b>: {escape(text)}<br><small>{escape(size)} {escape(remarks)}</small>"
    column.html(f"<p>{lines}</p>")
    if picture:
        source = f"data:image/png;base64,{b64encode(picture).decode()}"
        column.html(f"<img class=disputed alt='{escape(difference.name)}' src='{source}'>")


class _Version:
    """A finding as one reader left it; two are equal if they come from the same files and acts."""

    def __init__(self, index: Index, reading: Reading, finding: str) -> None:
        self.index, self.reading, self.finding = index, reading, finding
        self._key = (str(index.folder), index.created, reading.case, reading.reviewer, finding, reading.latest_event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Version) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=100)
def _draw_version(version: _Version) -> tuple[bytes, str]:
    """Returns the planes through a finding with one reader's outline as a PNG file, and its volume in words.

    Both are empty for what was drawn for no finding.
    """
    index, reading = version.index, version.reading
    drawing = load_predicted_map(index, reading.case).draw(reading)
    numbers = {finding.id: number for number, finding in enumerate(drawing.findings, drawing.top + 1)}
    finding = next((f for f in drawing.findings if f.id == version.finding), None)
    if finding is None:
        return b"", ""
    mask = drawing.numbers.voxels == numbers[finding.id]
    labels = replace(drawing.numbers, voxels=np.where(mask, finding.label, 0).astype(np.int16))
    image = _load_image(index, reading.case)
    low, high, centre = _find_box(finding, labels)
    window = choose_window(finding.name, crop_around_lesion(image, low, high))[1]
    picture = lesion_planes(image, labels, low, high, centre, window, PICTURE_SIDE)
    return encode_png(picture), format_volume(float(mask.sum()) * labels.voxel_ml())


def _find_box(finding: Finding, labels: Volume) -> tuple[Point, Point, Point]:
    """Returns two corners and the centre of a drawn finding; of an empty one, as it was predicted."""
    voxels = np.argwhere(labels.voxels > 0)
    if not len(voxels):
        return finding.low_mm, finding.high_mm, finding.centre_mm
    corners = labels.to_mm(np.array([voxels.min(0) - 0.5, voxels.max(0) + 0.5]))
    low, high, centre = (
        (float(x), float(y), float(z)) for x, y, z in (corners.min(0), corners.max(0), labels.to_mm(voxels.mean(0)))
    )
    return low, high, centre


def _load_image(index: Index, case: str) -> Volume:
    path = index.case_folder(case) / IMAGE
    return _read_image(path, path.stat().st_mtime_ns, index.units[case] == "HU")


@lru_cache(maxsize=2)
def _read_image(path: Path, modified_ns: int, is_ct: bool) -> Volume:
    image = nifti.read(path)
    return replace(image, unit="HU" if is_ct else image.unit).reorient("RAS")


def _choose(context: ReviewContext, case: str, finding: str, reader: str) -> None:
    try:
        record_choice(
            context.store, context.index, context.reviewer, case, finding, reader, get_session_id(), next_number()
        )
    except ActRejected as error:
        show_toast(str(error))


def _sign(context: ReviewContext, case: str) -> None:
    try:
        sign_consensus(context.store, context.index, context.reviewer, case, get_session_id(), next_number())
    except ActRejected as error:
        show_toast(str(error))
