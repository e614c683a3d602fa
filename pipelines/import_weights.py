"""Makes a run from weights of nnU-Net, nnssl or a MONAI bundle: medssl import-weights FILE --out RUN --licence TEXT"""

import argparse
from pathlib import Path


def main(words: list[str]) -> None:
    """Writes a finished run for `medssl finetune ... pretrained=RUN` and prints what happened to every tensor."""
    args = build_parser().parse_args(words)
    import yaml

    from medssl import config
    from medssl.models.import_weights import ImportConfig, import_weights
    from medssl.models.trained_model import TrainedModel
    from medssl.nn.encoder import as_command_line

    options = {
        "file": args.file,
        "run": args.out,
        "licence": args.licence,
        "strides": args.strides and yaml.safe_load(args.strides),
    }
    run, report = import_weights(config.check(options, ImportConfig, "medssl import-weights"))
    print(report)
    print(f"{run.path}: licence {args.licence}")
    print(
        f"next: medssl finetune configs/finetune/segment.yaml manifest=store/manifest.csv pretrained={run.path} "
        f"{as_command_line(TrainedModel.from_run(run).encoder)}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl import-weights", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="checkpoint of a residual U-Net (.pth, .safetensors), or the folder of a MONAI bundle"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the new run")
    parser.add_argument("--licence", required=True, help="licence of the weights, for example CC-BY-4.0")
    parser.add_argument(
        "--strides",
        help="stride of each stage along z, y, x as in nnU-Net's plans, for example [1,[1,2,2],2] "
        "(default: read from the decoder)",
    )
    return parser
