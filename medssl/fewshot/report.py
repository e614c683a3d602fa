"""What a sweep leaves for people: table.csv, curve.png, and report.html, which opens without a network."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from medssl.fewshot.table import Line
from medssl.files import atomic, write_text
from medssl.metrics.charts import TINTS
from medssl.metrics.statistics import Interval, caution
from medssl.render.report import NOTICE, STYLE

ASKED = "sweep.yaml"
COLUMNS = (
    "structure", "metric", "labels", "arm", "seeds", "cases", "patients", "score", "score_low", "score_high",
    "difference", "difference_low", "difference_high", "p",
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """How much of a sweep is done, and why what failed did."""

    cells: int
    done: int
    failed: Mapping[str, str]


def write(out: Path, lines: Sequence[Line], progress: Progress) -> None:
    """Writes all three into the sweep's folder."""
    if lines:
        write_text(out / "table.csv", table(lines))
        with atomic(out / "curve.png") as part:
            drawn(lines).savefig(part, dpi=130, format="png")
    settings = (out / ASKED).read_text(encoding="utf-8")
    write_text(out / "report.html", page(out.name, lines, progress, settings))


def table(lines: Sequence[Line]) -> str:
    """The lines as CSV; a reference has no difference."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for line in lines:
        gap = line.gap or Interval(float("nan"), float("nan"), float("nan"))
        numbers = (line.score.estimate, line.score.low, line.score.high, gap.estimate, gap.low, gap.high)
        told = [f"{number:.4f}" if number == number else "" for number in numbers]
        p = "" if line.p is None else f"{line.p:.4g}"
        rows.writerow(
            [line.structure, line.metric, line.labels, line.arm, line.seeds, line.cases, line.patients, *told, p]
        )
    return text.getvalue()


def page(name: str, lines: Sequence[Line], progress: Progress, settings: str) -> str:
    """The report: how far the sweep is, the curve, a table a structure, what failed, and what was asked."""
    state = "finished" if progress.done == progress.cells else f"{progress.done} of {progress.cells} cells done"
    badge = f'<span class="state{"" if state == "finished" else " stopped"}">{state}</span>'
    body = [f'<h1>{escape(name)}{badge}</h1><div class="sub">{NOTICE}</div>']
    if lines:
        about = f"{lines[0].metric} over the test patients; bands are 95 % intervals over patients crossed with seeds"
        about += f"; {said}" if (said := caution(lines[0].patients)) else ""
        body.append(f'<h2>Few labels</h2><figure class="card">{_svg(lines)}<figcaption>{about}</figcaption></figure>')
    for kind in dict.fromkeys((line.structure, line.metric) for line in lines):
        body.append(_section([line for line in lines if (line.structure, line.metric) == kind]))
    if progress.failed:
        rows = "".join(f"<tr><td>{escape(n)}</td><td>{escape(why)}</td></tr>" for n, why in progress.failed.items())
        body.append(f'<h2>Not measured</h2><div class="card"><table>{rows}</table></div>')
    body.append(f'<h2>Asked</h2><div class="card"><pre>{escape(settings)}</pre></div>')
    head = f'<meta charset="utf-8"><title>{escape(name)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(body)}</main></body></html>\n'


def drawn(lines: Sequence[Line]) -> Figure:
    """The first metric of the first structure against the number of labels, a line an arm."""
    lines = main(lines)
    arms, counts = (list(dict.fromkeys(getattr(line, name) for line in lines)) for name in ("arm", "labels"))
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for arm, tint in zip(arms, TINTS * len(arms), strict=False):
        own = sorted((line for line in lines if line.arm == arm), key=lambda line: line.labels)
        x = [line.labels for line in own]
        low, middle, high = ([getattr(line.score, name) for line in own] for name in ("low", "estimate", "high"))
        axes.fill_between(x, low, high, color=tint, alpha=0.12)
        axes.plot(x, middle, "o-", color=tint, label=arm, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="labelled volumes", ylabel=f"{lines[0].metric}, {lines[0].structure}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", framealpha=0.6)
    return figure


def main(lines: Sequence[Line]) -> list[Line]:
    """The lines of the first metric of the first structure: how lesions are found, or Dice over all labels."""
    first = lines[0].structure, lines[0].metric
    return [line for line in lines if (line.structure, line.metric) == first]


def _svg(lines: Sequence[Line]) -> str:
    text = io.StringIO()
    drawn(lines).savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _section(lines: Sequence[Line]) -> str:
    reference = next((line.arm for line in lines if line.gap is None), "the reference")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads(lines[0], reference))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row(line, reference)) + "</tr>" for line in lines
    )
    return f'<h2>{escape(lines[0].structure)}</h2><div class="card"><table><tr>{head}</tr>{rows}</table></div>'


def heads(line: Line, reference: str) -> tuple[str, ...]:
    """What stands over the words of `row`, in a table of lines as this one."""
    far = f"difference from {reference} [95 %]"
    return "labels", "arm", f"{line.metric} [95 %]", far, "p", "", "seeds", "cases", "patients"


def row(line: Line, reference: str) -> tuple[str, ...]:
    """A line as words for a table: labels, arm, score, difference, p, verdict, seeds, cases, patients."""
    far = line.gap.said("+.3f") if line.gap else ""
    p = "" if line.p is None else f"{line.p:.3g}"
    counts = str(line.seeds), str(line.cases), str(line.patients)
    return str(line.labels), line.arm, line.score.said(), far, p, line.verdict(reference), *counts
