"""The report of an evaluation: tables, figures and pictures of the worst cases in one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.evaluate import Evaluated, image
from medssl.files import atomic, fresh, ready, write_json, write_text
from medssl.io import nifti
from medssl.metrics import case_scores as cases
from medssl.metrics import charts
from medssl.metrics import detection_scores as detection
from medssl.metrics.detection_scores import Detected
from medssl.metrics.statistics import caution
from medssl.predictions_folder import LABELS, NOTICE, Index
from medssl.render.figures import INK, around, png

WORST = 3
SHOWN = ("dice", "nsd", "hd95_mm", "volume_error_ml")
LESION_SCORES = (
    ("AP", "average_precision"), ("AUROC of patients", "auroc"), ("by noisy-or", "auroc_noisy_or"), ("CPM", "cpm"),
    ("mAP", "map_iou_10_50"),
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """Where a report lies and what its summary says."""

    folder: Path
    summary: dict[str, Any]

    def table(self) -> Table:
        """The summary for a terminal: mean and 95 % interval of each score, per label and kind of lesion."""
        table = Table(title=f"{self.summary['cases']} cases, mean [95 % interval over patients]", title_justify="left")
        nsd = f"NSD {self.summary['tolerance_mm']:g} mm"
        for name in ("label", "Dice", nsd, "HD95 mm", "volume error ml", "empty p/r/both"):
            table.add_column(name)
        for label, told in self.summary["labels"].items():
            counts = "/".join(str(told["empty"][kind]) for kind in ("predicted", "reference", "both"))
            table.add_row(label, *(interval(told[metric]["mean"], told[metric]) for metric in SHOWN), counts)
        for kind, told in self.summary["lesions"].items():
            scores = "; ".join(f"{name} {interval(told[key]['estimate'], told[key])}" for name, key in LESION_SCORES)
            table.caption = (
                f"{table.caption or ''}{kind}: {told['lesions']} lesions in {told['patients']} patients; {scores}\n"
            )
        if said := caution(max(told["patients"] for told in self.summary["labels"].values())):
            table.caption = f"{table.caption or ''}{said}\n"
        return table


def write(index: Index, references: References, done: Sequence[Evaluated], folder: Path, tolerance_mm: float) -> Report:
    """Writes summary.json, figures/, tables of cases, lesions, patients: all, in place of an earlier one, or none."""
    rows = [row for one in done for row in one.rows]
    if not rows:
        raise BadInput(f"{references.place}: none of the predicted labels is drawn there; nothing can be measured")
    names = dict.fromkeys(name for one in done for name in one.detected)
    kinds = {name: [one.detected[name] for one in done if name in one.detected] for name in names}
    bins = [one.reliability for one in done if one.reliability]
    reliability = {"voxels": sum(bins[1:], start=bins[0])} if bins else {}
    summary: dict[str, Any] = {
        "notice": NOTICE, "predictions": str(index.folder), "references": str(references.place), "model": index.model,
        "cases": len(done), "missing": index.missing, "tolerance_mm": tolerance_mm, "labels": cases.summary(rows),
        "lesions": {name: detection.summary(of) | _calibrated(index, name, of) for name, of in kinds.items()},
        "ece": reliability["voxels"].ece() if bins else None,
    }  # fmt: skip
    check_out(folder)
    with fresh(folder, over=True) as part:
        write_json(part / "summary.json", summary)
        write_text(part / "cases.csv", cases.table(rows))
        charts.boxplot(rows, part / "figures" / "boxplot.png", tolerance_mm)
        if kinds:
            for name, rows_of in (("lesions", detection.rows), ("patients", detection.patients)):
                write_text(part / f"{name}.csv", cases.table([row for kind in kinds.items() for row in rows_of(*kind)]))
            bounds = {name: told["sensitivity"] for name, told in summary["lesions"].items()}
            outcomes = {name: [c.picai for c in of] for name, of in kinds.items()}
            charts.froc(outcomes, bounds, part / "figures" / "froc.png")
        reliability |= {f"findings: {name}": detection.trusted(of) for name, of in kinds.items()}
        if reliability:
            charts.reliability(reliability, part / "figures" / "reliability.png")
        _worst(index, references, done, part / "figures")
    return Report(folder, summary)


def check_out(folder: Path) -> None:
    """Refuses a folder that holds anything but an earlier report."""
    if folder.exists() and not (folder / "summary.json").is_file():
        raise BadInput(f"{folder}: exists already and is no evaluation; choose another --out")
    ready(folder)


def _calibrated(index: Index, name: str, of: Sequence[Detected]) -> dict[str, Any]:
    """What became of the promise that the model's threshold for this kind of lesion was given with."""
    if name not in index.thresholds:
        return {}
    threshold, outcomes = index.thresholds[name], [one.picai for one in of]
    patients: dict[str, list[float]] = {}
    for one, outcome in zip(of, outcomes, strict=True):
        patients.setdefault(one.patient, []).extend(outcome.found >= threshold)
    shares = [float(np.mean(hits)) for hits in patients.values() if hits]
    alarms = sum(int((o.false >= threshold).sum()) for o in outcomes) / len(outcomes)
    told = {"threshold": threshold, "promise": index.promise.get(name, ""), "false_per_scan": alarms}
    return {"calibrated": told | {"sensitivity": float(np.mean(shares)) if shares else None}}


def _worst(index: Index, references: References, done: Sequence[Evaluated], folder: Path) -> None:
    """The cases with the lowest Dice: their planes with the prediction above and the reference below."""
    scored = sorted((one for one in done if one.rows), key=lambda one: sum(r.dice for r in one.rows) / len(one.rows))
    for rank, one in enumerate(scored[:WORST], 1):
        shown, predicted = image(index, one.case), nifti.read(index.case(one.case) / LABELS, label=True)
        pairs = {"predicted": predicted, "reference": references.label(one.case, shown)}
        page = _below([_named(around(shown, one.worst_mm, labels), name) for name, labels in pairs.items()])
        with atomic(folder / f"worst-{rank}-{one.case}.png") as part:
            part.write_bytes(png(page))


def _named(picture: Image.Image, name: str) -> Image.Image:
    ImageDraw.Draw(picture).text((8, 5), name, fill=INK, font=ImageFont.load_default(13))
    return picture


def _below(pictures: Sequence[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)))
    for n, picture in enumerate(pictures):
        page.paste(picture, (0, sum(p.height for p in pictures[:n])))
    return page


def interval(estimate: float | None, told: Mapping[str, float | None]) -> str:
    """An estimate with the bounds `low` and `high` of its interval, or a dash."""
    numbers = (estimate, told["low"], told["high"])
    if any(n is None for n in numbers):
        return "-"
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)
