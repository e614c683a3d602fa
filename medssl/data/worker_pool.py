"""Runs jobs in worker processes and survives the death of any worker."""

import os
import sys
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

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
JobRunner = Callable[[Iterable[Any], Callable[[Any], Any], Callable[[Any], Any]], Iterator[tuple[Any, Any]]]


def make_job_runner(workers: int, scheduler: str | None) -> JobRunner:
    """Returns a function that runs jobs in local processes, or on a dask cluster if a scheduler is given.

    Args:
        workers: Number of local processes; with 0 the jobs run in this process, one after the other.
        scheduler: Address of a dask scheduler, which replaces the local processes.

    Raises:
        BadInput: The number of processes is negative, or dask is not installed.
    """
    if workers < 0:
        raise BadInput(f"workers: {workers} processes; give 0 (only the command's own process) or more")
    if scheduler is None:
        return partial(run_jobs, workers=workers)
    try:
        dask_pool = import_module("medssl.data.dask_pool")
    except ImportError as error:
        raise BadInput(f"scheduler: needs dask ({error}); pip install 'medssl[cluster]'") from None
    return partial(dask_pool.run_jobs, scheduler=scheduler)


def run_jobs(
    jobs: Iterable[JobT], work: Callable[[JobT], ResultT], on_worker_death: Callable[[JobT], ResultT], workers: int
) -> Iterator[tuple[JobT, ResultT]]:
    """Yields every job with its result, in order of completion.

    If a process dies, its pool is discarded, and every job that was running is repeated in a process of its own.

    Args:
        jobs: Arguments of `work`.
        work: Importable function, called once for each job.
        on_worker_death: Called instead, in this process, for a job that killed its process.
        workers: Number of processes; with 0 the jobs run in this process, one after the other.
    """
    if not workers:
        yield from ((job, work(job)) for job in jobs)
        return
    waiting = deque(jobs)
    while waiting:
        running: dict[Future[ResultT], JobT] = {}
        try:
            with _make_pool(min(workers, len(waiting)), work) as pool:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(work, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
        except BrokenProcessPool:
            for job in running.values():
                yield job, _run_in_own_process(job, work, on_worker_death)


RUN_HERE: JobRunner = partial(run_jobs, workers=0)  # in this process, one job after the other


def _run_in_own_process(
    job: JobT, work: Callable[[JobT], ResultT], on_worker_death: Callable[[JobT], ResultT]
) -> ResultT:
    try:
        with _make_pool(1, work) as pool:
            return pool.submit(work, job).result()
    except BrokenProcessPool:
        return on_worker_death(job)


def _make_pool(workers: int, work: Callable[[JobT], ResultT]) -> ProcessPoolExecutor:
    """Creates a pool that forks its workers from a process with the module of `work` and the readers in use here.

    Importing them takes longer than many jobs.
    """
    context = get_context("forkserver")
    # A copy, since another thread may import a module meanwhile.
    readers = sorted(name for name in list(sys.modules) if name.startswith("medssl.io."))
    context.set_forkserver_preload([work.__module__, *readers])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent)


def _die_with_parent() -> None:
    """Makes this worker exit when its parent dies; otherwise it waits for its next job for ever."""
    parent = parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
