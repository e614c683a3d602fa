"""Opens the review app on a predictions folder."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.errors import BadInput
from medssl.home import resources_dir

if TYPE_CHECKING:
    from medssl.predictions_folder import Index
    from medssl.review.access.reviewers import ReviewConfig

SIGN_IN_NOTICES = {
    "local": "LOCAL MODE: no sign-in. Everyone at this machine reads as {0.reviewer}; other machines have no config.",
    "proxy": "Only requests with the proxy's secret are answered; the proxy names the reader in {0.user_header}.",
    "oidc": "People sign in at the identity provider.",
}


def main(words: list[str]) -> None:
    """Checks the options, prints the address, and serves until it is stopped."""
    args = build_parser().parse_args(words)
    from medssl.predictions_folder import NOTICE, read_index
    from medssl.review.audit.prediction_events import record_predictions
    from medssl.review.event_store import EventStore

    if args.demo and not args.predictions.exists():
        from medssl.inference import phantom_predictions

        print(f"Writing phantom predictions in {args.predictions}")
        phantom_predictions.write_phantom_predictions(args.predictions, cases=4)
    config = _review_config(args)
    _require_free_port(args.address, args.port)
    record_predictions(read_index(args.predictions), EventStore(config.audit_db))
    server = [sys.executable, "-m", "streamlit", "run", str(resources_dir() / "app" / "asgi.py")]
    flags = ["--server.port", str(args.port), "--server.address", args.address]
    flags += ["--browser.serverAddress", config.hosts[-1]]  # else Streamlit asks an outside service who we are
    flags += ["--secrets.files", str(args.oidc.absolute())] if args.oidc else []
    print(f"Reading {config.predictions}; verdicts go to {EventStore(config.audit_db).name}")
    print(SIGN_IN_NOTICES[config.mode].format(config))
    print(f"Open http://{args.address}:{args.port} (stop with ctrl-c). {NOTICE}", flush=True)
    # In place of this process, so that whoever stops the command stops the server.
    os.execve(  # noqa: S606
        sys.executable, server + flags, os.environ | {"PYTHONPATH": str(resources_dir())} | config.to_environment()
    )


def _require_free_port(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "ports go up to 65535"
            message = f"{address}:{port}: cannot be used ({reason}); choose another --port"
            raise BadInput(message) from None


def _review_config(args: argparse.Namespace) -> ReviewConfig:
    from medssl.io.dicomweb.address import parse_address
    from medssl.predictions_folder import read_index
    from medssl.review.access.reviewers import ReviewConfig
    from medssl.review.event_store import EventStore, resolve_database
    from medssl.review.reading import has_other_model_events

    index = read_index(args.predictions)
    if not index.cases:
        raise BadInput(f"{args.predictions}: holds no case; `medssl predict RUN SCANS --out {args.predictions}`")
    sign_in = _sign_in_options(args)
    hosts = ("127.0.0.1", "localhost", args.address, *sign_in.pop("hosts", ()), *([args.host] if args.host else ()))
    database = resolve_database(args.audit_db, index.folder)
    store = EventStore(database)
    if has_other_model_events(
        (event for event in store.read_events() if event.case in index.cases), index.weights_sha256
    ):
        raise BadInput(
            f"{store.name}: holds verdicts on another model's predictions of these cases; use another --audit-db"
        )
    return ReviewConfig(
        predictions=str(index.folder.absolute()), audit_db=database, key=secrets.token_hex(32), guided_tour=args.demo,
        comparison=_check_comparison(args.comparison, index), dicom=_find_scans(args, index),
        dicomweb=parse_address(args.dicomweb).url if args.dicomweb else "",
        manifest=_check_manifest(args.manifest), nninteractive=_check_server(args.nninteractive),
        idle_minutes=args.idle_minutes, sign_in_minutes=args.sign_in_minutes, hosts=hosts,
        **sign_in,
    )  # fmt: skip


def _check_comparison(folder: Path | None, index: Index) -> str:
    """Returns the path of another model's predictions; both must share a case."""
    from medssl.predictions_folder import read_index

    if folder and not set(read_index(folder).cases) & set(index.cases):
        raise BadInput(f"{folder}: has no case of {index.folder}; predict the same scans with both models")
    return str(folder.absolute()) if folder else ""


def _check_manifest(path: Path | None) -> str:
    """Returns the path of a manifest, which must be readable."""
    from medssl.data.manifest import Manifest

    if path:
        Manifest.read(path)
    return str(path.absolute()) if path else ""


def _check_server(url: str) -> str:
    """Returns the address of an nnInteractive server, which must be one of HTTP and have its client installed."""
    from medssl.review.assist.nninteractive import InteractiveServer

    if url:
        if not re.fullmatch(r"https?://[^/\s]+/?", url):
            raise BadInput(f"--nninteractive {url}: is no address of a server; write http://HOST:PORT")
        InteractiveServer(url)
    return url


def _find_scans(args: argparse.Namespace, index: Index) -> str:
    """Returns the folder of the DICOM scans, which are retrieved from the archive if only that is given."""
    folder: Path | None = args.dicom
    if args.dicomweb and not folder:
        from medssl.export.archive_delivery import retrieve_scans

        return str(retrieve_scans(args.dicomweb, index.folder))
    if folder and not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the scans that were predicted")
    return str(folder.absolute()) if folder else ""


def _sign_in_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings of sign-in, from options that go together."""
    from medssl.review.access import signin

    if args.oidc and args.proxy_header:
        raise BadInput("--oidc and --proxy-header exclude each other; choose one")
    if bool(args.proxy_header) != bool(args.proxy_secret_file):
        raise BadInput("--proxy-header and --proxy-secret-file go together: anyone can send a header")
    if not (args.oidc or args.proxy_header):
        if not signin.is_loopback(args.address) or args.host or args.roles:
            raise BadInput(
                "local mode has no sign-in and serves 127.0.0.1 only, without --address, --host or --roles; "
                "use --oidc or --proxy-header for sign-in"
            )
        return {"mode": "local", "reviewer": args.reviewer, "role": args.role}
    if not args.roles:
        raise BadInput("--roles is missing: give a file with one line `name: reader|senior|admin` per person")
    roles = {"roles": signin.read_roles(args.roles)}
    if args.oidc:
        return roles | {"mode": "oidc", "hosts": signin.read_oidc_hosts(args.oidc)}
    secret = signin.read_proxy_secret(args.proxy_secret_file)
    return roles | {"mode": "proxy", "user_header": args.proxy_header, "proxy_secret": secret}


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    default = Path("phantom-predictions")
    parser = argparse.ArgumentParser("medssl review", description=__doc__)
    parser.add_argument("predictions", type=Path, nargs="?", default=default, help="a predictions folder")
    parser.add_argument("comparison", type=Path, nargs="?", help="another model's predictions of the same cases")
    parser.add_argument("--demo", action="store_true", help=f"guided tour on PREDICTIONS (default: {default})")
    parser.add_argument("--port", type=int, default=8501, help="port of the server (default: 8501)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on; others than this need sign-in")
    parser.add_argument("--host", help="name under which browsers reach the app, if it differs from the address")
    parser.add_argument(
        "--audit-db", metavar="FILE|URL",
        help="database of the verdicts: a file (default: PREDICTIONS-review.sqlite) or postgresql+psycopg://USER@HOST/NAME",
    )  # fmt: skip
    parser.add_argument("--dicom", type=Path, help="the predicted DICOM scans, needed to export SEG and SR")
    parser.add_argument(
        "--dicomweb", metavar="ADDRESS", default="",
        help="archive that SEG and SR are stored in, and that the scans come from unless --dicom names them: "
        "dicomweb+https://HOST/PATH?PatientID=ID",
    )  # fmt: skip
    parser.add_argument(
        "--nninteractive", metavar="URL", default="",
        help="nnInteractive server that makes the proposals (Shift C) in place of our own engine: http://HOST:PORT",
    )  # fmt: skip
    parser.add_argument("--manifest", type=Path, help="manifest.csv with site, sex and age of the cases, for *Drift*")
    parser.add_argument("--idle-minutes", type=float, default=20, help="minutes until an idle reader is locked out")
    readers = parser.add_argument_group("readers: one person at this machine, or everyone who signs in")
    readers.add_argument("--reviewer", default=getpass.getuser(), help="name of the one person (default: user name)")
    readers.add_argument("--role", choices=("reader", "senior", "admin"), default="senior", help="role of that person")
    readers.add_argument("--oidc", type=Path, metavar="FILE", help="secrets.toml with [auth] of an OIDC provider")
    readers.add_argument("--proxy-header", metavar="NAME", help="header in which a proxy names the signed-in person")
    readers.add_argument("--proxy-secret-file", type=Path, metavar="FILE", help="secret that the proxy has to send")
    readers.add_argument(
        "--sign-in-minutes", type=float, default=60, metavar="N",
        help="with --oidc: a signature needs a sign-in of the last N minutes (default: 60)",
    )  # fmt: skip
    readers.add_argument("--roles", type=Path, metavar="FILE", help="one line `name: reader|senior|admin` per person")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
