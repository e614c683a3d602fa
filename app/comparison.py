"""Beside: what the viewer can put beside a case, with the findings of both matched: a prior study, another model."""

from typing import Any

from app.review_context import Desk, findings
from medssl.finding import Finding
from medssl.predictions_folder import Index
from medssl.review.priors import days_between, earlier, growth, match, standing
from medssl.review.reading import Reading
from medssl.review.worklist import Row


def entries(desk: Desk, row: Row) -> list[dict[str, Any]]:
    """Everything that can stand beside a case."""
    return [entry for entry in (_prior(desk, row), _rival(desk, row)) if entry]


def title(index: Index, case: str) -> str:
    """A case and its day."""
    return f"{case}  {day(index.study(case).date)}".strip()


def day(told: str) -> str:
    """A date as it is read: 2024-03-02."""
    return f"{told[:4]}-{told[4:6]}-{told[6:]}" if len(told) == 8 else told


def _prior(desk: Desk, row: Row) -> dict[str, Any] | None:
    case = earlier(desk.index, row.case)
    if case is None:
        return None
    number, days = desk.index.cases.index(case) + 1, days_between(desk.index, case, row.case)
    before = desk.readings.get((case, desk.reviewer.name)) or Reading(case, desk.reviewer.name)
    now = standing(row.findings, row.reading, rejected=True)  # what is called nothing is not gone, either
    then = standing((*findings(desk.index, case), *before.added), before)
    same = match(now, then)
    grown = {one.id: _grown(one, same[one.id], days, row.reading, before) for one in now if one.id in same}
    made = day(desk.index.study(case).date) or (case if days is None else f"{days} days before")
    return {
        "id": "prior", "name": f"Prior {made}",
        "volume": desk.url(number, "image"), "overlay": desk.url(number, "labels"), "none": "not found in the prior",
        "pairs": {name: {"centre_mm": same[name].centre_mm, "said": said} for name, said in grown.items()},
        "only": _only(then, same, "only in the prior"),
    }  # fmt: skip


def _grown(now: Finding, then: Finding, days: int | None, reading: Reading, before: Reading) -> str:
    """What a card says of a lesion that the prior has too; volumes are the model's, also of what was drawn in since."""
    said = growth(now, then, days, reading.axes.get(now.id), before.axes.get(then.id)).said
    drawn = {stroke.finding for stroke in (*reading.strokes, *before.strokes)} & {now.id, then.id}
    return f"{said} (as predicted, before your strokes)" if drawn else said


def _rival(desk: Desk, row: Row) -> dict[str, Any] | None:
    if desk.rival is None or row.case not in desk.rival.cases:
        return None
    name, theirs = desk.rival.folder.name, findings(desk.rival, row.case)
    same = match(row.findings, theirs, moved_mm=0)
    return {
        "id": "rival", "name": name, "volume": desk.url(row.number, "image"), "none": f"not found by {name}",
        "overlay": desk.url(row.number, "rival"), "only": _only(theirs, same, f"only by {name}"),
        "pairs": {mine: {"centre_mm": one.centre_mm, "said": f"{name}: {_size(one)}"} for mine, one in same.items()},
    }  # fmt: skip


def _only(theirs: list[Finding] | tuple[Finding, ...], same: dict[str, Finding], said: str) -> list[dict[str, Any]]:
    matched = {finding.id for finding in same.values()}
    left = [finding for finding in theirs if finding.id not in matched]
    return [{"centre_mm": one.centre_mm, "said": f"{said}: {one.name}, {_size(one)}"} for one in left]


def _size(finding: Finding) -> str:
    return f"{finding.diameter_mm:.1f} mm, {finding.volume_ml:.2f} ml, score {finding.score:.2f}"
