"""Classes learnt jointly with mirror images: Dice with two labelled volumes of real MR, at equal steps and equal cost.

usage: python -m benchmarks.joint [WORK] [KEY=VALUE ...]; what lies in WORK already is not done again.
"""

import sys

from benchmarks._val_sweep import print_val_sweep


def main(work: str = "runs/joint", *overrides: str) -> None:
    """Runs and prints the sweep."""
    print_val_sweep("configs/fewshot/joint.yaml", work, overrides)


if __name__ == "__main__":
    main(*sys.argv[1:])
