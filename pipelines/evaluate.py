"""Measures predictions against references: medssl evaluate PREDICTIONS --labels FOLDER_OR_MANIFEST"""

import argparse
import logging
from pathlib import Path

from rich.console import Console
from rich.progress import track

from medssl.data.checks import leakage as leaks
from medssl.data.ingest.reference_labels import References
from medssl.evaluation.evaluate import doubts, evaluate, lesion_labels
from medssl.evaluation.report import check_out, write
from medssl.predictions_folder import read_index

log = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Writes a CSV with a row a case and label, summary.json and figures, and prints the table."""
    parser = argparse.ArgumentParser("medssl evaluate", description=__doc__)
    parser.add_argument("predictions", type=Path, help="a folder that `medssl predict` wrote")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="a folder of labels named as the cases, a data set, or a manifest.csv",
    )
    parser.add_argument("--out", type=Path, help="a folder for the results (default: PREDICTIONS/evaluation)")
    parser.add_argument("--tolerance-mm", type=float, default=2.0, help="of the surface score NSD (default: 2)")
    parser.add_argument("--lesions", default="", metavar="NAME,...", help="labels to evaluate as lesions too")
    parser.add_argument("--allow-overlap", action="store_true", help="score cases that were trained on, too")
    asked = parser.parse_args(words)
    out = asked.out or asked.predictions / "evaluation"
    check_out(out)
    index = read_index(asked.predictions)
    kinds = lesion_labels(index.labels, asked.lesions, index.folder)
    references = References.read(asked.labels)
    cases = references.measured(index.cases)
    if not asked.allow_overlap:
        for model in index.model.get("runs", [index.model]):
            leaks.refuse_seen(Path(model["run"]), asked.labels, model.get("cases", cases))
    for doubt in doubts(index, references):
        log.warning(doubt)
    evaluated = evaluate(index, references, asked.tolerance_mm, kinds)
    done = list(track(evaluated, "evaluating", total=len(cases), console=Console(stderr=True)))
    report = write(index, references, done, out, asked.tolerance_mm)
    Console().print(report.table())
    if len(cases) < len(index.cases):
        print(f"{len(index.cases) - len(cases)} cases without a label were left out")
    print(f"{report.folder / 'summary.json'}\n{report.folder / 'cases.csv'}\n{report.folder / 'figures'}")
