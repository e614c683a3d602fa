"""Agreement: how far two blinded readers agree, for those who may compare them."""

from html import escape
from pathlib import Path

import numpy as np
import streamlit as st

from app import look
from app.state import Desk
from medssl.io import nifti
from medssl.review.agreement import Pair, dice, pairs
from medssl.review.corrected import labels_after
from medssl.review.predictions import LABELS, read_findings
from medssl.review.state import Reading


def page(desk: Desk) -> None:
    """Every two readers who signed the same cases."""
    found = pairs(desk.readings.values())
    if not found:
        look.message(
            "No case has two signed readings",
            "Readers do not see each other's verdicts. Once two of them have signed a case, it is compared here.",
        )
        return
    for pair in found:
        _pair(desk, pair)


def _pair(desk: Desk, pair: Pair) -> None:
    first, second = pair.readers
    kappa = "not defined" if pair.kappa is None else f"{pair.kappa:.2f}"
    said = f"{pair.agreed} of {len(pair.said)} findings judged alike, Cohen's kappa {kappa}"
    st.html(f"<div class=case-title><b>{escape(first)} and {escape(second)}</b><small>{said}</small></div>")
    overlaps = _overlaps(desk, pair)
    st.dataframe(
        [{"case": case, "label": name, "Dice": round(score, 3)} for case, name, score in overlaps],
        hide_index=True, width="stretch", height="content" if len(overlaps) < 12 else 420,
    )  # fmt: skip
    apart = [row for row in pair.said if row[2] != row[3]]
    cells = "".join(
        f"<div class='row apart'><span>{escape(case)}</span><span>{escape(finding)}</span>"
        f"<span>{escape(first)}: {look.SAID[a]}</span><span>{escape(second)}: {look.SAID[b]}</span></div>"
        for case, finding, a, b in apart
    )
    st.html(f"<small>judged differently</small>{cells}" if apart else "<small>nothing was judged differently</small>")


def _overlaps(desk: Desk, pair: Pair) -> list[tuple[str, str, float]]:
    signed = {key: reading for key, reading in desk.readings.items() if reading.signed_at}
    found = []
    for case in (case for case in desk.index.cases if all((case, name) in signed for name in pair.readers)):
        one, other = (_mask(desk.index.case(case), signed[case, name]) for name in pair.readers)
        for label in desk.index.labels:
            if (one == label.value).any() or (other == label.value).any():
                found.append((case, label.name, dice(one, other, label.value)))
    return found


def _mask(folder: Path, reading: Reading) -> np.ndarray:
    return labels_after(nifti.read(folder / LABELS, label=True), read_findings(folder), reading).voxels
