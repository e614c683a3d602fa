"""Writes what follows from the code and the tables: config keys, commands, evidence. Run it with `make reference`."""

import argparse
import csv
import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from medssl import cli, config
from medssl.fewshot.battle import Battle
from medssl.fewshot.sweep import Sweep
from medssl.planning import evidence
from medssl.settings import find_modules
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig

ROOT = Path(__file__).resolve().parents[1]
KEY_TABLES: dict[str, type[BaseModel]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "fewshot": Sweep,
    "battle": Battle,
}
CHOICES = {
    "objective": ("medssl.objectives", "pretrain"),
    "encoder": ("medssl.nn.encoders", "pretrain"),
    "task": ("medssl.tasks", "finetune"),
}
# The data set and the modality of the few-label tables in docs/benchmarks.md, by their headings.
EVIDENCE_TABLES = {
    **dict.fromkeys(("hippocampus", "seeds", "propagated"), ("hippocampus", "MR")),
    "sarcoma": ("sarcoma", "CT+MR"),
    "headneck": ("head and neck", "CT"),
}
EVIDENCE_ROW = re.compile(
    r"\| (\d+) \| ([^|]+) \| [^|]+ \| ([+-]\d\.\d+) \[([+-]\d\.\d+), ([+-]\d\.\d+)\] \| [^|]* \| (\d+) \| \d+ \|"
)


def main() -> None:
    """Writes pipelines/keys/*.txt, docs/reference/config.md, docs/reference/commands.md and the planner's evidence."""
    for command in KEY_TABLES:
        (ROOT / "pipelines" / "keys" / f"{command}.txt").write_text(key_table(command), encoding="utf-8")
    (ROOT / "docs" / "reference" / "config.md").write_text(config_page(), encoding="utf-8")
    (ROOT / "docs" / "reference" / "commands.md").write_text(commands_page(), encoding="utf-8")
    evidence.TABLE.write_text(evidence_table(), encoding="utf-8")


def key_table(command: str) -> str:
    """Returns the lines of `medssl COMMAND --help` that describe its keys, with those of each choice by name."""
    lines = config.describe_keys(KEY_TABLES[command])
    for group, (package, of_command) in CHOICES.items():
        if of_command == command:
            for name, schema in _choices(package):
                lines += ["", f"keys of {group}={name}:", *config.describe_keys(schema, f"{group}.")]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """Returns the reference of all config keys as Markdown tables."""
    parts = ["# Config keys", "", "Written by `make reference` from the config models.", ""]
    for command, schema in KEY_TABLES.items():
        parts += [f"## medssl {command}", "", *_markdown_table(config.describe_keys(schema)), ""]
    for group, (package, _) in CHOICES.items():
        for name, schema in _choices(package):
            parts += [f"## {group}: {name}", "", *_markdown_table(config.describe_keys(schema, f"{group}.")), ""]
    return "\n".join(parts)


def commands_page() -> str:
    """Returns the help texts of all commands as Markdown."""
    parts = ["# Commands", "", "Written by `make reference` from the parsers.", "", "```text", cli.format_help(), "```"]
    for name in cli.command_names():
        parser = cli.load_script(name).build_parser()
        if parser.epilog:
            parser.epilog = "keys: see the reference of config keys"
        parser.formatter_class = argparse.HelpFormatter
        output = io.StringIO()
        with suppress(SystemExit), redirect_stdout(output):
            parser.parse_args(["--help"])
        parts += ["", f"## medssl {name}", "", "```text", output.getvalue().rstrip(), "```"]
    return "\n".join(parts) + "\n"


def evidence_table() -> str:
    """Returns the few-label tables of docs/benchmarks.md as CSV, for the planner."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("data", "modality", "labels", "arm", "difference", "low", "high", "seeds"))
    heading = ""
    for line in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines():
        heading = line.removeprefix("### ") if line.startswith("### ") else heading
        heading = "" if line.startswith("## ") else heading
        if heading in EVIDENCE_TABLES and (row := EVIDENCE_ROW.fullmatch(line)):
            labels, arm, *numbers = row.groups()
            writer.writerow((*EVIDENCE_TABLES[heading], labels, arm, *numbers))
    return out.getvalue()


def _choices(package: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, path in find_modules(package).items():
        yield name, import_module(path).Config


def _markdown_table(lines: list[str]) -> list[str]:
    rows = ["| key | default | description |", "| --- | --- | --- |"]
    for line in lines:
        match = re.fullmatch(r"  ([\w.]+): (.*?)(?:  (.*))?", line)
        if match:
            key, default, description = match.groups("")
            rows.append(f"| `{key}` | `{default or ' '}` | {description.replace('|', chr(92) + '|')} |")
    return rows


if __name__ == "__main__":
    main()
