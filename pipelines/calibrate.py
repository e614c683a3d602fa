"""Makes scores mean what they say: medssl calibrate RUN [RUN ...] --manifest MANIFEST --split val"""

import argparse
from pathlib import Path

from medssl.errors import BadInput
from medssl.metrics import charts
from medssl.models.calibrate_runs import Held, calibrate
from medssl.models.trained_model import fastest
from medssl.run import Run


def main(words: list[str]) -> None:
    """Writes RUN/calibration.json, which `medssl predict RUN` uses from then on, and how reliable it is, as PNG."""
    parser = argparse.ArgumentParser(prog="medssl calibrate", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="finished finetunings; several are pooled")
    parser.add_argument("--manifest", type=Path, required=True, help="a store's manifest.csv")
    parser.add_argument(
        "--split",
        default="val",
        help="which of its cases, never those to test on; held-out: of a cross-validation",
    )
    parser.add_argument("--lesions", default="", metavar="NAME,...", help="labels whose findings get a threshold too")
    parser.add_argument("--sensitivity", type=float, default=0.9, help="that the threshold keeps (default: 0.9)")
    parser.add_argument("--mirror", action="store_true", help="as `medssl predict --mirror` asks it")
    parser.add_argument("--allow-overlap", action="store_true", help="use cases that were trained on, too")
    parser.add_argument("--out", type=Path, help="a file for `medssl predict --calibration` (needed for several runs)")
    given = parser.parse_args(words)
    if len(given.runs) > 1 and not given.out:
        raise BadInput("several runs have one calibration together; name its file with --out")
    if given.out and given.out.suffix != ".json":
        raise BadInput(f"--out {given.out}: is no name for a calibration; choose one that ends in .json")
    if not 0 < given.sensitivity < 1:
        raise BadInput(f"--sensitivity {given.sensitivity:g}: a share between 0 and 1, as 0.9")
    runs = [Run.open(path) for path in given.runs]
    held = Held.of(given.manifest, given.split, runs, given.allow_overlap)
    fitted = calibrate(held, given.lesions, given.sensitivity, given.mirror, fastest())
    found = fitted.calibration
    for line in (*found.told(), *(f"{name}: {told.promise}" for name, told in found.thresholds.items())):
        print(line)
    place = found.write(runs, given.out)
    charts.reliability({"before": fitted.before, "after": fitted.after}, place.with_suffix(".png"))
    print(f"{place}\n{place.with_suffix('.png')}")
