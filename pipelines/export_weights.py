"""Writes a run's encoder under the tensor names of other projects: medssl export-weights RUN --to nnunet --out FILE"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a file that MONAI's network, or nnU-Net's residual U-Net, loads by name."""
    args = build_parser().parse_args(words)
    from medssl.models.provenance import list_weight_licences
    from medssl.models.trained_model import TrainedModel, load_trained_encoder
    from medssl.nn.interop import state_dict_names
    from medssl.run import Run

    run = Run.open(args.run)
    tensors = state_dict_names.export_tensors(load_trained_encoder(run), args.to)
    licences = list_weight_licences(run)
    state_dict_names.write_checkpoint(tensors, args.out, licences)
    for origin in licences:
        print(f"{args.out}: started from {origin['file']}, licence {origin['licence']}")
    print(f"{args.out}: {len(tensors)} tensors of {TrainedModel.from_run(run).encoder!r}, for {args.to}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl export-weights", description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--to", choices=["monai", "nnunet"], required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .safetensors, .pth or .pt file")
    return parser
