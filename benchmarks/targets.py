"""What SparK reconstructs, and with which decoder: Dice after finetuning with two labelled volumes of real MR.

usage: python -m benchmarks.targets [WORK] [KEY=VALUE ...]; what lies in WORK already is not done again.
"""

import sys

from benchmarks._val_sweep import print_val_sweep


def main(work: str = "runs/targets", *overrides: str) -> None:
    """Runs and prints the sweep."""
    print_val_sweep("configs/fewshot/targets.yaml", work, overrides)


if __name__ == "__main__":
    main(*sys.argv[1:])
