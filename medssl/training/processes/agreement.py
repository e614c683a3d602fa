"""How the processes of a training agree: one acts for all, and a condition in one of them holds in all."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import distributed

from medssl.errors import BadInput
from medssl.nn.collectives import get_rank, is_distributed

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process writes the files of the run; the only process of a training does."""
    return get_rank() == 0


def call_on_main(function: Callable[[], T]) -> T:
    """Calls a function in the main process and returns its result in all processes; an error is raised in all.

    Args:
        function: Its result has to be picklable.
    """
    if not is_distributed():
        return function()
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as error:
            is_explained = isinstance(error, BadInput | OSError)
            outcome[1] = error if is_explained else RuntimeError(f"{type(error).__name__}: {error}")
    distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def gather_values(value: T) -> list[T]:
    """Returns the picklable values of all processes, in their order."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def find_any(*conditions: bool) -> list[bool]:
    """Returns for each condition whether it holds in any process."""
    if not is_distributed():
        return list(conditions)
    flags = torch.tensor(conditions, dtype=torch.uint8)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flags]
