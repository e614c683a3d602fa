"""Makes a run from weights of nnU-Net, nnssl, MONAI and others: medssl import-weights FILE --out RUN --licence TEXT"""

import argparse
from pathlib import Path
from typing import Any

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Writes a finished run for `medssl finetune ... pretrained=RUN` and prints what happened to every tensor."""
    args = build_parser().parse_args(words)
    import yaml

    from medssl import config
    from medssl.models.import_weights import ImportConfig, import_weights

    options = {
        "file": args.file,
        "run": args.out,
        "licence": args.licence,
        "strides": args.strides and yaml.safe_load(args.strides),
        "num_heads": args.num_heads,
        "labels": args.labels.split(",") if args.labels else (),
        "encoder_only": args.encoder_only,
        "replacements": dict(map(_parse_replacement, args.replacements)),
    }
    run, report = import_weights(config.check(options, ImportConfig, "medssl import-weights"))
    print(report)
    print(f"{run.path}: licence {args.licence}")
    _print_next_commands(run.path)


def _parse_replacement(text: str) -> tuple[str, Any]:
    """Returns the id and the value, in YAML, that replaces that of a bundle."""
    import yaml

    key, equals, value = text.partition("=")
    try:
        if key and equals:
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise BadInput(f"--set {text}: give ID=VALUE, for example inferer#roi_size=[96,96,96]")


def _print_next_commands(path: Path) -> None:
    """Prints the commands that prepare scans for the imported network, and that finetune it or predict with it."""
    from medssl.models.trained_model import TrainedModel, read_interface
    from medssl.nn.encoder import as_command_line
    from medssl.run import Run

    run = Run.open(path)
    if read_interface(run).labels:
        print(f"next: medssl predict {path} SCANS --out predictions")
    if "network" not in run.metadata:
        return
    model = TrainedModel.from_run(run)
    spacing = ",".join(f"{mm:g}" for mm in model.spacing_mm) if model.spacing_mm else "auto"
    keys = [as_command_line(model.encoder), f"patch_size={list(model.patch_size)}".replace(" ", "")]
    if model.encoder.name in ("plainconv", "residual", "resenc"):
        task = model.task.model_dump(mode="json", exclude_defaults=True)
        keys += [f"task.{key}={str(value).lower()}" for key, value in task.items() if key != "name"]
    print(f"next: medssl ingest SCANS --out store --spacing {spacing} --normalization {path}")
    print(
        f"next: medssl finetune configs/finetune/segment.yaml manifest=store/manifest.csv pretrained={path} "
        f"{' '.join(keys)}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl import-weights", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="checkpoint of another project (.pth, .pt, .safetensors), or folder of a MONAI bundle"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the new run")
    parser.add_argument("--licence", required=True, help="licence of the weights, for example CC-BY-4.0")
    parser.add_argument(
        "--strides",
        help="stride of each stage along z, y, x as in nnU-Net's plans, for example [1,[1,2,2],2] "
        "(default: read from the decoder)",
    )
    parser.add_argument(
        "--num-heads", type=int, help="attention heads of a Primus (default: those of the published one of its width)"
    )
    parser.add_argument(
        "--labels",
        metavar="NAME,...",
        help="names of the classes 1, 2, ... of a segmentation network (default: read from nnU-Net's dataset.json)",
    )
    parser.add_argument(
        "--encoder-only",
        action="store_true",
        help="import only the encoder of a MONAI bundle, as a start of a finetuning",
    )
    parser.add_argument(
        "--set", action="append", default=[], dest="replacements", metavar="ID=VALUE",
        help="replace a value in the configuration of a MONAI bundle, for example inferer#roi_size=[96,96,96] or "
        "preprocessing#transforms#4=null; several times for several",
    )  # fmt: skip
    return parser
