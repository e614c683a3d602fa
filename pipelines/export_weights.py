"""Writes a run's encoder by the tensor names of others: medssl export-weights RUN --to nnunet --out FILE"""

import argparse
from pathlib import Path

from medssl.models.trained_model import Network
from medssl.nn.interop import state_dict_names as keymap
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run


def main(argv: list[str]) -> None:
    """Leaves a file that MONAI's network, or nnU-Net's residual U-Net, loads by name."""
    parser = argparse.ArgumentParser("medssl export-weights", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--to", choices=["monai", "nnunet"], required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ends in .safetensors, .pth or .pt")
    asked = parser.parse_args(argv)
    run = Run.open(asked.run)
    encoder = Network.of(run).body()
    transfer.load(run.weights, {"encoder": encoder})
    tensors = keymap.export(encoder, asked.to)
    keymap.write(tensors, asked.out)
    print(f"{asked.out}: {len(tensors)} tensors of {Network.of(run).encoder!r}, for {asked.to}")
