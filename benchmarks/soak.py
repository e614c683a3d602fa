"""The soak: each stage killed at random moments and started again, against the same stage left alone.

usage: python -m benchmarks.soak [KILLS [MINUTES]], by default $SOAK_KILLS or 100 kills within $SOAK_MINUTES, or without
limit, after the undisturbed runs; one stage at a time a core. `make soak` puts the table into docs/benchmarks.md.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np

from medssl.data.phantoms import datasets
from medssl.files import PART_PREFIX, sha256
from medssl.io.dicom.deidentify import PseudonymKey
from medssl.review.event_store import EventStore

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
SHORT = ["train.epochs=3", "train.steps_per_epoch=8", "encoder.channels=[4,8,16,32]", "patch_size=[24,24,24]"]
NUM_VERDICTS = 60
RECORD = f"""
import sys
from medssl.review.event import Act
from medssl.review.event_store import EventStore
store = EventStore(sys.argv[1])
for number in range({NUM_VERDICTS}):
    store.record(Act(session="s", number=number, case=f"c{{number}}", reviewer="a", role="reader", action="open"))
    with open(sys.argv[1] + ".acknowledged", "a") as file:
        file.write(f"{{number}}\\n")
"""


@dataclass
class Stage:
    """A command to kill: its words for a folder, the digest of its result, and what was counted."""

    name: str
    make_words: Callable[[Path], list[str]]
    digest: Callable[[Path], str]
    signals: tuple[signal.Signals, ...] = SIGNALS[:2]
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    expected: str = ""


def main(
    kills: str = os.environ.get("SOAK_KILLS", "100"), minutes: str = os.environ.get("SOAK_MINUTES", "inf")
) -> None:
    """Prints a row for each stage."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        datasets.write_demo_folder(folder / "scans", 0, 6, 4, (40, 40, 40), 7.0)
        PseudonymKey.create(folder / "key")
        stages, draw = list_stages(folder), random.Random(0)
        for stage in stages:
            run_undisturbed(stage, folder)
        deadline = time.monotonic() + 60 * float(minutes)

        def take_turns(_: int) -> None:
            while (sent := sum(map(count_kills, stages))) < int(kills) and time.monotonic() < deadline:
                print(f"{sent} kills", file=sys.stderr, flush=True)
                kill_and_compare(min(stages, key=count_kills), folder, draw)

        with ThreadPoolExecutor() as pool:
            list(pool.map(take_turns, range(os.cpu_count() or 1)))
    print("| stage | kills (KILL / TERM / USR1) | runs | equal to the undisturbed | failed restarts | parts left |")
    print("|---|---|---|---|---|---|")
    for stage in stages:
        c = stage.counts
        sent = " / ".join(str(c[s.name]) for s in SIGNALS)
        print(f"| {stage.name} | {count_kills(stage)} ({sent}) | {c['runs']} | {c['equal']}", end=" | ")
        print(f"{c['failed']} | {c['parts']} |")


def list_stages(base: Path) -> list[Stage]:
    """Returns the stages; each works on the undisturbed results of the ones before in `base`/whole."""
    whole = base / "whole"
    manifest, sweep = f"manifest={whole}/store/manifest.csv", base / "sweep.yaml"
    sweep.write_text(
        "finetune_config: configs/demo/organs.yaml\nnum_labelled: [2]\nseeds: [0]\narms: {scratch: {}}\n"
        "changes: {train.epochs: 2, train.steps_per_epoch: 8, encoder.channels: [4,8,16,32], patch_size: [24,24,24]}\n"
    )
    pretrained, key = f"pretrained={whole}/encoder", ["--pseudonym-key", f"{base}/key"]
    fractions = ["--split-fractions", "train=0.6,val=0.2,test=0.2"]
    return [
        Stage("ingest", lambda out: ["ingest", f"{base}/scans", "--out", f"{out}/store", *key, *fractions],
              lambda out: sha256(out / "store/manifest.csv")),
        Stage("pretrain", lambda out: ["pretrain", "configs/demo/pretrain.yaml", manifest, f"run={out}/encoder", *SHORT,
              "resume=true"], lambda out: sha256(out / "encoder/weights.safetensors"), SIGNALS),
        Stage("finetune", lambda out: ["finetune", "configs/demo/organs.yaml", manifest, pretrained,
              f"run={out}/tuned", *SHORT, "val_every_n_epochs=1", "resume=true"],
              lambda out: sha256(out / "tuned/weights.safetensors"), SIGNALS),
        Stage("fewshot", lambda out: ["fewshot", str(sweep), manifest, f"out={out}/sweep"],
              lambda out: sha256(next((out / "sweep/cells").glob("*/cases.csv"))), SIGNALS),
        Stage("predict", lambda out: ["predict", f"{whole}/tuned", f"{whole}/store/manifest.csv", "--out",
              f"{out}/predicted", "--split", "train", "--resume"], digest_predictions),
        Stage("review", lambda out: ["", str(out / "review.sqlite")], digest_review),
    ]  # fmt: skip


def run_undisturbed(stage: Stage, base: Path) -> None:
    """Runs a stage without a kill and keeps its duration and the digest of its result."""
    whole = base / "whole"
    whole.mkdir(exist_ok=True)
    begin = time.monotonic()
    if code := start(stage, whole).wait():
        sys.exit(f"{stage.name}: exit code {code} without a kill: {(base / f'{stage.name}.log').read_text()[-500:]}")
    stage.seconds, stage.expected = time.monotonic() - begin, stage.digest(whole)


def kill_and_compare(stage: Stage, base: Path, draw: random.Random) -> None:
    """Kills a stage up to twice at random moments, lets the next start end, and compares the result."""
    with tempfile.TemporaryDirectory(dir=base) as temporary:
        out = Path(temporary)
        code = -1
        for attempt in range(2):
            process, number, begin = start(stage, out), draw.choice(stage.signals), time.monotonic()
            try:
                code = process.wait(draw.uniform(0.3, 1.0) * stage.seconds)
                if attempt == 0:  # from the beginning to the end, on a machine that is less busy than it was
                    stage.seconds = min(stage.seconds, time.monotonic() - begin)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                stage.counts[number.name] += 1
                code = process.wait()
            if code == 0:
                break
        if code:
            code = start(stage, out).wait()
        stage.counts["runs"] += 1
        stage.counts["failed"] += code != 0
        stage.counts["equal"] += code == 0 and stage.digest(out) == stage.expected
        stage.counts["parts"] += len([path for path in out.rglob("*") if path.name.startswith(PART_PREFIX)])
        if code:
            print(f"{stage.name}: exit code {code}: {(base / f'{stage.name}.log').read_text()[-500:]}", file=sys.stderr)


def count_kills(stage: Stage) -> int:
    """Returns how often a stage was killed."""
    return sum(stage.counts[number.name] for number in SIGNALS)


def start(stage: Stage, out: Path) -> "subprocess.Popen[bytes]":
    """Starts the command of a stage."""
    name, *words = stage.make_words(out)
    script = ["-m", "medssl.cli", name] if name else ["-c", RECORD]
    log = (out.parent / f"{stage.name}.log").open("ab")
    return subprocess.Popen([sys.executable, *script, *words], stdout=log, stderr=log)


def digest_predictions(out: Path) -> str:
    """Returns a hash of the label maps of all cases."""
    digest = hashlib.sha256()
    for path in sorted((out / "predicted").glob("*/labels.nii.gz")):
        digest.update(path.parent.name.encode() + np.asanyarray(nibabel.load(path).dataobj).tobytes())
    return digest.hexdigest()


def digest_review(out: Path) -> str:
    """Returns the faults of the record and the verdicts that it lacks, of those that were acknowledged."""
    path = out / "review.sqlite"
    store = EventStore(path)
    cases = {event.case for event in store.read_events() if event.action != "predict"}
    acknowledged = {f"c{line}" for line in Path(f"{path}.acknowledged").read_text().split()}
    return f"{store.find_faults()} {sorted(acknowledged - cases)} {len(cases)}"


if __name__ == "__main__":
    main(*sys.argv[1:])
