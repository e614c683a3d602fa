"""Counts by month what readers made of a model's findings, so that a change of the model's quality becomes visible.

Only the reading of record of a case counts: the signed one, or the consensus of readers who differ.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medssl.csv_text import neutralize_row
from medssl.errors import BadInput
from medssl.finding import Finding
from medssl.predictions_folder import Index, read_findings
from medssl.review.agreement import compute_dice
from medssl.review.consensus.differences import load_predicted_map
from medssl.review.consensus.reading_of_record import select_reading_of_record
from medssl.review.event import Event
from medssl.review.reading import Reading

Outcome = Literal["accepted", "edited", "relabelled", "rejected", "unsure", "missed"]
Dimension = Literal["all", "label", "site", "sex", "age"]
CORRECT: tuple[Outcome, ...] = ("accepted", "edited", "relabelled")  # lesions or organs that are there
OF_DECISION: Mapping[str, Outcome] = {
    "accept": "accepted", "edit": "edited", "relabel": "relabelled", "reject": "rejected", "unsure": "unsure",
    "missed": "missed",
}  # fmt: skip
UNKNOWN = "unknown"
AGE_BAND_YEARS = 20


@dataclass(frozen=True)
class CaseGroup:
    """The groups that a case belongs to; empty or None where they are unknown."""

    site: str = ""
    sex: str = ""
    age_years: float | None = None

    @property
    def age_band(self) -> str:
        """The age in bands of 20 years, for example 40-59; empty if it is unknown."""
        if self.age_years is None:
            return ""
        start = int(self.age_years // AGE_BAND_YEARS) * AGE_BAND_YEARS
        return f"{start}-{start + AGE_BAND_YEARS - 1}"


@dataclass(frozen=True)
class FindingOutcome:
    """What the reading of record made of one finding.

    Args:
        case: The identifier of the case.
        model: The SHA-256 of the weights, or the tool, that predicted.
        month: The month of the signature as YYYY-MM.
        outcome: What became of the finding; `missed` if a reader added it and drew or confirmed it.
        dice: The Dice of the predicted and the signed outline of an edited finding; None for the others.
        groups: The value of the finding in each dimension.
    """

    case: str
    model: str
    month: str
    outcome: Outcome
    dice: float | None
    groups: dict[Dimension, str]


@dataclass(frozen=True)
class DriftRow:
    """The outcomes of one model in one month, of the findings with one value in one dimension.

    Args:
        model: The model.
        month: The month as YYYY-MM.
        dimension: What the findings are grouped by.
        value: The value that they share.
        num_cases: The number of cases.
        counts: The number of findings with each outcome.
        mean_dice: The mean Dice of the edited findings; None without any.
    """

    model: str
    month: str
    dimension: Dimension
    value: str
    num_cases: int
    counts: Counter[Outcome]
    mean_dice: float | None

    @property
    def num_predicted(self) -> int:
        """The number of predicted findings."""
        return self.counts.total() - self.counts["missed"]

    def compute_share(self, outcome: Outcome) -> float | None:
        """Returns the share of the predicted findings with an outcome; None without any.

        The share of missed ones is that among the findings that are there: missed and correct ones.
        """
        if outcome == "missed":
            total = self.counts["missed"] + sum(self.counts[name] for name in CORRECT)
        else:
            total = self.num_predicted
        return self.counts[outcome] / total if total else None


def collect_outcomes(
    index: Index, events: Iterable[Event], groups: Mapping[str, CaseGroup]
) -> tuple[list[FindingOutcome], dict[str, str]]:
    """Returns the outcome of each finding, and the reason for each read case that does not count.

    Args:
        index: The predictions.
        events: The events of the review.
        groups: The groups of the cases, where they are known.
    """
    by_case: dict[str, list[Event]] = {}
    for event in events:
        by_case.setdefault(event.case, []).append(event)
    outcomes, excluded = list[FindingOutcome](), dict[str, str]()
    for case in index.cases:
        try:
            reading = select_reading_of_record(index, case, by_case.get(case, ()), include_unsigned=False)
            outcomes += _judge_case(index, reading, groups.get(case, CaseGroup()))
        except BadInput as error:
            if str(error) not in ("not read", "not signed"):
                excluded[case] = str(error)
    return outcomes, excluded


def summarize_outcomes(outcomes: Sequence[FindingOutcome], dimension: Dimension) -> list[DriftRow]:
    """Returns a row for each model, month and value of a dimension, the latest month first."""
    grouped: dict[tuple[str, str, str], list[FindingOutcome]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.month, outcome.model, outcome.groups[dimension]), []).append(outcome)
    rows = []
    for (month, model, value), members in sorted(grouped.items(), key=lambda item: item[0]):
        dices = [member.dice for member in members if member.dice is not None]
        counts = Counter(member.outcome for member in members)
        mean_dice = sum(dices) / len(dices) if dices else None
        num_cases = len({member.case for member in members})
        rows.append(DriftRow(model, month, dimension, value, num_cases, counts, mean_dice))
    return sorted(rows, key=lambda row: row.month, reverse=True)


def format_csv(rows: Iterable[DriftRow]) -> str:
    """Returns the rows as a CSV table, with counts and shares; it names no case."""
    table = [neutralize_row(_to_columns(row)) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else ["model", "month"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _to_columns(row: DriftRow) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "model": row.model, "month": row.month, "dimension": row.dimension, "value": row.value, "cases": row.num_cases,
        "predicted": row.num_predicted,
    }  # fmt: skip
    for outcome in OF_DECISION.values():
        share = row.compute_share(outcome)
        columns |= {outcome: row.counts[outcome], f"{outcome}_share": "" if share is None else round(share, 4)}
    return columns | {"edited_mean_dice": "" if row.mean_dice is None else round(row.mean_dice, 4)}


def _judge_case(index: Index, reading: Reading, group: CaseGroup) -> list[FindingOutcome]:
    """Returns the outcome of each finding with a verdict."""
    findings = (*read_findings(index.case_folder(reading.case)), *reading.added)
    dices = _measure_edits(index, reading) if reading.strokes else {}
    outcomes = []
    for finding in findings:
        verdict = reading.verdicts.get(finding.id)
        if verdict is None or (finding.source == "reader" and verdict.decision == "reject"):
            continue
        outcome = "missed" if finding.source == "reader" else OF_DECISION[verdict.decision]
        dice = dices.get(finding.id, 1.0) if outcome in ("accepted", "edited") else None
        if outcome == "accepted" and dice is not None and dice < 1:
            outcome = "edited"
        groups = _list_groups(finding, group)
        month = (reading.signed_at or "")[:7]
        edited_dice = dice if outcome == "edited" else None
        outcomes.append(FindingOutcome(reading.case, _name_model(index), month, outcome, edited_dice, groups))
    return outcomes


def _list_groups(finding: Finding, group: CaseGroup) -> dict[Dimension, str]:
    return {
        "all": "all", "label": finding.name, "site": group.site or UNKNOWN, "sex": group.sex or UNKNOWN,
        "age": group.age_band or UNKNOWN,
    }  # fmt: skip


def _measure_edits(index: Index, reading: Reading) -> dict[str, float]:
    """Returns the Dice of the predicted and the signed outline of each predicted finding."""
    predicted = load_predicted_map(index, reading.case)
    before, after = predicted.numbers.voxels, predicted.draw(reading).numbers.voxels
    return {
        finding.id: compute_dice(before, after, number)
        for number, finding in enumerate(predicted.findings, predicted.top + 1)
    }


def _name_model(index: Index) -> str:
    """Returns the tool that predicted, or the run and the start of the hash of its weights."""
    tool = str(index.model.get("tool", ""))
    run = str(index.model.get("run", "")).replace("\\", "/").rsplit("/", 1)[-1]
    return tool or f"{run} {index.weights_sha256[:8]}".strip()
