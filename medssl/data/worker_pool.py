"""Runs jobs in worker processes of which any may die without stopping the others."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib import import_module
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from medssl.errors import BadInput

J = TypeVar("J")
R = TypeVar("R")
Runner = Callable[[Iterable[Any], Callable[[Any], Any], Callable[[Any], Any]], Iterator[tuple[Any, Any]]]


def runner(workers: int, scheduler: str | None) -> Runner:
    """Where jobs run: in processes of this machine, or on the workers of a dask scheduler."""
    if scheduler is None:
        return partial(run, workers=workers)
    try:
        cluster = import_module("medssl.data.dask_pool")
    except ImportError as error:
        raise BadInput(f"scheduler: needs dask ({error}); pip install 'medssl[cluster]'") from None
    return partial(cluster.run, scheduler=scheduler)


def run(jobs: Iterable[J], work: Callable[[J], R], dead: Callable[[J], R], workers: int) -> Iterator[tuple[J, R]]:
    """Every job with its result, as they finish; `dead(job)` is the result of a job that killed its process.

    With no workers the jobs run here, one after the other.

    A pool in which one process died is given up: what was running then runs again, each job in a process of its own.
    """
    if not workers:
        yield from ((job, work(job)) for job in jobs)
        return
    waiting = deque(jobs)
    while waiting:
        running: dict[Future[R], J] = {}
        try:
            with _pool(min(workers, len(waiting)), work) as pool:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(work, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
        except BrokenProcessPool:
            for job in running.values():
                yield job, _alone(job, work, dead)


def _alone(job: J, work: Callable[[J], R], dead: Callable[[J], R]) -> R:
    try:
        with _pool(1, work) as pool:
            return pool.submit(work, job).result()
    except BrokenProcessPool:
        return dead(job)


def _pool(workers: int, work: Callable[[J], R]) -> ProcessPoolExecutor:
    """Workers are forked off one process that has imported what the work needs: imports take longer than many a job."""
    context = get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent)


def _die_with_parent() -> None:
    """Workers of a killed program would wait for their next job for ever."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
