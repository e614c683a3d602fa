"""Groups the cases of a store by site, sex, age, modality or spacing, or by a column of a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from medssl.data.case_tables import read_case_column
from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput
from medssl.settings import Settings

PROPERTIES = ("site", "sex", "age", "modality", "spacing")
UNKNOWN = "unknown"
AGE_LIMITS = (18, 40, 60, 80)
MAX_NUMBERS = 5  # a column with more different numbers is divided at their median


class LabelDomain(Settings):
    """The part of a store whose labels are trained on, as one site of several; all other volumes stay unlabelled."""

    by: str | None = Field(
        None, description="how cases are grouped: site, sex, age, modality, spacing, or TABLE.csv:COLUMN; null is off"
    )
    values: tuple[str, ...] = Field((), description="groups whose labels are trained on; [] takes all")

    @model_validator(mode="after")
    def _check_values(self) -> "LabelDomain":
        if self.values and self.by is None:
            raise ValueError("values: say by what cases are grouped, as by: site")
        return self

    def select(self, manifest: Manifest) -> Manifest:
        """Returns the cases of the chosen groups; raises BadInput if a value is the name of no group."""
        if self.by is None or not self.values:
            return manifest
        groups = group_cases(manifest.cases, self.by)
        unknown = sorted(set(self.values) - set(groups.values()))
        if unknown:
            raise BadInput(
                f"{', '.join(unknown)}: no group of these cases by {self.by}; these are {describe_groups(groups)}"
            )
        return manifest.select([n for n, case in enumerate(manifest.cases) if groups[case.id] in self.values])


def group_cases(cases: Sequence[Case], by: str) -> dict[str, str]:
    """Returns the group of each case by its id.

    Ages are in bands of years, the spacing is that of the store, in mm. A table gives each case its value in the
    column; one that is not listed is `unknown`. A column of more than five different numbers is divided at its median,
    so that the groups do not depend on which cases are grouped.

    Args:
        cases: The cases.
        by: One of PROPERTIES, or TABLE.csv:COLUMN with a table that has a column id, case or patient.

    Raises:
        BadInput: There is no such property, table or column, or the table lists a case twice with different values.
    """
    if by in PROPERTIES:
        return {case.id: _name_property(case, by) for case in cases}
    path, separator, column = by.rpartition(":")
    if not separator or not path.endswith(".csv"):
        raise BadInput(f"{by}: cases are grouped by {', '.join(PROPERTIES)}, or by a table: TABLE.csv:COLUMN")
    key, values = read_case_column(Path(path), column)
    group_of = _divide_numbers(values)
    groups = {case.id: group_of.get(case.patient if key == "patient" else case.id, UNKNOWN) for case in cases}
    if all(group == UNKNOWN for group in groups.values()):
        raise BadInput(f"{path}: its column {key} names none of the {len(groups)} cases; compare it with the manifest")
    return groups


def describe_groups(groups: Mapping[str, str]) -> str:
    """Returns the names of the groups with their numbers of cases, for a message."""
    names = sorted(set(groups.values()))
    return ", ".join(f"{name} ({sum(group == name for group in groups.values())})" for name in names)


def _name_property(case: Case, name: str) -> str:
    if name == "spacing":
        return "x".join(f"{edge:g}" for edge in case.spacing_mm)
    if name == "age":
        return UNKNOWN if case.age_years is None else _name_age(case.age_years)
    return str(getattr(case, name)) or UNKNOWN


def _name_age(years: float) -> str:
    limits = (0, *AGE_LIMITS)
    band = int(np.searchsorted(limits, years, side="right")) - 1
    return f"{limits[band]}-{limits[band + 1] - 1}" if band + 1 < len(limits) else f"{limits[band]} and older"


def _divide_numbers(values: Mapping[str, str]) -> dict[str, str]:
    """Returns the values of a column as groups: many numbers become two, divided at the median of the whole column."""
    groups = {name: value for name, value in values.items() if value}
    numbers = {name: number for name, value in groups.items() if (number := _parse_number(value)) is not None}
    if len(set(groups.values())) <= MAX_NUMBERS or len(numbers) < len(groups):
        return groups
    middle = float(np.median(list(numbers.values())))
    return {name: f"{'up to' if number <= middle else 'above'} {middle:g}" for name, number in numbers.items()}


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
