"""The syntax trees of the project's files, each parsed once and only when a test asks for it."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def parse_files(*folders: str) -> dict[Path, ast.Module]:
    """Returns the syntax tree of every Python file in folders of the project."""
    return {path: parse_file(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))}


@cache
def parse_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def parse_code() -> dict[Path, ast.Module]:
    """Returns the trees of the code that the wheel holds."""
    return parse_files("medssl", "pipelines", "app")
