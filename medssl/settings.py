"""The base class of all configurations, and the modules whose configurations can be chosen by name."""

import pkgutil
from importlib import import_module

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings; an unknown key, a wrong type, NaN or infinity is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def find_modules(package: str) -> dict[str, str]:
    """Returns the dotted path of each module of a package and its subpackages that can be chosen, by its name.

    A module `base` holds what the others share and is no choice.
    """
    paths = [m.name for m in pkgutil.walk_packages(import_module(package).__path__, f"{package}.") if not m.ispkg]
    return {name: path for name, path in sorted((path.rpartition(".")[2], path) for path in paths) if name != "base"}
