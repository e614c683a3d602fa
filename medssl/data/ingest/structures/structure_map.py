"""The choice of structures of RTSTRUCT and SEG files: which of them become which classes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from medssl import config
from medssl.errors import BadInput
from medssl.settings import Settings


class StructureMap(Settings):
    """The choice of structures, as `--structures map.yaml` states it.

    A pattern is a regular expression for the whole name of a structure, whatever the case of its letters.

    Example:
        >>> chosen = StructureMap(classes={"Lungs": ["lung[ _]?[lr]"]}, drop=["ptv.*"])
        >>> chosen.name_class("LUNG_L"), chosen.name_class("PTV 60"), chosen.name_class("Heart")
        ('Lungs', None, 'Heart')
    """

    classes: dict[str, list[str]] = Field(
        default_factory=dict,
        description="patterns of the structures that form each class, besides those of its own name; several "
        "structures of one class are united",
    )
    drop: list[str] = Field(default_factory=list, description="patterns of structures that are left out")
    order: list[str] = Field(
        default_factory=list,
        description="classes that lie on top where structures overlap, the topmost first; below them smaller ones lie "
        "on larger ones, and the outline of the body at the bottom",
    )
    others: Literal["keep", "drop"] = Field(
        "keep", description="whether structures of no class become classes of their own names"
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _allow_single_patterns(cls, classes: object) -> object:
        if not isinstance(classes, dict):
            return classes
        return {name: [value] if isinstance(value, str) else (value or []) for name, value in classes.items()}

    @field_validator("classes", "drop")
    @classmethod
    def _check_patterns(cls, value: dict[str, list[str]] | list[str]) -> dict[str, list[str]] | list[str]:
        for pattern in [p for patterns in value.values() for p in patterns] if isinstance(value, dict) else value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error}); escape ( ) + . with a \\") from None
        return value

    @classmethod
    def read(cls, path: Path | None) -> "StructureMap":
        """Reads a YAML file; without one, each structure is a class of its own name."""
        return cls() if path is None else config.read(path.absolute(), [], cls)

    def name_class(self, structure: str) -> str | None:
        """Returns the class of a structure; None if the structure is left out.

        Raises:
            BadInput: If the patterns of two classes match the name.
        """
        if _matches(self.drop, structure):
            return None
        names = [name for name, patterns in self.classes.items() if _matches([re.escape(name), *patterns], structure)]
        if len(names) > 1:
            raise BadInput(
                f"--structures: {structure!r} matches the classes {', '.join(names)}; make their patterns exclusive"
            )
        return names[0] if names else (structure if self.others == "keep" else None)

    def rank_classes(self, numbers: Mapping[str, int]) -> tuple[int, ...]:
        """Returns the numbers of the classes that lie on top, the topmost first."""
        return tuple(numbers[name] for name in self.order if name in numbers)


def _matches(patterns: Sequence[str], name: str) -> bool:
    """Returns whether a pattern matches the whole name."""
    return any(re.fullmatch(pattern, name.strip(), re.IGNORECASE) for pattern in patterns)
