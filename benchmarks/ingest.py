"""Cost of ingestion: throughput against MONAI, where the time goes, peak memory, second runs and archives.

The sizes are options; `python -m benchmarks ingest --slices 2000 --files 20000` measures the full ones.
"""

import argparse
import ctypes
import os
import pkgutil
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from benchmarks import _ingest_inputs as inputs
from benchmarks._commands import measure
from benchmarks._monai_ingest import TARGET, WORKERS
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.io.dicom import reader

PR_SET_CHILD_SUBREAPER = 36  # of Linux' prctl
PREPARE = "medssl.data.ingest.prepare_case"
STAGES = {
    "find the files, parse DICOM headers": "medssl.data.ingest.pipeline.discover_dataset",
    "read the images": f"{PREPARE}.read_image",
    "turn to RAS and resample the images": "medssl.data.normalization.IntensityNormalization.prepare",
    "read the labels": f"{PREPARE}.read_label",
    "resample the labels": f"{PREPARE}._resample_label",
    "hash, compress and write": f"{PREPARE}.store.write",
    "kinds of the classes": "medssl.data.ingest.pipeline.choose_kinds",
    "pictures of report.html": "medssl.data.ingest.pipeline.picture_page.write",
}


def main(words: list[str]) -> None:
    """Prints one part after the other."""
    parser = argparse.ArgumentParser("benchmarks.ingest", description=__doc__)
    parser.add_argument("--cases", type=int, default=8, help="scans of each kind for the throughput")
    parser.add_argument("--rounds", type=int, default=1, help="rounds in which the pipelines take turns")
    parser.add_argument("--slices", type=int, default=400, help="slices of the CT for the peak memory")
    parser.add_argument("--files", type=int, default=4000, help="small DICOM files for the second run")
    parser.add_argument("--parts", default="throughput,memory,second,zip", help="the parts to measure")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        parts: dict[str, Callable[[Path], None]] = {
            "throughput": partial(compare_with_monai, count=args.cases, rounds=args.rounds),
            "memory": partial(measure_memory, num_slices=args.slices),
            "second": partial(measure_second_run, count=args.files),
            "zip": measure_zip,
        }
        for part in args.parts.split(","):
            (Path(name) / part).mkdir()
            parts[part](Path(name) / part)


def compare_with_monai(folder: Path, count: int, rounds: int) -> None:
    """Prints the throughput of the pipelines and the share of each stage."""
    print(
        f"{count} CTs of {'x'.join(map(str, inputs.SHAPE))} at {inputs.SPACING} mm to {TARGET} mm, {WORKERS} "
        f"processes, from the command to its end; medians of {rounds} rounds in turn. The NIfTI have labels.\n"
    )
    print("| scans | pipeline | seconds | CPU s a case | medssl is faster by | by CPU time |")
    print("|---|---|---|---|---|---|")
    shares: dict[str, dict[str, float]] = {}
    for kind, write in (("NIfTI", inputs.write_decathlon), ("DICOM", inputs.write_dicom)):
        scans = folder / kind
        write(scans, count)
        options = ["--modality", "CT", "--spacing", ",".join(map(str, TARGET)), "--workers", str(WORKERS)]
        ways = {
            "medssl ingest": lambda out, scans=scans, options=options: [
                "medssl.cli", "ingest", *options, str(scans), "--out", str(out)],
            "MONAI, saved with torch.save": lambda out, scans=scans: ["benchmarks._monai_ingest", "pt", scans, out],
            "MONAI, saved as .nii.gz": lambda out, scans=scans: ["benchmarks._monai_ingest", "nii.gz", scans, out],
        }  # fmt: skip
        times = [
            [measure_command(way(folder / f"{kind}-{n}-{n_way}")) for n_way, way in enumerate(ways.values())]
            for n in range(rounds)
        ]
        for n_way, way in enumerate(ways):
            wall, cpu = (median(r[n_way][unit] for r in times) for unit in (0, 1))
            factors = (median(r[n_way][unit] / r[0][unit] for r in times) for unit in (0, 1))
            print(
                f"| {kind} | {way} | {wall:.1f} | {cpu / count:.2f} | " + " | ".join(f"{f:.1f}" for f in factors) + " |"
            )
        shares[kind] = measure_stages(scans, folder / f"{kind}-stages")
    print("\nWhere the CPU time of an ingestion goes (one process, imports apart):\n")
    print("| stage | " + " | ".join(shares) + " |\n|---|" + "---|" * len(shares))
    for stage in [*STAGES, "everything else"]:
        print(f"| {stage} | " + " | ".join(f"{100 * share[stage]:.0f} %" for share in shares.values()) + " |")


def measure_stages(scans: Path, out: Path) -> dict[str, float]:
    """Returns the share of the CPU time of an ingestion that each stage takes."""
    seconds = dict.fromkeys(STAGES, 0.0)
    with ExitStack() as patches:
        for stage, target in STAGES.items():
            patches.enter_context(_count_time(stage, target, seconds))
        total = run_ingest(scans, out, modality="CT", spacing_mm=TARGET)
    return {stage: s / total for stage, s in seconds.items()} | {"everything else": 1 - sum(seconds.values()) / total}


@contextmanager
def _count_time(stage: str, target: str, seconds: dict[str, float]) -> Iterator[None]:
    """Adds the CPU time of a function to its stage."""
    original = pkgutil.resolve_name(target)

    def run(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return original(*args, **options)
        finally:
            seconds[stage] += time.process_time() - start

    with mock.patch(target, run):
        yield


def run_ingest(scans: Path, out: Path, **options: Any) -> float:
    """Ingests a folder in this process and returns the CPU time in s."""
    start = time.process_time()
    ingest(scans, out, IngestConfig(num_workers=0, **options), lambda done, total: None)
    return time.process_time() - start


def measure_memory(folder: Path, num_slices: int) -> None:
    """Prints the peak memory of an ingestion of one long CT, on its own grid and resampled."""
    num_bytes = inputs.write_long_ct(folder / "long", num_slices)
    inputs.write_small_files(folder / "small", inputs.SMALL_SLICES)
    base = measure_peak(folder / "small", folder / "small-store", "native")
    print(f"\nPeak memory of a CT of 512x512x{num_slices} ({num_bytes >> 20} MiB), beyond the {base >> 20} MiB that an")
    print("ingestion of a small CT takes:\n\n| spacing | peak MiB | times the size of the CT |\n|---|---|---|")
    for name, spacing in (("its own, 0.7x0.7x0.8 mm", "native"), ("1x1x1 mm", "1,1,1")):
        peak = measure_peak(folder / "long", folder / f"long-store-{spacing}", spacing) - base
        print(f"| {name} | {peak >> 20} | {peak / num_bytes:.2f} |")


def measure_peak(scans: Path, out: Path, spacing: str) -> int:
    """Returns the peak memory of an ingestion in one process, in bytes."""
    return measure(f"ingest {scans} --out {out} --spacing {spacing} --workers 0").peak_bytes


def measure_second_run(folder: Path, count: int) -> None:
    """Prints the CPU time of an ingestion of many files and of a second run over the same files."""
    inputs.write_small_files(folder / "scans", count)
    first, second = (run_ingest(folder / "scans", folder / "store", spacing_mm="native") for _ in range(2))
    print(
        f"\n{count} DICOM files of 16x16 pixels in {count // inputs.SMALL_SLICES} series: {first:.1f} CPU s, and"
        f" {second:.1f} CPU s for a second run, {second / first:.3f} of the first."
    )


def measure_zip(folder: Path) -> None:
    """Prints the CPU time of reading the headers of zips of several lengths."""
    print("\n| members of a zip of DICOM | CPU ms a member |\n|---|---|")
    for count in (500, 2000):
        inputs.write_small_files(folder / f"files-{count}", count)
        inputs.pack_zip(folder / f"files-{count}", folder / f"zip-{count}" / "scans.zip")
        start = time.process_time()
        num_slices = sum(
            len(series.frames) for series in reader.read(folder / f"zip-{count}") if isinstance(series, reader.Series)
        )
        print(f"| {num_slices} | {1000 * (time.process_time() - start) / count:.2f} |")


def measure_command(words: list[object]) -> tuple[float, float]:
    """Returns wall and CPU time of a module and its processes, which become ours when they lose their parent."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True, capture_output=True)
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _reap() -> None:
    """Waits for processes that the program left behind, as a server of forks is, so that their time counts too."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
