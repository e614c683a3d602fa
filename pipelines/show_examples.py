"""Gives an in-context segmentation other examples, untrained: medssl show-examples RUN MANIFEST --out RUN2"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a finished run, which segments what its examples show."""
    args = build_parser().parse_args(words)
    from medssl import config
    from medssl.training.run_records.shown_examples import ShowConfig, show_examples

    options = {
        "source": args.run, "manifest": args.manifest, "run": args.out, "num_labelled": args.num_labelled,
        "seed": args.seed,
    }  # fmt: skip
    run = show_examples(config.check(options, ShowConfig, "medssl show-examples"))
    network = run.metadata["network"]
    names = ", ".join(network["labels"].values())
    print(f"{run.path}: {names} by {network['task']['num_examples']} crops of {len(run.metadata['cases'])} volumes")
    print(f"next: medssl predict {run.path} SCANS --out predictions")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl show-examples", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run of task=in_context")
    parser.add_argument("manifest", type=Path, help="manifest.csv of a store with labelled cases in split train")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN2", help="the run to write, a new folder")
    parser.add_argument(
        "--num-labelled", type=int, metavar="K", help="number of labelled volumes to take crops of (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of volumes and crops (default: 0)")
    return parser
