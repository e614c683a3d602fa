"""Reads YAML configs, applies key=value overrides and reports all errors at once with their dotted paths."""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, PositiveInt, SerializeAsAny, ValidationError

from medssl import config_errors
from medssl.errors import BadInput
from medssl.home import resources_dir
from medssl.settings import Settings, find_modules


def _as_size(value: Any) -> Any:
    """Returns one number as a cube."""
    return (value, value, value) if isinstance(value, int) and not isinstance(value, bool) else value


PatchSize = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_as_size)]

S = TypeVar("S", bound=Settings)


def read(
    path: Path | str,
    overrides: Sequence[str],
    schema: type[S],
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> S:
    """Reads the settings of a YAML file.

    Args:
        path: The file, as in `find_file`.
        overrides: Settings of the form `dotted.key=value` that replace those of the file.
        schema: The class of the settings.
        prepare: Completes the values before they are checked.

    Raises:
        BadInput: If the file cannot be read or settings are wrong; one message lists all errors.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(find_file(path).read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: holds a {type(values).__name__}; a config is a table of keys, `key: value`")
    for override in overrides:
        _apply_override(values, override)
    return check(prepare(values), schema, str(path))


def find_file(path: Path | str) -> Path:
    """Returns the file of a config; a relative path that does not exist is looked up among the installed configs.

    Raises:
        BadInput: If there is no such file.
    """
    path = Path(path)
    file = path if path.exists() or path.is_absolute() else resources_dir() / path
    if not file.exists():
        raise BadInput(config_errors.describe_missing_config(path, resources_dir() / "configs"))
    return file


def check(values: dict[str, Any], schema: type[S], source: str) -> S:
    """Validates plain values; raises one BadInput that names their source and lists all errors."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{source}: {'; '.join(config_errors.describe_errors(error, schema))}") from None


def dump(settings: Settings) -> str:
    """Returns the resolved settings as YAML, which `read` turns into an equal object."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def class_for_config(config: Settings) -> Any:
    """Returns the class that a `Config` configures: the class of its module that declares `config: Config`."""
    members = vars(import_module(type(config).__module__)).values()
    return next(
        c for c in members if isinstance(c, type) and vars(c).get("__annotations__", {}).get("config") is type(config)
    )


def module_choice(package: str, default: str | None = None) -> Any:
    """Returns the type of a field that holds the `Config` of one module of a package, chosen by its key `name`.

    Args:
        package: The package of the modules to choose from, such as "medssl.objectives".
        default: The module that is used if the key `name` is missing; None makes the key required.
    """

    def choose(value: Any) -> Any:
        if isinstance(value, Settings):
            return value
        paths = find_modules(package)
        name = value.get("name", default) if isinstance(value, dict) else value
        if name not in paths:
            nearest = config_errors.find_nearest(str(name), list(paths))
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise ValueError(f"{name!r} is unknown; known: {', '.join(paths)}{hint}")
        values = value if isinstance(value, dict) else {"name": name}
        return import_module(paths[name]).Config.model_validate(values)

    vars(choose)["package"] = package  # for the names of its keys in an error
    return Annotated[SerializeAsAny[Settings], BeforeValidator(choose)]


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Sets one dotted key; a value on its path that is a name becomes the key `name` of a table."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise BadInput(f"{override!r} does not set a key; write dotted.key=value")
    *path, last = key.split(".")
    for step in path:
        inner = values.setdefault(step, {})
        if not isinstance(inner, dict):
            inner = values[step] = {"name": inner}
        values = inner
    values[last] = _parse_value(text)


def _parse_value(text: str) -> Any:
    """Parses YAML; numbers separated by commas or by x are a list: 48x48x48."""
    if re.fullmatch(r"-?[\d.]+([,x]-?[\d.]+)+", text):
        return [yaml.safe_load(number) for number in re.split("[,x]", text)]
    return yaml.safe_load(text)


def describe_keys(
    schema: type[BaseModel], parents: str = "", choice: str = "", defaults: BaseModel | None = None
) -> list[str]:
    """Returns a line with the dotted path, default and description of each key, nested ones included.

    The key `name` of a nested config, which chooses it, has the description `choice` of the config as a whole.
    `defaults` holds the values of a nested config whose defaults differ from those of its class.
    """
    rows = []
    for name, field in schema.model_fields.items():
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        default = default if defaults is None else getattr(defaults, name)
        inner = field.annotation if field.is_required() else type(default)
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.model_fields:
            inner_defaults = default if isinstance(default, BaseModel) else None
            rows += describe_keys(inner, f"{parents}{name}.", field.description or "", inner_defaults)
        else:
            description = field.description or (choice if name == "name" else "")
            rows.append(f"  {parents}{name}: {getattr(default, 'name', default)}  {description}".rstrip())
    return rows
