"""Writes the results of a sweep: table.csv, curve.png and report.html, which needs no network."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from medssl.csv_text import neutralize
from medssl.errors import list_names
from medssl.fewshot.cell import PICTURES, SweepCell
from medssl.fewshot.cost import Compute
from medssl.fewshot.table import TableRow
from medssl.files import atomic_file, write_text
from medssl.metrics.charts import TINTS
from medssl.metrics.statistics import Interval, small_sample_warning
from medssl.render.report import NOTICE
from medssl.render.templates import render_template
from medssl.run import Run

SETTINGS_FILE = "sweep.yaml"
TEMPLATE = Path(__file__).with_name("sweep_report.html")
COLUMNS = (
    "structure", "metric", "labels", "arm", "seeds", "cases", "patients", "score", "score_low", "score_high",
    "difference", "difference_low", "difference_high", "p", "p_holm", "score_by_seed", "regret",
    "steps", "minutes", "pretraining_steps", "pretraining_minutes", "pretrainings",
)  # fmt: skip


@dataclass(frozen=True)
class SweepProgress:
    """The number of cells of a sweep, how many of them are finished, and the error of each cell that failed."""

    cells: int
    finished: int
    failed: Mapping[str, str]


def write(out: Path, rows: Sequence[TableRow], cells: Sequence[SweepCell], progress: SweepProgress) -> None:
    """Writes table.csv, curve.png and report.html into the folder of the sweep."""
    if rows:
        write_text(out / "table.csv", to_csv(rows))
        with atomic_file(out / "curve.png") as part:
            draw_curve(rows).savefig(part, dpi=130, format="png")
    settings = (out / SETTINGS_FILE).read_text(encoding="utf-8")
    write_text(out / "report.html", render_html(out.name, rows, cells, progress, settings))


def to_csv(rows: Sequence[TableRow]) -> str:
    """Returns the rows as CSV text; the difference of the reference arm is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        difference = row.difference or Interval(float("nan"), float("nan"), float("nan"))
        numbers = [
            f"{number:.4f}" if number == number else ""
            for interval in (row.score, difference)
            for number in (interval.estimate, interval.low, interval.high)
        ]
        p_values = ["" if p is None else f"{p:.4g}" for p in (row.p, row.p_holm)]
        counts = row.seeds, row.cases, row.patients
        by_seed = " ".join(f"{score:.4f}" for score in row.by_seed)
        compute = [value for part in (row.finetuning, row.pretraining) for value in (part.steps, f"{part.minutes:.4f}")]
        names = neutralize(row.structure), row.metric, row.num_labelled, neutralize(row.arm)
        regret = "" if row.regret is None else f"{row.regret:.4f}"
        writer.writerow([*names, *counts, *numbers, *p_values, by_seed, regret, *compute, row.num_pretrainings])
    return text.getvalue()


def render_html(
    name: str, rows: Sequence[TableRow], cells: Sequence[SweepCell], progress: SweepProgress, settings: str
) -> str:
    """Returns the report as HTML: progress, curve, a table per structure, pictures per cell, failures and settings."""
    is_finished = progress.finished == progress.cells
    caption = ""
    if rows:
        caption = (
            f"{rows[0].metric} over the test patients; a dot is one seed, bands are 95 % intervals over other patients"
            " and other seeds. p is adjusted (Holm) for the comparisons of each table. Minutes are of the CPU, or of"
            " the GPU where one was used: finetuning + pretraining. Regret is the share of seeds below the reference"
        )
        notes = caption, describe_shared_pretrainings(rows), small_sample_warning(rows[0].patients)
        caption = "; ".join(filter(None, notes))
    kinds = dict.fromkeys((row.structure, row.metric) for row in rows)
    return render_template(
        TEMPLATE,
        title=name,
        notice=NOTICE,
        is_finished=is_finished,
        state="finished" if is_finished else f"{progress.finished} of {progress.cells} cells done",
        figure=_render_svg(rows) if rows else "",
        caption=caption,
        tables=[_describe_table([row for row in rows if (row.structure, row.metric) == kind]) for kind in kinds],
        cells=[_describe_cell(cell) for cell in cells],
        failures=progress.failed,
        settings=settings,
    )


def describe_shared_pretrainings(rows: Sequence[TableRow]) -> str:
    """Returns a note on arms whose seeds share a pretraining, else an empty string."""
    arms = dict.fromkeys(row.arm for row in rows if 0 < row.num_pretrainings < row.seeds)
    if not arms:
        return ""
    return (
        f"{', '.join(arms)}: all seeds share one pretraining, whose own luck is in no interval;"
        " pretraining_per_seed=true trains one for each seed"
    )


def draw_curve(rows: Sequence[TableRow]) -> Figure:
    """Draws the main metric against the number of labelled volumes, with one line per arm."""
    rows = select_main_rows(rows)
    arms, counts = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("arm", "num_labelled"))
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for arm, tint in zip(arms, TINTS * len(arms), strict=False):
        arm_rows = sorted((row for row in rows if row.arm == arm), key=lambda row: row.num_labelled)
        x = [row.num_labelled for row in arm_rows]
        low, middle, high = ([getattr(row.score, name) for row in arm_rows] for name in ("low", "estimate", "high"))
        axes.fill_between(x, low, high, color=tint, alpha=0.12)
        axes.plot(x, middle, "-", color=tint, label=arm)
        dot_counts = [row.num_labelled for row in arm_rows for _ in row.by_seed]
        scores = [score for row in arm_rows for score in row.by_seed]
        axes.plot(dot_counts, scores, "o", color=tint, markersize=3.5, alpha=0.7)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="labelled volumes", ylabel=f"{rows[0].metric}, {rows[0].structure}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.6)
    return figure


def select_main_rows(rows: Sequence[TableRow]) -> list[TableRow]:
    """Returns the rows of the main metric: lesion detection if it was evaluated, else Dice over all labels."""
    first = rows[0].structure, rows[0].metric
    return [row for row in rows if (row.structure, row.metric) == first]


def column_titles(row: TableRow, reference: str) -> tuple[str, ...]:
    """Returns the column titles of a table whose rows have the metric of `row`."""
    difference = f"difference from {reference} [95 %]"
    return (
        "labels",
        "arm",
        f"{row.metric} [95 %]",
        difference,
        "p (Holm)",
        "regret",
        "",
        "seeds",
        "cases",
        "patients",
        "steps",
        "minutes",
    )


def format_row(row: TableRow, reference: str) -> tuple[str, ...]:
    """Returns the cells of a row, in the order of `column_titles`."""
    difference = row.difference.format("+.3f") if row.difference else ""
    p = "" if row.p_holm is None else f"{row.p_holm:.3g}"
    regret = "" if row.regret is None else f"{row.seeds_below} of {row.paired_seeds}"
    counts = str(row.seeds), str(row.cases), str(row.patients)
    parts = [row.finetuning, *([row.pretraining] if row.num_pretrainings else [])]
    steps, minutes = " + ".join(str(part.steps) for part in parts), " + ".join(f"{part.minutes:.1f}" for part in parts)
    verdict = row.verdict(reference)
    return str(row.num_labelled), row.arm, row.score.format(), difference, p, regret, verdict, *counts, steps, minutes


def _render_svg(rows: Sequence[TableRow]) -> Markup:
    text = io.StringIO()
    draw_curve(rows).savefig(text, format="svg", metadata={"Date": None})
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])  # noqa: S704


def _describe_cell(cell: SweepCell) -> dict[str, object]:
    """Returns the name of a cell, its score, time and labelled volumes, and its pictures."""
    files = {name: cell.folder / f"{name}.png" for name in PICTURES}
    run = Run(cell.settings.run)
    facts = run.metadata if run.is_finished else {}
    labelled = facts.get("cases", [])
    return {
        "name": cell.name,
        "score": cell.describe_score(),
        "minutes": f"{Compute.of_run(cell.settings.run).minutes:.1f}",
        "labelled": list_names(labelled, 8),
        "alarm": facts.get("alarm", ""),
        "pictures": {
            name: base64.b64encode(path.read_bytes()).decode() for name, path in files.items() if path.is_file()
        },
    }


def _describe_table(rows: Sequence[TableRow]) -> dict[str, object]:
    """Returns the title, the column titles and the cells of the table of one structure."""
    reference = next((row.arm for row in rows if row.difference is None), "the reference")
    return {
        "title": rows[0].structure,
        "columns": column_titles(rows[0], reference),
        "rows": [format_row(row, reference) for row in rows],
    }
