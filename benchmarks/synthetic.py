"""Synthetic pretraining with one labelled volume of real MR: painted maps of that volume, and of heads without images.

usage: python -m benchmarks.synthetic [WORK] [KEY=VALUE ...]; what lies in WORK already is not done again.
"""

import sys

from benchmarks._val_sweep import print_val_sweep


def main(work: str = "runs/synthetic", *overrides: str) -> None:
    """Runs and prints the sweep."""
    print_val_sweep("configs/fewshot/synthetic.yaml", work, overrides)


if __name__ == "__main__":
    main(*sys.argv[1:])
