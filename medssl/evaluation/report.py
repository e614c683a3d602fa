"""Writes the report of an evaluation: tables, figures and images of the worst cases."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.evaluate import CaseEvaluation, read_image
from medssl.evaluation.groups import GroupScore, compare_groups, groups_to_csv
from medssl.files import atomic_file, atomic_folder, check_writable, write_json, write_text
from medssl.io import nifti
from medssl.metrics import case_scores, charts, detection_scores
from medssl.metrics.detection_scores import CaseDetections
from medssl.metrics.statistics import small_sample_warning
from medssl.predictions_folder import LABELS, NOTICE, Index
from medssl.render.figures import INK, encode_png, planes_through

NUM_WORST_CASES = 3
TABLE_METRICS = ("dice", "nsd", "hd95_mm", "volume_error_ml")
LESION_SCORES = (
    ("AP", "average_precision"), ("AUROC of patients", "auroc"), ("by noisy-or", "auroc_noisy_or"), ("CPM", "cpm"),
    ("mAP", "map_iou_10_50"),
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationReport:
    """The folder of a report, the content of its summary.json, and the scores of groups."""

    folder: Path
    summary: dict[str, Any]
    groups: tuple[GroupScore, ...] = ()

    def groups_to_table(self) -> Table:
        """Returns the scores of groups for a terminal; a star marks a difference with an adjusted p below 0.05."""
        table = Table(title="groups of patients, against all others", title_justify="left")
        for name in ("by", "group", "label", "patients", "Dice [95 %]", "difference [95 %]", "p (Holm)"):
            table.add_column(name)
        for score in self.groups:
            difference = score.difference.format("+.3f") if score.difference else "-"
            p = "" if score.p_holm is None else f"{score.p_holm:.3g}{' *' if score.is_different else ''}"
            table.add_row(score.by, score.group, score.label, str(score.patients), score.dice.format(), difference, p)
        return table

    def to_table(self) -> Table:
        """Returns the summary for a terminal: the mean and 95 % interval of each score, by label."""
        table = Table(title=f"{self.summary['cases']} cases, mean [95 % interval over patients]", title_justify="left")
        nsd = f"NSD {self.summary['tolerance_mm']:g} mm"
        for name in ("label", "Dice", nsd, "HD95 mm", "volume error ml", "empty p/r/both"):
            table.add_column(name)
        for label, scores in self.summary["labels"].items():
            intervals = (format_interval(scores[metric]["mean"], scores[metric]) for metric in TABLE_METRICS)
            counts = "/".join(str(scores["empty"][kind]) for kind in ("predicted", "reference", "both"))
            table.add_row(label, *intervals, counts)
        caption = ""
        for label, scores in self.summary["lesions"].items():
            values = "; ".join(
                f"{name} {format_interval(scores[key]['estimate'], scores[key])}" for name, key in LESION_SCORES
            )
            caption += f"{label}: {scores['lesions']} lesions in {scores['patients']} patients; {values}\n"
        if warning := small_sample_warning(max(scores["patients"] for scores in self.summary["labels"].values())):
            caption += f"{warning}\n"
        table.caption = caption or None
        return table


def write_report(
    index: Index,
    references: References,
    evaluations: Sequence[CaseEvaluation],
    folder: Path,
    tolerance_mm: float,
    groupings: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> EvaluationReport:
    """Writes summary.json, tables of cases, groups, lesions and patients, and figures; replaces an earlier report.

    Args:
        index: The predictions folder.
        references: The reference labels.
        evaluations: The scores of the cases, from `evaluate`.
        folder: The folder to write; it stays unchanged if anything fails.
        tolerance_mm: The tolerance of the surface Dice (NSD).
        groupings: Groups to compare: by property, the group of each case by its id.
    """
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    if not rows:
        raise BadInput(f"{references.path}: none of the predicted labels is annotated there; nothing can be measured")
    detections: dict[str, list[CaseDetections]] = {}
    for evaluation in evaluations:
        for label, case_detections in evaluation.detections.items():
            detections.setdefault(label, []).append(case_detections)
    bins = [evaluation.reliability for evaluation in evaluations if evaluation.reliability]
    reliability = {"voxels": sum(bins[1:], start=bins[0])} if bins else {}
    groups = [score for by, group_of in groupings.items() for score in compare_groups(rows, group_of, by)]
    summary: dict[str, Any] = {
        "notice": NOTICE, "predictions": str(index.folder), "references": str(references.path), "model": index.model,
        "cases": len(evaluations), "missing": index.missing_cases, "tolerance_mm": tolerance_mm,
        "labels": case_scores.summarize(rows),
        "lesions": {
            label: detection_scores.summarize(cases) | _evaluate_threshold(index, label, cases)
            for label, cases in detections.items()
        },
        "ece": reliability["voxels"].ece() if bins else None,
        "groups": [asdict(score) for score in groups],
    }  # fmt: skip
    require_report_folder(folder)
    with atomic_folder(folder, overwrite=True) as part:
        write_json(part / "summary.json", summary)
        write_text(part / "cases.csv", case_scores.to_csv(rows))
        charts.plot_scores(rows, part / "figures" / "boxplot.png", tolerance_mm)
        if groups:
            _write_groups(part, groups)
        if detections:
            _write_lesion_files(part, detections, summary["lesions"])
        for label, cases in detections.items():
            reliability[f"findings: {label}"] = detection_scores.compute_finding_reliability(cases)
        if reliability:
            charts.plot_reliability(reliability, part / "figures" / "reliability.png")
        _draw_worst_cases(index, references, evaluations, part / "figures")
    return EvaluationReport(folder, summary, tuple(groups))


def _write_groups(part: Path, groups: Sequence[GroupScore]) -> None:
    """Writes groups.csv, and a figure of the groups on the first label, which is the mean if there are several."""
    write_text(part / "groups.csv", groups_to_csv(groups))
    intervals = {
        f"{score.by}: {score.group} ({score.patients})": score.dice
        for score in groups
        if score.label == groups[0].label
    }
    title = f"Dice, {groups[0].label}, by group (patients)"
    charts.plot_intervals(intervals, title, part / "figures" / "groups.png")


def _write_lesion_files(
    part: Path, detections: Mapping[str, Sequence[CaseDetections]], scores: Mapping[str, Mapping[str, Any]]
) -> None:
    """Writes lesions.csv, patients.csv and the FROC curves."""
    for name, make_rows in (
        ("lesions", detection_scores.list_lesions),
        ("patients", detection_scores.summarize_patients),
    ):
        rows = [row for label, cases in detections.items() for row in make_rows(label, cases)]
        write_text(part / f"{name}.csv", case_scores.to_csv(rows))
    matches = {label: [case.picai for case in cases] for label, cases in detections.items()}
    bounds = {label: scores[label]["sensitivity"] for label in detections}
    charts.plot_froc(matches, bounds, part / "figures" / "froc.png")


def require_report_folder(folder: Path) -> None:
    """Raises BadInput if a folder exists and is not a report, or if it cannot be written."""
    if folder.exists() and not (folder / "summary.json").is_file():
        raise BadInput(f"{folder}: exists already and is no evaluation; choose another --out")
    check_writable(folder)


def _evaluate_threshold(index: Index, label: str, cases: Sequence[CaseDetections]) -> dict[str, Any]:
    """Returns the sensitivity and false positives at the model's calibrated threshold, if it has one for this label."""
    if label not in index.thresholds:
        return {}
    threshold, matches = index.thresholds[label], [case.picai for case in cases]
    hits_of_patient: dict[str, list[float]] = {}
    for case, match in zip(cases, matches, strict=True):
        hits_of_patient.setdefault(case.patient, []).extend(match.hit_scores >= threshold)
    sensitivities = [float(np.mean(hits)) for hits in hits_of_patient.values() if hits]
    num_false = sum(int((match.false_positive_scores >= threshold).sum()) for match in matches)
    return {
        "calibrated": {
            "threshold": threshold,
            "guarantee": index.guarantee.get(label, ""),
            "false_per_scan": num_false / len(matches),
            "sensitivity": float(np.mean(sensitivities)) if sensitivities else None,
        }
    }


def _draw_worst_cases(
    index: Index, references: References, evaluations: Sequence[CaseEvaluation], folder: Path
) -> None:
    """Draws the cases with the lowest mean Dice: planes with the prediction above and the reference below."""
    ranking = sorted((e for e in evaluations if e.rows), key=lambda e: sum(row.dice for row in e.rows) / len(e.rows))
    for rank, evaluation in enumerate(ranking[:NUM_WORST_CASES], 1):
        case = evaluation.case
        image = read_image(index, case)
        volumes = {
            "predicted": nifti.read(index.case_folder(case) / LABELS, label=True),
            "reference": references.read_label(case, image),
        }
        rows = [
            _write_name(planes_through(image, evaluation.worst_mm, labels), name) for name, labels in volumes.items()
        ]
        with atomic_file(folder / f"worst-{rank}-{case}.png") as part:
            part.write_bytes(encode_png(_stack(rows)))


def _write_name(picture: Image.Image, name: str) -> Image.Image:
    """Writes a name into the top left corner."""
    ImageDraw.Draw(picture).text((8, 5), name, fill=INK, font=ImageFont.load_default(13))
    return picture


def _stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stacks pictures from top to bottom."""
    page = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    for n, picture in enumerate(pictures):
        page.paste(picture, (0, sum(above.height for above in pictures[:n])))
    return page


def format_interval(estimate: float | None, bounds: Mapping[str, float | None]) -> str:
    """Formats an estimate with the bounds `low` and `high` of its interval; a dash if any is None."""
    numbers = (estimate, bounds["low"], bounds["high"])
    if any(number is None for number in numbers):
        return "-"
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)
