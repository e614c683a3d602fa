"""Ranks scans by sentences: medssl prompt RUN SCANS --find "a nodule" --text-encoder FOLDER --out scores.csv"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from medssl.volume import Volume


def main(words: list[str]) -> None:
    """Writes a table with the score of each sentence for each scan, and the place that it fits best."""
    args = build_parser().parse_args(words)
    import torch
    from rich.progress import track

    from medssl.api import load_encoder
    from medssl.data.ingest.read_source import list_scans_or_all
    from medssl.data.reports.embeddings import ReportEmbeddings
    from medssl.files import write_text
    from medssl.inference.networks.text_encoder import TextEncoder
    from medssl.metrics.case_scores import to_csv
    from medssl.models.trained_model import TrainedModel
    from medssl.retrieval.prompts import Prompts, score_scans
    from medssl.run import Run
    from medssl.training.probes.head_features import build_head_features

    run, text = Run.open(args.run), TextEncoder.open(args.text_encoder)
    objective = run.read_settings().get("objective") or {}
    if objective.get("name") != "report_align":
        raise BadInput(f"{args.run}: was not trained with reports; give a pretraining with objective report_align")
    reports = Path(objective["reports"])
    if reports.is_file() and ReportEmbeddings.read(reports).encoder != text.sha256:
        raise BadInput(f"{args.text_encoder}: is another text encoder than that of {reports}; give the same one")
    layers, model = build_head_features(run)[-1].layers, TrainedModel.from_run(run)
    encode, patch = load_encoder(run), model.build_encoder().patch
    a, b, c = (max(1, size // step) for size, step in zip(model.patch_size, patch, strict=True))

    def read_coarsest(scan: "Volume") -> "Volume":
        return encode(scan)[-1]

    @torch.no_grad()
    def project(rows: "np.ndarray") -> "np.ndarray":
        projected: np.ndarray = layers(torch.from_numpy(rows)).numpy()
        return projected

    opposite = text.encode([args.against])[0] if args.against else None
    prompts = Prompts(tuple(args.find), text.encode(args.find), opposite)
    scans = list_scans_or_all(args.scans, args.split, args.modality)
    scored = track(score_scans(scans, read_coarsest, (a, b, c), project, prompts), "scans", total=len(scans))
    rows = sorted((row for scores in scored for row in scores), key=lambda row: (row.prompt, -row.score))
    write_text(args.out, to_csv(rows), is_private=True)
    for row in rows:
        print(f"{row.score:+.3f}  {row.case}  {row.prompt}")
    print(args.out)


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl prompt", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished pretraining with objective report_align")
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("--find", action="append", required=True, metavar="TEXT", help="a sentence; can be repeated")
    parser.add_argument("--against", default="", metavar="TEXT", help="a sentence for scans that do not fit: no nodule")
    parser.add_argument("--text-encoder", type=Path, required=True, metavar="FOLDER", help="the one of encode-reports")
    parser.add_argument(
        "--modality", default="", choices=["", "CT", "MR"], help="modality of image files that do not record one"
    )
    parser.add_argument("--split", default="", help="only cases of this split of a manifest")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table to write, scores.csv")
    return parser
