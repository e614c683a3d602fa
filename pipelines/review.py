"""Opens the review app on a predictions folder."""

import argparse
import getpass
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any, get_args

from medssl.errors import BadInput
from medssl.home import home
from medssl.inference import phantom_predictions as phantoms
from medssl.predictions_folder import NOTICE, Index, read_index
from medssl.review.access import signin
from medssl.review.access.reviewers import SECRET_HEADER, Access
from medssl.review.event import Role
from medssl.review.event_store import Store, placed
from medssl.review.reading import strays

SAID = {
    "local": "LOCAL MODE: nobody signs in; everyone at this machine reads as {0.reviewer}, and only this machine may.",
    "proxy": "Only requests with the proxy's secret are answered; it names the reader in {0.user_header}.",
    "oidc": "People sign in at the identity provider.",
}


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
    flags += ["--browser.serverAddress", access.hosts[-1]]  # else Streamlit asks an outside service who we are
    flags += ["--secrets.files", str(asked.oidc.absolute())] if asked.oidc else []
    print(f"Reading {access.predictions}; verdicts go to {Store(access.store).name}")
    print(SAID[access.mode].format(access))
    print(f"Open http://{asked.address}:{asked.port} (stop with ctrl-c). {NOTICE}", flush=True)
    # In place of this process, so that whoever stops the command stops the server.
    os.execve(sys.executable, server + flags, os.environ | {"PYTHONPATH": str(home())} | access.to_environment())


def _free(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "ports go up to 65535"
            said = f"{address}:{port}: cannot be served from ({why}); choose another --port"
            raise BadInput(said) from None


def _access(asked: argparse.Namespace) -> Access:
    index = read_index(asked.predictions)
    if not index.cases:
        raise BadInput(f"{asked.predictions}: holds no case; `medssl predict RUN SCANS --out {asked.predictions}`")
    told = _mode(asked)
    hosts = ("127.0.0.1", "localhost", asked.address, *told.pop("hosts", ()), *([asked.host] if asked.host else ()))
    store = placed(asked.store, index.folder)
    kept = Store(store)
    if strays((event for event in kept.events() if event.case in index.cases), index.weights):
        raise BadInput(
            f"{kept.name}: holds verdicts on another model's prediction of these cases; --store FILE starts anew"
        )
    return Access(
        predictions=str(index.folder.absolute()), store=store, key=secrets.token_hex(32), tour=asked.demo,
        rival=_rival(asked.rival, index), scans=_scans(asked.scans), idle_minutes=asked.idle_minutes, hosts=hosts,
        **told,
    )  # fmt: skip


def _rival(asked: Path | None, index: Index) -> str:
    """The other model's predictions, which must be of some of the same cases."""
    if asked and not set(read_index(asked).cases) & set(index.cases):
        raise BadInput(f"{asked}: has no case of {index.folder}; predict the same scans with both models")
    return str(asked.absolute()) if asked else ""


def _scans(asked: Path | None) -> str:
    if asked and not asked.is_dir():
        raise BadInput(f"{asked}: no such folder; give the scans that were predicted")
    return str(asked.absolute()) if asked else ""


def _mode(asked: argparse.Namespace) -> dict[str, Any]:
    """How people sign in, from the flags that go together."""
    if asked.oidc and asked.proxy_header:
        raise BadInput("--oidc and --proxy-header are two ways to sign in; choose one")
    if bool(asked.proxy_header) != bool(asked.proxy_secret_file):
        raise BadInput("--proxy-header and --proxy-secret-file go together: a header alone anybody can send")
    if not (asked.oidc or asked.proxy_header):
        if not signin.loopback(asked.address) or asked.host or asked.roles:
            raise BadInput(
                "in local mode nobody signs in, so it serves 127.0.0.1 alone, without --address, --host or --roles; "
                "--oidc or --proxy-header let people sign in"
            )
        return {"mode": "local", "reviewer": asked.reviewer, "role": asked.role}
    if not asked.roles:
        raise BadInput("who may read? give --roles, a file with a line `name: reader|senior|admin` each")
    known = {"roles": signin.roles(asked.roles)}
    if asked.oidc:
        return known | {"mode": "oidc", "hosts": signin.oidc_hosts(asked.oidc)}
    secret = signin.proxy_secret(asked.proxy_secret_file)
    return known | {"mode": "proxy", "user_header": asked.proxy_header, "proxy_secret": secret}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medssl review", description=__doc__)
    where = Path("phantom-predictions")
    parser.add_argument("predictions", type=Path, nargs="?", default=where, help="what `medssl predict` wrote")
    parser.add_argument("rival", type=Path, nargs="?", help="what another model predicted of the same cases")
    parser.add_argument("--demo", action="store_true", help=f"a guided tour, on {where} unless PREDICTIONS are given")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--address", default="127.0.0.1", help="where to listen; another one only if people sign in")
    parser.add_argument("--host", help="the name under which browsers reach the app, if it is not the address")
    parser.add_argument(
        "--store", "--database", help="where verdicts go, a file (PREDICTIONS-review.sqlite unless given) or a "
        "database: postgresql+psycopg://USER@HOST/NAME"
    )  # fmt: skip
    who = parser.add_argument_group("who reads: one person at this machine, or everyone who signs in")
    who.add_argument("--reviewer", default=getpass.getuser(), help="the one person's name, which verdicts get")
    who.add_argument("--role", choices=get_args(Role), default="senior", help="and role")
    who.add_argument("--oidc", type=Path, metavar="FILE", help="a secrets.toml with [auth] of an OIDC provider")
    who.add_argument("--proxy-header", metavar="NAME", help="the header in which a proxy names who signed in to it")
    who.add_argument("--proxy-secret-file", type=Path, metavar="FILE", help=f"what it must send as {SECRET_HEADER}")
    who.add_argument("--roles", type=Path, metavar="FILE", help="a line `name: reader|senior|admin` each")
    parser.add_argument("--scans", type=Path, help="the DICOM that was predicted, so that SEG and SR can be delivered")
    parser.add_argument("--idle-minutes", type=float, default=20)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
