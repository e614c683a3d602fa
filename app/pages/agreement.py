"""Agreement: how far readers who did not see each other agree, for those who may compare them."""

from base64 import b64encode
from collections import Counter
from html import escape
from itertools import combinations

import numpy as np
import streamlit as st
from jaxtyping import Integer

from app import theme
from app.review_context import Desk
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, read_findings
from medssl.render.figures import disputed, png
from medssl.review.agreement import Pair, dice, disagreement, pairs, panel
from medssl.review.corrected_labels import labels_after
from medssl.review.reading import Reading

Masks = dict[str, Integer[np.ndarray, "i j k"]]


def page(desk: Desk) -> None:
    """All readers who signed the same cases, then one case and where they differ in it."""
    found = pairs(desk.readings.values())
    if not found:
        theme.message(
            "No case has two signed readings",
            "Readers do not see each other's verdicts. Once two of them have signed a case, it is compared here.",
        )
        return
    _kappas(desk, found)
    apart = Counter(case for pair in found for case, _, first, second in pair.said if first != second)
    shared = {case for case, readers in _signed(desk).items() if len(readers) > 1}
    cases = sorted(shared, key=lambda case: (-apart[case], desk.index.cases.index(case)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        case = st.selectbox("Case, the most disputed first", cases, width=320)
    _case(desk, case, found)


def _kappas(desk: Desk, found: list[Pair]) -> None:
    head = "<div class='row kappas head'><span>Readers</span><span>Judged alike</span><span>Kappa</span></div>"
    rows = [(" and ".join(pair.readers), pair.agreed, len(pair.said), "Cohen", pair.kappa) for pair in found]
    cells = [
        f"<div class='row kappas'><b>{escape(who)}</b>"
        f"<span>{theme.bar(alike, of, f'{alike} of {of} findings judged alike')}</span>"
        f"<span>{_number(kappa)} <small>{name}</small></span></div>"
        for who, alike, of, name, kappa in rows
    ]
    if all_of := panel(desk.readings.values()):
        cells.append(
            f"<div class='row kappas'><b>{len(all_of.readers)} readers</b><span>{all_of.judged} findings, "
            f"{all_of.each} readers each</span><span>{_number(all_of.kappa)} <small>Fleiss</small></span></div>"
        )
    st.html(head + "".join(cells))


def _number(kappa: float | None) -> str:
    return "not defined: no choice was left" if kappa is None else f"{kappa:.2f}"


def _signed(desk: Desk) -> dict[str, list[Reading]]:
    signed: dict[str, list[Reading]] = {}
    for (case, _), reading in sorted(desk.readings.items()):
        if reading.signed_at and case in desk.index.cases:
            signed.setdefault(case, []).append(reading)
    return signed


def _case(desk: Desk, case: str, found: list[Pair]) -> None:
    """Where the masks of a case differ, by how much, and which findings were judged differently."""
    folder = desk.index.case(case)
    labels, findings = nifti.read(folder / LABELS, label=True), read_findings(folder)
    masks = {of.reviewer: labels_after(labels, findings, of).voxels for of in _signed(desk)[case]}
    left, right = st.columns([3, 2], gap="medium")
    apart = disagreement(list(masks.values()))
    if apart.any():
        picture = b64encode(png(disputed(nifti.read(folder / IMAGE), apart, len(masks)))).decode()
        left.html(f"<img class=disputed alt='where the masks differ' src='data:image/png;base64,{picture}'>")
        left.html(
            "<small>Coloured: readers drew differently here; redder, more of them. Planes of most dispute.</small>"
        )
    else:
        left.html("<div class=calm>Every reader left the same mask.</div>")
    right.html(_overlaps(desk, masks) + _judged(case, found))


def _overlaps(desk: Desk, masks: Masks) -> str:
    cells = "".join(
        f"<div class='row dice'><span>{escape(one)} and {escape(other)}</span><span>{escape(label.name)}</span>"
        f"<span>{dice(first, second, label.value):.3f}</span></div>"
        for (one, first), (other, second) in combinations(masks.items(), 2) for label in desk.index.labels
        if (first == label.value).any() or (second == label.value).any()
    )  # fmt: skip
    head = "<div class='row dice head'><span>Masks of</span><span>Label</span><span>Dice</span></div>"
    return f"{head}<div class=scroll>{cells or '<small>nobody drew anything</small>'}</div>"


def _judged(case: str, found: list[Pair]) -> str:
    cells = "".join(
        f"<div class='row apart'><span>{escape(finding)}</span>"
        f"<span>{escape(pair.readers[0])}: {theme.SAID[a]}</span>"
        f"<span>{escape(pair.readers[1])}: {theme.SAID[b]}</span></div>"
        for pair in found for of, finding, a, b in pair.said if of == case and a != b
    )  # fmt: skip
    return f"<small>judged differently</small>{cells}" if cells else "<small>nothing was judged differently</small>"
