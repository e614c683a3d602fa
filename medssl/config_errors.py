"""Describes what is wrong with the settings of a config, in the words of its keys."""

import difflib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from medssl.settings import find_modules

Location = tuple[str | int, ...]
MAX_DEPTH = 3
UNION_MEMBERS = {"int", "float", "str", "bool", "tuple"}  # of a type with alternatives, in the place of an error
NUMBERS_WANTED = "needs numbers separated by commas, for example 48,48,48; one number stands for all axes of a size"
WORDS = {
    "missing": "is missing; give {key}=...",
    "tuple_type": NUMBERS_WANTED,
    "too_short": NUMBERS_WANTED,
    "too_long": NUMBERS_WANTED,
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "finite_number": "must be a finite number",
}


def describe_errors(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """Returns each error with its dotted key, the value found and what is expected, nested configs included."""
    messages: dict[str, list[str]] = {}
    values: dict[str, object] = {}
    for place, details in _flatten(error, ()):
        key = _join_key(place)
        if details["type"] == "extra_forbidden":
            messages.setdefault(key, []).append(_describe_unknown_key(key, schema))
            continue
        kind = "table" if _is_table_length(details) else details["type"]
        text = WORDS.get(kind, details["msg"].removeprefix("Value error, "))
        text = text.replace("{key}", key).replace("Input should be", "must be")
        if text not in messages.setdefault(key, []):
            messages[key].append(text)
        if details["type"] != "missing":
            values[key] = details["input"]
    return [
        f"{key or 'config'}: {', or '.join(texts)}" + (f" (it was {values[key]!r})" if key in values else "")
        for key, texts in messages.items()
    ]


def _is_table_length(details: Any) -> bool:
    """Whether a table, and not a list of numbers, is too short or too long."""
    return details["type"] in ("too_short", "too_long") and isinstance(details["input"], dict)


def list_keys(schema: type[BaseModel], parents: str = "") -> Iterator[str]:
    """Yields the dotted keys of a schema, with those of every config that a key may choose by name.

    Configs that choose further configs, such as those of a sum of objectives, end after MAX_DEPTH groups.
    """
    if parents.count(".") >= MAX_DEPTH:
        return
    for name, field in schema.model_fields.items():
        yield parents + name
        inner = [field.annotation] if _is_schema(field.annotation) else _list_choices(field.metadata)
        if _is_schema(getattr(field.annotation, "__args__", (None,))[0]):
            inner.append(field.annotation.__args__[0])  # type: ignore[union-attr]
        for group in inner:
            yield from list_keys(group, f"{parents}{name}.")  # type: ignore[arg-type]


def describe_missing_config(path: Path, configs: Path) -> str:
    """Returns that there is no such config, with the nearest of those that are installed.

    Args:
        path: The path that was given.
        configs: The folder of the installed configs.
    """
    files = sorted(file.relative_to(configs.parent) for file in configs.rglob("*.yaml"))
    if "=" in str(path):
        return f"{path}: stands where the config is expected; begin with one of {_list_configs(files)}"
    nearest = find_nearest(str(path), [str(file) for file in files]) or find_nearest(path.name, [f.name for f in files])
    hint = next((file for file in files if nearest and str(file).endswith(nearest)), None)
    if Path(path.name).is_file():
        return f"{path}: no such config; did you mean {path.name}?"
    siblings = [file for file in files if hint is None or file.parent == hint.parent]
    return f"{path}: no such config;{f' did you mean {hint}?' if hint else ''} installed are {_list_configs(siblings)}"


def _list_configs(files: Sequence[Path]) -> str:
    """Returns the paths with the names of each folder in braces."""
    names = {
        folder: [file.stem for file in files if file.parent == folder] for folder in {file.parent for file in files}
    }
    return ", ".join(f"{folder}/{{{','.join(names[folder])}}}.yaml" for folder in sorted(names))


def find_nearest(name: str, known: Sequence[str]) -> str:
    """Returns the known name that is spelled most like another; "" if none is alike."""
    return next(iter(difflib.get_close_matches(name, known, 1)), "")


def _describe_unknown_key(key: str, schema: type[BaseModel]) -> str:
    """Returns that a key is unknown, with the nearest in its group, or else one of its name in another group."""
    keys = list(dict.fromkeys(list_keys(schema)))
    group, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == group]
    same_name = [name for name in keys if name.rpartition(".")[2] == last]
    nearest = find_nearest(key, siblings) or next(iter(same_name), "") or find_nearest(key, keys)
    return f"is no key{f'; did you mean {nearest}?' if nearest else '; the help of the command lists all keys'}"


def _flatten(error: ValidationError, parents: Location) -> Iterator[tuple[Location, Any]]:
    """Yields the place and the details of each error, also of those of a nested config."""
    for details in error.errors(include_url=False):
        place = (*parents, *details["loc"])
        inner = details.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            yield from _flatten(inner, place)
        else:
            yield place, details


def _join_key(place: Location) -> str:
    """Returns the dotted key of a place, without the alternatives of its type."""
    return ".".join(
        str(part)
        for n, part in enumerate(place)
        if isinstance(part, int) or n == 0 or (part.isidentifier() and part not in UNION_MEMBERS)
    )


def _is_schema(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and bool(annotation.model_fields)


def _list_choices(metadata: Sequence[object]) -> list[Any]:
    """Returns the configs that a key may choose by name."""
    packages = [getattr(m.func, "package", None) for m in metadata if isinstance(m, BeforeValidator)]
    paths = [path for package in packages if package for path in find_modules(package).values()]
    return [import_module(path).Config for path in paths]
