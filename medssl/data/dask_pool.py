"""Runs jobs on the workers of a dask scheduler and survives the death of any worker.

Workers must see the same folders under the same paths as the program that starts the jobs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from distributed import Client, KilledWorker, as_completed

from medssl.errors import BadInput

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def run_jobs(
    jobs: Iterable[JobT],
    work: Callable[[JobT], ResultT],
    on_worker_death: Callable[[JobT], ResultT],
    scheduler: str,
) -> Iterator[tuple[JobT, ResultT]]:
    """Yields every job with its result, in order of completion.

    Args:
        jobs: Arguments of `work`.
        work: Importable function, called once for each job.
        on_worker_death: Called instead, in this process, for a job that killed several workers.
        scheduler: Address of the dask scheduler.
    """
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{scheduler}: no dask scheduler answers at this address ({error}); start `dask scheduler`"
        ) from None
    with client:
        job_of_future = {client.submit(work, job, pure=False): job for job in jobs}
        for future in as_completed(list(job_of_future)):
            try:
                yield job_of_future[future], future.result()
            except KilledWorker:
                yield job_of_future[future], on_worker_death(job_of_future[future])
            future.release()
