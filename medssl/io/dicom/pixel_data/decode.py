"""Decodes compressed pixels in a child process with limits on memory and time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from medssl.errors import Message
from medssl.io.dicom.pixel_data.encoding import PixelEncoding
from medssl.io.rejected import ReadRejected

BASE_BYTES, BASE_SECONDS = 2 << 30, 20
SECONDS_PER_BYTE = 1 / (4 << 20)
ROOT = Path(__file__).parents[2]


def decode(files: Sequence[tuple[PixelEncoding, bytes]]) -> list[Integer[np.ndarray, "n j i"]]:
    """Decodes the frames of the encapsulated pixels of several files in one process."""
    if not files:
        return []
    sizes = [encoding.frame_bytes * encoding.frames for encoding, _ in files]
    limits = {"bytes": BASE_BYTES + 4 * sum(sizes), "seconds": BASE_SECONDS + int(sum(sizes) * SECONDS_PER_BYTE)}
    decoded = _run_codec_process(
        b"".join([_to_json_line(limits), *(_to_json_line(_describe_task(*file)) + file[1] for file in files)]),
        limits["seconds"],
    )
    if len(decoded) != sum(sizes):
        raise ReadRejected(
            "pixels",
            Message(
                "its pixels decode to {num_bytes} bytes; {num_expected} were declared",
                num_bytes=len(decoded),
                num_expected=sum(sizes),
            ),
        )
    ends = np.cumsum(sizes)
    return [
        _to_array(decoded[end - size : end], encoding)
        for (encoding, _), size, end in zip(files, sizes, ends, strict=True)
    ]


def _run_codec_process(request: bytes, seconds: int) -> bytes:
    """Returns the output of the codec process; rejects the pixels if it fails or takes too long."""
    command = [sys.executable, "-m", "medssl.io.dicom.pixel_data.codec_process"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(command, input=request, capture_output=True, timeout=2 * seconds, env=environment)
    except subprocess.TimeoutExpired:
        raise ReadRejected(
            "pixels", Message("its pixels did not decode within {seconds} s", seconds=2 * seconds)
        ) from None
    if child.returncode != 0:
        cause = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"signal {-child.returncode}"]
        raise ReadRejected("pixels", Message("its pixels cannot be decoded ({cause})", cause=cause[0][:120]))
    return child.stdout


def _describe_task(encoding: PixelEncoding, content: bytes) -> dict[str, Any]:
    """Returns what the codec process needs to decode the pixels of one file."""
    options = {
        "rows": encoding.rows,
        "columns": encoding.columns,
        "number_of_frames": encoding.frames,
        "samples_per_pixel": 1,
        "bits_allocated": encoding.bits_allocated,
        "bits_stored": encoding.bits_stored,
        "pixel_representation": int(encoding.is_signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    return {"syntax": encoding.syntax, "bytes": len(content), "options": options}


def _to_json_line(value: dict[str, Any]) -> bytes:
    """Encodes a dictionary as one line of JSON."""
    return json.dumps(value).encode() + b"\n"


def _to_array(decoded: bytes, encoding: PixelEncoding) -> Integer[np.ndarray, "n j i"]:
    """Returns decoded bytes as frames."""
    return np.frombuffer(decoded, f"<u{encoding.bits_allocated // 8}").reshape(
        encoding.frames, encoding.rows, encoding.columns
    )
