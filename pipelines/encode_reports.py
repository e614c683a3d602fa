"""Turns radiology reports into vectors: medssl encode-reports MANIFEST --text-encoder FOLDER --out reports.npz"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes the file that a pretraining with objective report_align reads."""
    args = build_parser().parse_args(words)
    from rich.progress import track

    from medssl.data.manifest import Manifest
    from medssl.data.reports.embeddings import ReportEmbeddings
    from medssl.data.reports.texts import read_reports, split_sentences
    from medssl.inference.networks.text_encoder import TextEncoder

    manifest = Manifest.read(args.manifest)
    encoder, reports = TextEncoder.open(args.text_encoder), read_reports(manifest, args.reports)
    rows = {case: encoder.encode(split_sentences(text)) for case, text in track(reports.items(), "reports")}
    embeddings = ReportEmbeddings(rows, encoder.sha256)
    embeddings.write(args.out)
    count = sum(map(len, rows.values()))
    print(f"{args.out}: {count} sentences of {len(rows)} of {len(manifest.cases)} cases, {embeddings.width} dimensions")
    print(
        f"next: medssl pretrain configs/pretrain/report_align.yaml manifest={args.manifest} run=runs/report_align"
        f" objective.reports={args.out} objective.width={embeddings.width}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl encode-reports", description=__doc__)
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store")
    parser.add_argument(
        "--text-encoder", type=Path, required=True, metavar="FOLDER",
        help="a sentence encoder: a folder with tokenizer.json and model.onnx, as on the Hugging Face hub",
    )  # fmt: skip
    parser.add_argument(
        "--reports", type=Path, metavar="TABLE",
        help="a table with the columns case (or patient) and report; without it, text files with the name of the image"
        " and structured reports of the same study are read, beside the scans that the store was made from",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write, reports.npz")
    return parser
