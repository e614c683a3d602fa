"""Reads the configuration of a MONAI bundle as plain values, without running any code of the bundle.

MONAI's own reader evaluates expressions (`$...`) and calls any function that `_target_` names. This reader follows
references (`@id`) and refuses an expression where its value is needed. The format and its ids, such as
`inferer#roi_size`: https://docs.monai.io/en/stable/config_syntax.html
"""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medssl.errors import BadInput

METADATA = Path("configs/metadata.json")
CONFIGS = [Path("configs") / f"{name}.{kind}" for name in ("inference", "train") for kind in ("json", "yaml", "yml")]
SEPARATOR = re.compile("#|::")
CODE = "$", "%"  # begin an expression, and a macro that copies text of another file
MAX_REFERENCES = 16  # from one value to the next
MAX_VALUES = 10_000  # in one answer; a short file of YAML can stand for any number


@dataclass(frozen=True)
class BundleConfig:
    """The configuration of a bundle.

    Args:
        file: The file that it was read from, for messages.
        values: Its values, with references and expressions.
        metadata: The values of metadata.json; empty if there is none.
    """

    file: Path
    values: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, replacements: Mapping[str, Any] | None = None) -> "BundleConfig":
        """Reads inference.json, or else train.json, and metadata.json of a bundle.

        Args:
            folder: The folder of the bundle.
            replacements: Values by their ids that replace those of the file.

        Raises:
            BadInput: If the folder is no bundle, or a file is damaged.
        """
        file = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
        if file is None:
            raise BadInput(f"{folder}: not a MONAI bundle (configs/inference.json is missing)")
        values = _read_table(file)
        for key, value in (replacements or {}).items():
            _replace_value(values, key, value)
        return cls(file, values, _read_table(folder / METADATA) if (folder / METADATA).is_file() else {})

    def find(self, *keys: str) -> str:
        """Returns the first of some ids that has a value, or an empty string."""
        return next((key for key in keys if self.look_up(key)[1] is not None), "")

    def get(self, key: str) -> Any:
        """Returns the value of an id with everything in it resolved; None if there is none.

        Raises:
            BadInput: If the value, or one inside it, is an expression or refers to nothing.
        """
        return self._resolve(key, iter(range(MAX_VALUES)))

    def look_up(self, key: str) -> tuple[str, Any]:
        """Returns where the value of an id lies after following references, and the value as it stands there.

        Raises:
            BadInput: If a reference leads nowhere or in a circle.
        """
        return self._follow(key, 0)

    def _follow(self, key: str, depth: int) -> tuple[str, Any]:
        if depth > MAX_REFERENCES:
            raise BadInput(f"{self.file}: {key} refers to itself; give its value with --set {key}=VALUE")
        value: Any = self.values
        place = ""
        for part in SEPARATOR.split(key):
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = value.get(part) if isinstance(value, dict) else None
            place = f"{place}#{part}" if place else part
            if isinstance(value, str) and value.startswith("@"):
                target, value = self._follow(value[1:], depth + 1)
                if value is None:
                    raise BadInput(
                        f"{self.file}: {place} refers to {target}, which is missing; give --set {target}=VALUE"
                    )
                place = target
        return place, value

    def _resolve(self, key: str, budget: Any) -> Any:
        if next(budget, None) is None:
            raise BadInput(f"{self.file}: {key} stands for more than {MAX_VALUES} values; give --set {key}=VALUE")
        place, value = self.look_up(key)
        if isinstance(value, str) and value.startswith(CODE):
            raise BadInput(
                f"{self.file}: {place} is the expression {value[:80]!r}, which is not evaluated; give its value with"
                f" --set {place}=VALUE"
            )
        if isinstance(value, dict):
            return {str(name): self._resolve(f"{place}#{name}", budget) for name in value}
        if isinstance(value, list):
            return [self._resolve(f"{place}#{number}", budget) for number in range(len(value))]
        return value


def _read_table(file: Path) -> dict[str, Any]:
    """Reads a JSON or YAML file that holds a table."""
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{file}: is damaged ({' '.join(str(error).split())[:200]}); get the bundle again") from None
    if not isinstance(values, dict):
        raise BadInput(f"{file}: holds no table of keys; get the bundle again")
    return values


def _replace_value(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value of an id; tables on the way are created."""
    *parents, name = SEPARATOR.split(key)
    place: Any = values
    for part in parents:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
        else:
            place = None
    if isinstance(place, list) and name.isdigit() and int(name) < len(place):
        place[int(name)] = copy.deepcopy(value)
    elif isinstance(place, dict):
        place[name] = copy.deepcopy(value)
    else:
        raise BadInput(f"--set {key}=...: the bundle has no such place; give an id as in its configuration")
