"""Plans a training for a store, a time and a memory, and writes a config: medssl plan STORE --for finetune --hours 2"""

import argparse
from pathlib import Path

from medssl.errors import BadInput


def main(words: list[str]) -> None:
    """Measures the store and the machine, and writes a config with a reason for each key."""
    args = build_parser().parse_args(words)
    path: Path = args.out or Path(f"{args.purpose}.yaml")
    if path.exists():
        raise BadInput(f"{path}: exists already; remove it or choose another --out")
    from medssl.config import check
    from medssl.data.manifest import Manifest
    from medssl.files import write_text
    from medssl.training.estimates.timed_plan import PlanRequest, plan

    manifest = args.store if args.store.suffix == ".csv" else args.store / "manifest.csv"
    values = {"purpose": args.purpose, "hours": args.hours, "memory_gb": args.memory, "device": args.device or ""}
    request = check(values, PlanRequest, "medssl plan")
    result = plan(Manifest.read(manifest), manifest, request, print)
    write_text(path, result.to_yaml())
    print(result.to_yaml())
    run = {"pretrain": "runs/pretrained", "finetune": "runs/finetuned"}[args.purpose]
    print(f"{path}\nnext: medssl {args.purpose} {path} run={run}")


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl plan", description=__doc__)
    parser.add_argument("store", type=Path, help="folder of a store, or its manifest.csv")
    parser.add_argument(
        "--for", dest="purpose", choices=("pretrain", "finetune"), default="finetune", help="command to plan"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="hours that the training may take (default: 2)")
    parser.add_argument("--memory", type=float, default=6.0, metavar="GB", help="memory it may use (default: 6)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where it runs (default: cuda if there is a GPU)")
    parser.add_argument("--out", type=Path, metavar="YAML", help="config to write (default: finetune.yaml)")
    return parser
