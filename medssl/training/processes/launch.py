"""Starts the processes of a training, or joins those that torchrun or SLURM started, and ends them together."""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch
from torch import distributed

from medssl.errors import BadInput, Stopped
from medssl.settings import Settings
from medssl.training.config import TrainConfig
from medssl.training.fault_tolerance.limits import SIGNALS

GRACE_S = 30.0  # for the other processes to end by themselves after one has failed
ConfigT = TypeVar("ConfigT", bound=Settings)
ResultT = TypeVar("ResultT")


def run_in_processes(function: Callable[[ConfigT], ResultT], settings: ConfigT, config: TrainConfig) -> ResultT:
    """Calls `function(settings)` in each of the configured processes and returns the result of the main one.

    With one process this is a plain call. Processes that torchrun or SLURM started (`RANK` is set) join each other;
    otherwise they are started on this machine. They end together: the error of one is raised here in its words.

    Args:
        function: A function of a module.
        settings: Its argument.
        config: Number of processes.

    Raises:
        BadInput: The number of processes is not the configured one, or one of them failed on its input or was killed.
        Stopped: A signal or a limit stopped the training; its state is saved.
    """
    num_started = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if num_started == 1 and config.num_nodes > 1:
        raise BadInput(
            f"train.num_nodes={config.num_nodes}: processes of several nodes are started by torchrun or SLURM;"
            " use `medssl slurm ... --nodes`"
        )
    if num_started > 1 and num_started != config.num_processes:
        raise BadInput(
            f"{num_started} processes were started, train.devices={config.devices} x"
            f" train.num_nodes={config.num_nodes} is {config.num_processes}; give as many devices as processes a node"
        )
    if config.num_processes == 1:
        return function(settings)
    if num_started > 1:
        with process_group(config):
            return function(settings)
    return _start_processes(function, settings, config)


@contextmanager
def process_group(config: TrainConfig) -> Iterator[None]:
    """Joins the other processes of a training, unless this process has done so already."""
    if distributed.is_initialized():
        yield
        return
    backend = "gloo"
    if config.accelerator != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)
    yield
    distributed.destroy_process_group()  # not after an error: it would wait for the other processes


@dataclass(frozen=True)
class _Child:
    """What a process of a training gets from its parent."""

    rank: int
    world_size: int
    port: int
    num_threads: int = field(default_factory=torch.get_num_threads)
    log_level: int = field(default_factory=lambda: logging.getLogger("medssl").getEffectiveLevel())
    format_warning: Callable[..., str] = field(default_factory=lambda: warnings.formatwarning)

    def set_up(self) -> None:
        """Prepares environment, logging and signals of the process."""
        names = {"RANK": self.rank, "LOCAL_RANK": self.rank, "WORLD_SIZE": self.world_size, "MASTER_PORT": self.port}
        os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
        torch.set_num_threads(max(1, self.num_threads // self.world_size))
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on
        threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
        prefix = f"process {self.rank}: " if self.rank else ""
        logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s")
        logging.getLogger("medssl").setLevel(max(logging.WARNING, self.log_level) if self.rank else self.log_level)
        warnings.formatwarning = self.format_warning


def _start_processes(function: Callable[[ConfigT], ResultT], settings: ConfigT, config: TrainConfig) -> ResultT:
    """Starts processes on this machine and waits for them."""
    context, port = multiprocessing.get_context("spawn"), _find_free_port()
    processes: list[SpawnProcess] = []
    connections: list[Connection] = []
    for rank in range(config.devices):
        receiver, sender = context.Pipe(duplex=False)
        child = _Child(rank, config.devices, port)
        processes.append(context.Process(target=_run_child, args=(child, function, settings, config, sender)))
        connections.append(receiver)
        processes[-1].start()
        sender.close()
    try:
        with _pass_on_signals(processes):
            outcomes = _wait(processes, connections)
    finally:
        for process in processes:
            process.kill()
            process.join()
    _raise_worst(outcomes)
    return outcomes[0][1]


def _run_child(
    child: _Child, function: Callable[[Any], Any], settings: Settings, config: TrainConfig, sender: Connection
) -> None:
    """Runs a process of a training and sends its outcome: a kind of `_raise_worst`, and what belongs to it."""
    child.set_up()
    try:
        outcome: tuple[Any, ...] = "done", run_in_processes(function, settings, config)
    except (BadInput, OSError) as error:
        outcome = "bad input", error if isinstance(error, OSError) else BadInput(*error.args)
    except Stopped as stopped:
        outcome = "stopped", str(stopped), stopped.exit_code
    except KeyboardInterrupt:
        outcome = "interrupted", None
    except Exception:
        outcome = "error", traceback.format_exc()
    sender.send(outcome)
    sender.close()
    if outcome[0] != "done":
        os._exit(1)  # threads of collectives that wait for the other processes would not let it end


def _wait(processes: list[SpawnProcess], connections: list[Connection]) -> list[tuple[Any, ...]]:
    """Returns the outcomes of all processes; after the first failure the others have `GRACE_S` to end."""
    outcomes: dict[int, tuple[Any, ...]] = {}
    deadline: float | None = None
    while len(outcomes) < len(processes):
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            break
        for ready in wait([connections[n] for n in range(len(processes)) if n not in outcomes], remaining):
            rank = next(n for n, connection in enumerate(connections) if connection is ready)
            try:
                outcomes[rank] = connections[rank].recv()
            except EOFError:
                processes[rank].join(GRACE_S)
                outcomes[rank] = "died", rank, processes[rank].exitcode
            if outcomes[rank][0] != "done" and deadline is None:
                deadline = time.monotonic() + GRACE_S
    return [outcomes.get(rank, ("hangs", rank)) for rank in range(len(processes))]


def _raise_worst(outcomes: list[tuple[Any, ...]]) -> None:
    """Raises the error that explains the failure of the processes best, if there is one."""
    first = {outcome[0]: outcome for outcome in reversed(outcomes)}
    if "bad input" in first:
        raise first["bad input"][1]
    if "stopped" in first:
        raise Stopped(*first["stopped"][1:])
    if "interrupted" in first:
        raise KeyboardInterrupt
    if "died" in first:
        _, rank, code = first["died"]
        cause = f"was ended by signal {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        raise BadInput(
            f"process {rank} of the training {cause}, most often for lack of memory; free memory, or lower"
            " train.batch_size in another run; resume=true continues from the last checkpoint"
        )
    if "error" in first:
        raise RuntimeError(f"a process of the training failed:\n{first['error'][1]}")


def _stop_with_parent() -> None:
    """Ends this process like a signal when its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _pass_on_signals(processes: list[SpawnProcess]) -> Iterator[None]:
    """Passes signals on to the processes while the block runs; only the main thread receives any."""

    def pass_on(number: int, _: object) -> None:
        for process in processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
