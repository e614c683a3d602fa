"""Predicts volumes on their own grid: medssl predict RUN [RUN ...] SCANS_OR_MANIFEST --out PREDICTIONS"""

import argparse
from functools import partial
from pathlib import Path

from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.detector import Detector
from medssl.inference.ensemble import Ensemble
from medssl.inference.prediction_writer import Writer
from medssl.models.fold_assignment import Panel
from medssl.models.model_pool import agreed, together
from medssl.models.trained_model import fastest
from medssl.run import Run


def main(words: list[str]) -> None:
    """Writes labels, probabilities and findings of every case, each in its scanner's grid."""
    parser = argparse.ArgumentParser(prog="medssl predict", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished finetunings; several are pooled")
    parser.add_argument("scans", type=Path, help="a folder of scans, or a store's manifest.csv")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or with --resume one that was begun")
    parser.add_argument(
        "--split", default="test",
        help="with a manifest: which of its cases (default: test); held-out: of a cross-validation, each by its run",
    )  # fmt: skip
    parser.add_argument("--modality", default="", choices=["", "CT", "MR"], help="where the files do not tell")
    parser.add_argument("--mirror", action="store_true", help="ask mirrored views too, where the training mirrored")
    parser.add_argument("--calibration", type=Path, help="a file of `medssl calibrate` (default: the run's own)")
    parser.add_argument("--channels", type=int, nargs="+", default=[], help="scans lack some: those they have, as 0 2")
    parser.add_argument("--dates", action="store_true", help="of a folder: studies' dates too; they can tell a person")
    parser.add_argument("--resume", action="store_true", help="go on in a folder where cases are missing")
    given = parser.parse_intermixed_args(words)
    if given.dates and given.scans.is_file():
        raise BadInput("--dates: a store tells none; predict the folder of scans")
    runs = [Run.open(path) for path in given.runs]
    labels = agreed(runs).labels
    panel = Panel.of(runs, given.scans, given.split)
    if panel.owner and given.calibration:
        raise BadInput("--calibration: what was held out is told as the runs say it; evaluate that, or calibrate on it")
    calibration = Calibration() if panel.owner else Calibration.of(runs, given.calibration)
    ways = [together(group, given.mirror, calibration, fastest(), tuple(given.channels)) for group in panel.groups()]
    looks = " and ".join(["runs"] * (len(panel.groups()[0]) > 1) + ["mirrored views"] * given.mirror)
    apart = f"disagreement of {looks}" if isinstance(ways[0], Ensemble | Detector) and ways[0].looks > 1 else ""
    found = panel.scans(given.scans, given.split, given.modality)
    begin, asked = Writer.resume if given.resume else Writer.create, [scan.case for scan in found]
    options = {
        name: getattr(given, name) for name in ("modality", "channels", "mirror", "dates") if getattr(given, name)
    }
    more = {"uncertainty": apart, "asked": asked, "options": options, **calibration.index()}
    begin(given.out, labels, panel.provenance(), **more).fill(found, partial(panel.predict, ways=ways), given.dates)
    print(f"{len(found)} cases in {given.out}; look at them with: medssl review {given.out}")
