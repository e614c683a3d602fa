"""Predicts volumes on their own grid: medssl predict RUN SCANS_OR_MANIFEST --out PREDICTIONS"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from medssl.data.sources import volumes
from medssl.predict.folder import Writer
from medssl.run import Run
from medssl.training.network import Network, predictor


def main(words: list[str]) -> None:
    """Writes labels, probabilities and findings of every case, each in its scanner's grid."""
    parser = argparse.ArgumentParser(prog="medssl predict", description=__doc__)
    parser.add_argument("run", type=Path, help="the folder of a finished finetuning")
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--split", default="test", help="with a manifest: which of its cases (default: test)")
    parser.add_argument("--modality", default="", choices=["", "CT", "MR"], help="where the files do not tell")
    given = parser.parse_args(words)
    run = Run.open(given.run)
    predict = predictor(run, "cuda" if torch.cuda.is_available() else "cpu")
    model = {"run": str(run.path), "weights_sha256": run.card["weights_sha256"]}
    writer = Writer.create(given.out, Network.of(run).labels, model)
    cases = volumes(given.scans, given.split, given.modality)
    for case, read in track(cases, "predicting", console=Console(stderr=True)):
        image = read()
        writer = writer.add(case, image, predict(image, case))
    print(f"{len(cases)} cases in {given.out}; look at them with: medssl review {given.out}")
