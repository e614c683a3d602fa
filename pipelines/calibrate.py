"""Fits the temperature and lesion thresholds of runs: medssl calibrate RUN [RUN ...] --manifest MANIFEST --split val"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Writes RUN/calibration.json, which `medssl predict RUN` uses from then on, and a reliability diagram."""
    args = build_parser().parse_args(words)
    from medssl.metrics import charts
    from medssl.models.calibrate_runs import HeldOutCases, calibrate_runs
    from medssl.models.trained_model import default_device
    from medssl.run import Run

    if len(args.runs) > 1 and not args.out:
        raise BadInput("several runs share one calibration; name its file with --out")
    if args.out and args.out.suffix != ".json":
        raise BadInput(f"--out {args.out}: a calibration is a .json file; choose a name that ends in .json")
    if not 0 < args.sensitivity < 1:
        raise BadInput(f"--sensitivity {args.sensitivity:g}: must be a fraction between 0 and 1, for example 0.9")
    runs = [Run.open(path) for path in args.runs]
    held_out = HeldOutCases.from_manifest(args.manifest, args.split, runs, args.allow_overlap)
    result = calibrate_runs(held_out, args.lesions, args.sensitivity, args.tta, default_device())
    calibration = result.calibration
    for line in (
        *calibration.summary_lines(),
        *(f"{name}: {threshold.guarantee}" for name, threshold in calibration.thresholds.items()),
    ):
        print(line)
    path = calibration.write(runs, args.out)
    charts.plot_reliability({"before": result.before, "after": result.after}, path.with_suffix(".png"))
    print(f"{path}\n{path.with_suffix('.png')}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl calibrate", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="finished finetunings; several form an ensemble"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="a store's manifest.csv")
    parser.add_argument(
        "--split",
        default="val",
        help="split to calibrate on, not test (default: val); held-out: the cases left out by a cross-validation",
    )
    parser.add_argument(
        "--lesions", default="", metavar="NAME,...", help="labels whose findings get a score threshold too"
    )
    parser.add_argument(
        "--sensitivity", type=float, default=0.9, help="lesion sensitivity that the threshold keeps (default: 0.9)"
    )
    parser.add_argument("--tta", action="store_true", help="calibrate predictions with test-time augmentation")
    parser.add_argument("--allow-overlap", action="store_true", help="also use cases that were trained on")
    parser.add_argument("--out", type=Path, help="a file for `medssl predict --calibration` (needed for several runs)")
    return parser
