"""Makes a run of weights of nnU-Net, nnssl or a MONAI bundle: medssl import-weights FILE --out RUN --licence TEXT"""

import argparse
from pathlib import Path

import yaml

from medssl import config
from medssl.models.import_weights import Adopt, adopt
from medssl.models.trained_model import Network
from medssl.nn.encoder import words


def main(argv: list[str]) -> None:
    """Leaves a closed run that `medssl finetune ... pretrained=RUN` takes, and prints the fate of every tensor."""
    parser = argparse.ArgumentParser("medssl import-weights", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="tensors of a residual U-Net (.pth, safetensors), or the folder of a MONAI bundle"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the new run's folder")
    parser.add_argument("--licence", required=True, help="what the weights' owner allows, as CC-BY-4.0")
    parser.add_argument("--strides", type=yaml.safe_load, help="one a stage, as [1,2,[1,2,2]] (default: the decoder's)")
    asked = parser.parse_args(argv)
    given = {"file": asked.file, "run": asked.out, "licence": asked.licence, "strides": asked.strides}
    run, ledger = adopt(config.check(given, Adopt, "medssl import-weights"))
    print(ledger)
    print(f"{run.path}: licence {asked.licence}")
    print(
        f"next: medssl finetune configs/finetune/segment.yaml manifest=store/manifest.csv pretrained={run.path} "
        f"{words(Network.of(run).encoder)}"
    )
