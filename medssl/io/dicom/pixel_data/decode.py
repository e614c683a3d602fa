"""Compressed pixels decoded in a child process with limits on memory and time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from medssl.io.dicom.pixel_data.encoding import Layout
from medssl.io.rejected import Refusal

BYTES, SECONDS = 2 << 30, 20
SECONDS_A_BYTE = 1 / (4 << 20)
ROOT = Path(__file__).parents[2]


def decode(files: Sequence[tuple[Layout, bytes]]) -> list[Integer[np.ndarray, "n j i"]]:
    """The frames of each file's encapsulated pixels; one process decodes them all."""
    if not files:
        return []
    sizes = [layout.frame_bytes * layout.frames for layout, _ in files]
    limits = {"bytes": BYTES + 4 * sum(sizes), "seconds": SECONDS + int(sum(sizes) * SECONDS_A_BYTE)}
    plain = _ask(b"".join([_line(limits), *(_line(_task(*file)) + file[1] for file in files)]), limits["seconds"])
    if len(plain) != sum(sizes):
        raise Refusal("pixels", f"its pixels decode to {len(plain)} bytes; {sum(sizes)} were declared")
    ends = np.cumsum(sizes)
    return [_array(plain[end - size : end], layout) for (layout, _), size, end in zip(files, sizes, ends, strict=True)]


def _ask(request: bytes, seconds: int) -> bytes:
    command = [sys.executable, "-m", "medssl.io.dicom.pixel_data.codec_process"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(command, input=request, capture_output=True, timeout=2 * seconds, env=environment)
    except subprocess.TimeoutExpired:
        raise Refusal("pixels", f"its pixels did not decode within {2 * seconds} s") from None
    if child.returncode != 0:
        cause = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"signal {-child.returncode}"]
        raise Refusal("pixels", f"its pixels cannot be decoded ({cause[0][:120]})")
    return child.stdout


def _task(layout: Layout, content: bytes) -> dict[str, Any]:
    options = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": layout.frames,
        "samples_per_pixel": 1,
        "bits_allocated": layout.bits,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    return {"syntax": layout.syntax, "bytes": len(content), "options": options}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _array(plain: bytes, layout: Layout) -> Integer[np.ndarray, "n j i"]:
    return np.frombuffer(plain, f"<u{layout.bits // 8}").reshape(layout.frames, layout.rows, layout.columns)
