"""Scores predictions against reference labels: medssl evaluate PREDICTIONS --labels FOLDER_OR_MANIFEST"""

import argparse
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def main(words: list[str]) -> None:
    """Writes a CSV with one row per case and label, summary.json and figures, and prints the table."""
    args = build_parser().parse_args(words)
    from rich.console import Console
    from rich.progress import track

    from medssl.data.checks import leakage
    from medssl.data.ingest.reference_labels import References
    from medssl.evaluation.evaluate import evaluate, find_warnings, select_lesion_labels
    from medssl.evaluation.groups import group_labelled
    from medssl.evaluation.report import require_report_folder, write_report
    from medssl.predictions_folder import read_index

    out = args.out or args.predictions / "evaluation"
    require_report_folder(out)
    index = read_index(args.predictions)
    references = References.read(args.labels)
    lesion_labels = select_lesion_labels(index, args.lesions, references)
    cases = references.select_labelled(index.cases)
    if not args.allow_overlap:
        for model in index.model.get("runs", [index.model]):
            leakage.require_unseen(Path(model["run"]), args.labels, model.get("cases", cases))
    groupings = {by: group_labelled(references, by) for by in args.by.split(",") if by}
    for warning in find_warnings(index, references):
        log.warning(warning)
    evaluations = evaluate(index, references, args.tolerance_mm, lesion_labels)
    results = list(track(evaluations, "evaluating", total=len(cases), console=Console(stderr=True)))
    report = write_report(index, references, results, out, args.tolerance_mm, groupings)
    Console().print(report.to_table())
    if report.groups:
        Console().print(report.groups_to_table())
    if len(cases) < len(index.cases):
        print(f"{len(index.cases) - len(cases)} cases have no reference label and were left out")
    print(f"{report.folder / 'summary.json'}\n{report.folder / 'cases.csv'}\n{report.folder / 'figures'}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl evaluate", description=__doc__)
    parser.add_argument("predictions", type=Path, help="a folder that `medssl predict` wrote")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="a folder of labels named after the cases, a data set, or a manifest.csv",
    )
    parser.add_argument("--out", type=Path, help="a folder for the results (default: PREDICTIONS/evaluation)")
    parser.add_argument(
        "--tolerance-mm", type=float, default=2.0, help="tolerance of the normalized surface distance (default: 2)"
    )
    parser.add_argument(
        "--lesions",
        metavar="NAME,...",
        help="labels to score as lesions too (default: those whose kind is lesion); '' for none",
    )
    parser.add_argument(
        "--by",
        metavar="PROPERTY,...",
        default="",
        help="compare groups of patients by site, sex, age, modality, spacing, or TABLE.csv:COLUMN",
    )
    parser.add_argument("--allow-overlap", action="store_true", help="also score cases that were trained on")
    return parser
