"""Runs jobs on the workers of a dask scheduler, of which any may die; they must see the same folders."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from distributed import Client, KilledWorker, as_completed

from medssl.errors import BadInput

J = TypeVar("J")
R = TypeVar("R")


def run(jobs: Iterable[J], work: Callable[[J], R], dead: Callable[[J], R], scheduler: str) -> Iterator[tuple[J, R]]:
    """Every job with its result, as they finish; `dead(job)` is the result of a job that killed several workers."""
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise BadInput(f"{scheduler}: no dask scheduler answers there ({error}); start `dask scheduler`") from None
    with client:
        of = {client.submit(work, job, pure=False): job for job in jobs}
        for future in as_completed(list(of)):
            try:
                yield of[future], future.result()
            except KilledWorker:
                yield of[future], dead(of[future])
            future.release()
