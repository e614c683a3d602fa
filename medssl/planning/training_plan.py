"""The plan of a training: its settings, each with its reason, and their form as a config."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import yaml

from medssl.planning.network_cost import NetworkCost

Purpose = Literal["pretrain", "finetune"]

WRAP = 110  # characters of a line of reasons


class Choice(NamedTuple):
    """A setting by its dotted key, and why it has its value."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class ConfigPlan:
    """The settings of a training.

    Attributes:
        purpose: Which command the settings are for.
        header: Lines about the store.
        choices: The settings, each with its reason.
        store_warnings: What the store lacks.
        cost: Estimated cost of the network for one crop.
        batch_size: Crops in a batch.
        steps: Optimizer steps.
        needed_steps: Steps that show each volume often enough.
    """

    purpose: Purpose
    header: tuple[str, ...]
    choices: tuple[Choice, ...]
    store_warnings: tuple[str, ...]
    cost: NetworkCost
    batch_size: int
    steps: int
    needed_steps: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the store or the budget lacks."""
        if self.steps >= self.needed_steps:
            return self.store_warnings
        lack = f"the time is enough for {self.steps} steps, and {self.needed_steps} are wanted"
        return (*self.store_warnings, f"{lack}; give more --hours, or a faster machine")

    def settings(self) -> dict[str, Any]:
        """Returns the settings as nested dictionaries."""
        nested: dict[str, Any] = {}
        for choice in self.choices:
            *path, last = choice.key.split(".")
            group = nested
            for step in path:
                group = group.setdefault(step, {})
            group[last] = choice.value
        return nested

    def to_yaml(self) -> str:
        """Returns the settings as YAML, with each reason as a comment above its key."""
        lines = _comment(self.header) + _comment([f"warning: {text}" for text in self.warnings])
        group = ""
        for key, value, reason in self.choices:
            parent, _, name = key.rpartition(".")
            indent = "  " if parent else ""
            if parent != group and parent:
                lines.append(f"{parent}:")
            group = parent
            lines += _comment([reason], indent)
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {text}")
        return "\n".join(lines) + "\n"


def _comment(lines: Sequence[str], indent: str = "") -> list[str]:
    return [f"{indent}# {part}" for line in lines for part in textwrap.wrap(line, WRAP)]
