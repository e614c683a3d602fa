"""Reads a run's YAML, applies key=value changes, and reports every fault at once with its dotted path."""

import argparse
import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, SerializeAsAny, ValidationError

from medssl.errors import BadInput
from medssl.home import home
from medssl.settings import Settings

S = TypeVar("S", bound=Settings)


def command(words: Sequence[str], schema: type[S], script: str) -> S:
    """The settings that `CONFIG.yaml key=value ...` on a command line ask for; --help lists the keys."""
    about, keys = script.partition("\n")[0], "\n".join(_keys(schema))
    parser = argparse.ArgumentParser(
        prog=" ".join(about.rpartition(": ")[2].split()[:2]), description=about,
        epilog=f"keys and their defaults:\n{keys}", formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG.yaml", help="only what differs from the defaults; see configs/")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes, as plan.epochs=10")
    given = parser.parse_args(list(words))
    return read(given.config, given.changes, schema)


def read(path: Path | str, changes: Sequence[str], schema: type[S]) -> S:
    """The settings of a YAML file with `dotted.key=value` changes applied, or one BadInput that lists every fault."""
    path = Path(path)
    found = path if path.exists() or path.is_absolute() else home() / path
    try:
        values = yaml.safe_load(found.read_text()) or {}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such config; see configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: a config is a table of keys, this is a {type(values).__name__}")
    for change in changes:
        _change(values, change)
    return check(values, schema, str(path))


def check(values: dict[str, Any], schema: type[S], where: str) -> S:
    """The values as a `schema`, or one BadInput that lists every fault."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_faults(error, ()))
        raise BadInput(f"{where}: {faults}") from None


def dump(settings: Settings) -> str:
    """The resolved settings as YAML that reads back to an equal object."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def class_for_config(chosen: Settings) -> Any:
    """The class a chosen `Config` belongs to: the one of its module that declares `config: Config`."""
    own = vars(import_module(type(chosen).__module__)).values()
    return next(
        c for c in own if isinstance(c, type) and vars(c).get("__annotations__", {}).get("config") is type(chosen)
    )


def named(package: str, default: str | None = None) -> Any:
    """A field that holds the `Config` of one module of `package`, chosen by its key `name`, else the default one."""

    def choose(value: Any) -> Any:
        if isinstance(value, Settings):
            return value
        known = [m.name for m in pkgutil.iter_modules(import_module(package).__path__) if m.name != "base"]
        name = value.get("name", default) if isinstance(value, dict) else value
        if name not in known:
            raise ValueError(f"{name!r} is unknown; known: {', '.join(known)}")
        rest = value if isinstance(value, dict) else {"name": name}
        return import_module(f"{package}.{name}").Config.model_validate(rest)

    return Annotated[SerializeAsAny[Settings], BeforeValidator(choose)]


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise BadInput(f"{change!r} is no change; write dotted.key=value")
    *path, last = key.split(".")
    for step in path:
        inner = values.setdefault(step, {})
        if not isinstance(inner, dict):
            inner = values[step] = {"name": inner}
        values = inner
    values[last] = yaml.safe_load(text)


def _faults(error: ValidationError, above: tuple[str | int, ...]) -> list[str]:
    found = []
    for fault in error.errors(include_url=False):
        place = (*above, *fault["loc"])
        inner = fault.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            found += _faults(inner, place)
        else:
            said = f" (it was {fault['input']!r})" if fault["type"] not in ("missing", "extra_forbidden") else ""
            found.append(f"{'.'.join(map(str, place)) or 'config'}: {fault['msg'].removeprefix('Value error, ')}{said}")
    return found


def _keys(schema: type[BaseModel], above: str = "") -> list[str]:
    rows = []
    for name, field in schema.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        inner = field.annotation if field.is_required() else type(default)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.model_fields:
            rows += _keys(inner, f"{above}{name}.")
        else:
            rows.append(f"  {above}{name}: {getattr(default, 'name', default)}  {field.description or ''}".rstrip())
    return rows
