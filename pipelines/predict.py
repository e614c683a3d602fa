"""Predicts volumes on their own grid: medssl predict RUN [RUN ...] SCANS_OR_MANIFEST --out PREDICTIONS"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from medssl.data.sources import scans
from medssl.predict.calibration import Calibration
from medssl.predict.ensemble import Ensemble
from medssl.predict.folder import Writer, studies
from medssl.run import Run
from medssl.training.members import agreed, provenance, together


def main(words: list[str]) -> None:
    """Writes labels, probabilities and findings of every case, each in its scanner's grid."""
    parser = argparse.ArgumentParser(prog="medssl predict", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished finetunings; several are pooled")
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    parser.add_argument("--split", default="test", help="with a manifest: which of its cases (default: test)")
    parser.add_argument("--modality", default="", choices=["", "CT", "MR"], help="where the files do not tell")
    parser.add_argument("--mirror", action="store_true", help="ask mirrored views too, where the training mirrored")
    parser.add_argument("--calibration", type=Path, help="a file of `medssl calibrate` (default: the run's own)")
    parser.add_argument("--channels", type=int, nargs="+", default=[], help="scans lack some: those they have, as 0 2")
    given = parser.parse_intermixed_args(words)
    runs = [Run.open(path) for path in given.runs]
    labels = agreed(runs).labels
    calibration = Calibration.of(runs, given.calibration)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    predict = together(runs, given.mirror, calibration, device, tuple(given.channels))
    looks = " and ".join(["runs"] * (len(runs) > 1) + ["mirrored views"] * given.mirror)
    apart = f"disagreement of {looks}" if isinstance(predict, Ensemble) else ""
    writer = Writer.create(given.out, labels, provenance(runs), uncertainty=apart, **calibration.index())
    found = scans(given.scans, given.split, given.modality)
    whose = studies(found)
    for scan in track(found, "predicting", console=Console(stderr=True)):
        image = scan.read()
        writer = writer.add(scan.case, image, predict(image, scan.case), whose[scan.case])
    print(f"{len(found)} cases in {given.out}; look at them with: medssl review {given.out}")
