"""Opens the review app on a predictions folder."""

import argparse
import getpass
import os
import secrets
import socket
import sys
from pathlib import Path

from medssl.errors import BadInput
from medssl.home import home
from medssl.predict import phantoms
from medssl.review.access import Access
from medssl.review.predictions import NOTICE, read_index
from medssl.review.store import Store, beside


def main(words: list[str]) -> None:
    """Checks what it was given, prints the address, and serves until it is stopped."""
    asked = _parser().parse_args(words)
    if asked.demo and not asked.predictions.exists():
        print(f"Drawing phantom predictions in {asked.predictions}")
        phantoms.write(asked.predictions, cases=4)
    access = _access(asked)
    _free(asked.address, asked.port)
    server = [sys.executable, "-m", "streamlit", "run", str(home() / "app" / "asgi.py")]
    flags = ["--server.port", str(asked.port), "--server.address", asked.address]
    print(f"Reading {access.predictions}; verdicts go to {access.store}")
    print(f"Open http://{asked.address}:{asked.port} (stop with ctrl-c). {NOTICE}", flush=True)
    # In place of this process, so that whoever stops the command stops the server.
    os.execve(sys.executable, server + flags, os.environ | {"PYTHONPATH": str(home())} | access.to_environment())


def _free(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            said = f"{address}:{port}: cannot be served from ({error.strerror}); choose another --port"
            raise BadInput(said) from None


def _access(asked: argparse.Namespace) -> Access:
    index = read_index(asked.predictions)
    if not index.cases:
        raise BadInput(f"{asked.predictions}: holds no case; `medssl predict RUN SCANS --out {asked.predictions}`")
    store = (asked.store or beside(index.folder)).absolute()
    Store(store)
    return Access(
        predictions=str(index.folder.absolute()), store=str(store), reviewer=asked.reviewer, role=asked.role,
        key=secrets.token_hex(32), tour=asked.demo, idle_minutes=asked.idle_minutes,
        hosts=(asked.address, "127.0.0.1", "localhost"),
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medssl review", description=__doc__)
    where = Path("phantom-predictions")
    parser.add_argument("predictions", type=Path, nargs="?", default=where, help="what `medssl predict` wrote")
    parser.add_argument("--demo", action="store_true", help=f"a guided tour, on {where} unless PREDICTIONS are given")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--address", default="127.0.0.1", help="keep this, unless a proxy signs people in before it")
    parser.add_argument("--store", type=Path, help="where verdicts go; PREDICTIONS-review.sqlite unless given")
    parser.add_argument("--reviewer", default=getpass.getuser(), help="the name that verdicts are stored under")
    parser.add_argument("--role", choices=("reader", "senior", "admin"), default="senior")
    parser.add_argument("--idle-minutes", type=float, default=20)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
