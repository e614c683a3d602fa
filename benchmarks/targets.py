"""What SparK reconstructs, with which decoder and how long: Dice after finetuning with two labelled volumes of real MR.

usage: python -m benchmarks.targets [WORK] [KEY=VALUE ...]; what lies in WORK already is not done again.
"""

import sys

from benchmarks._val_sweep import print_val_sweep


def main(work: str = "runs/targets", *overrides: str) -> None:
    """Runs and prints both sweeps."""
    print_val_sweep("configs/fewshot/targets.yaml", work, overrides)
    print_val_sweep("configs/fewshot/targets_longer.yaml", work, overrides, "longer")


if __name__ == "__main__":
    main(*sys.argv[1:])
