"""Predicts studies as they arrive and sends SEG and SR back: medssl watch INBOX --run RUN --out OUTBOX"""

import argparse
import logging
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

POLL_S = 5.0


def main(words: list[str]) -> None:
    """Watches until it is stopped, or with --once until no study waits."""
    args = build_parser().parse_args(words)
    from medssl.files import exclusive_lock, sweep_parts
    from medssl.models.prediction.open_models import open_models
    from medssl.models.prediction.prepared import PredictionOptions
    from medssl.watch.destination import open_destination
    from medssl.watch.health import serve_health
    from medssl.watch.source import open_source
    from medssl.watch.watcher import Watcher, WatchOptions

    options = WatchOptions(args.out, args.quiet_s, tuple(args.modality), tuple(args.body_part))
    destinations = [open_destination(address) for address in (args.stow, args.cstore) if address]
    args.out.mkdir(parents=True, mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        message = "another watch writes into it; stop that one, or choose another --out"
        stack.enter_context(exclusive_lock(args.out, message))
        sweep_parts(args.out)
        source = stack.enter_context(open_source(args.inbox, args.out / "inbox"))
        logging.getLogger("medssl.inference.streaming.progress").setLevel(logging.WARNING)  # one line a study
        prediction = open_models(args.run).prepare(PredictionOptions(device=args.device))
        watcher = Watcher(source, prediction, destinations, options)
        port = stack.enter_context(serve_health(args.health_port, partial(_report, watcher)))
        print(f"watching {source.name}; http://127.0.0.1:{port}/health", flush=True)
        while watcher.run_pass() or not args.once:
            time.sleep(POLL_S)


def _report(watcher: Any) -> dict[str, Any]:
    """Returns the state for the health endpoint."""
    return {"problem": watcher.problem, "last_pass": watcher.last_pass, "studies": dict(watcher.counts)}


def build_parser() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = argparse.ArgumentParser("medssl watch", description=__doc__)
    parser.add_argument(
        "inbox",
        metavar="INBOX",
        help="a folder of DICOM files; dimse://AET@:PORT, which receives by C-STORE; or "
        "dicomweb+https://HOST/PATH?KEY=VALUE, which is searched again and again (both need medssl[pacs])",
    )
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN",
        help="finished finetunings, or ONNX files of `medssl publish --onnx`; several form an ensemble",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of states, predictions and documents; start again with the same"
    )
    parser.add_argument(
        "--stow", metavar="URL", help="archive that SEG and SR are stored in: dicomweb+https://HOST/PATH"
    )
    parser.add_argument("--cstore", metavar="NODE", help="node that SEG and SR are sent to: dimse://AET@HOST:PORT")
    parser.add_argument(
        "--quiet-s", type=float, default=60.0, metavar="SECONDS",
        help="a study is complete when no file arrived for this time (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--modality", nargs="+", default=[], choices=["CT", "MR", "PT"], help="predict series of these modalities only"
    )
    parser.add_argument(
        "--body-part", nargs="+", default=[], metavar="PART", help="predict series of these BodyPartExamined only"
    )
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:NUMBER (default: a GPU if there is one)")
    parser.add_argument(
        "--health-port", type=int, default=0, metavar="PORT", help="port on loopback of /health (default: any free one)"
    )
    parser.add_argument("--once", action="store_true", help="end when every study is done, instead of waiting for more")
    return parser
