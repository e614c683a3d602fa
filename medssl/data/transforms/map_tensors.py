"""Applies a function to every tensor of a nested value."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns a copy of dataclasses, mappings, tuples and lists in which every tensor is changed, in their order.

    Args:
        value: A tensor, a container of such values, or something without tensors, which stays as it is.
        change: Called once for each tensor.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(element, change) for key, element in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(element, change) for element in value)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: map_tensors(getattr(value, field.name), change) for field in fields(value)}
        return replace(value, **changes)
    return value
