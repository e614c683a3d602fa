"""Counts the lines that a reader follows from the command `medssl pretrain` to the loss of SparK."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLLOWED = {
    "medssl/cli.py": ("main", "run"),
    "pipelines/pretrain.py": ("main",),
    "medssl/training/pretrain.py": ("PretrainConfig", "pretrain"),
    "medssl/training/trainer.py": ("train", "_build_trainer", "_fit"),
    "medssl/training/lightning_module.py": ("__init__", "training_step", "configure_optimizers"),
    "medssl/objectives/reconstruction/spark.py": (
        "Config",
        "__init__",
        "step",
        "sample_mask",
        "reconstruct",
        "compute_loss",
    ),
}


def main() -> None:
    """Prints the lines of the functions and classes on the way, and of their whole files."""
    print("| file | followed | lines followed | lines in the file |\n|---|---|---|---|")
    sums = [0, 0]
    for name, wanted in FOLLOWED.items():
        text = (ROOT / name).read_text()
        lines = sum(_length(text, part) for part in wanted)
        whole = len(text.splitlines())
        sums = [sums[0] + lines, sums[1] + whole]
        print(f"| {name} | {', '.join(wanted)} | {lines} | {whole} |")
    print(f"| {len(FOLLOWED)} files | | {sums[0]} (at most about 350) | {sums[1]} |")


def _length(text: str, name: str) -> int:
    kinds = (ast.FunctionDef, ast.ClassDef)
    node = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, kinds) and n.name == name)
    return (node.end_lineno or 0) - node.lineno + 1


if __name__ == "__main__":
    main()
