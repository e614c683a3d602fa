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


def decode(files: Sequence[tuple[str, PixelEncoding, bytes]]) -> list[Integer[np.ndarray, "n j i"]]:
    """Decodes the frames of the encapsulated pixels of several files in one process.

    Args:
        files: The name of each file, its encoding and its encapsulated pixels.

    Raises:
        ReadRejected: If the pixels of a file, which the message names, cannot be decoded.
    """
    if not files:
        return []
    sizes = [encoding.frame_bytes * encoding.frames for _, encoding, _ in files]
    limits = {"bytes": BASE_BYTES + 4 * max(sizes), "seconds": BASE_SECONDS + int(sum(sizes) * SECONDS_PER_BYTE)}
    tasks = (_to_json_line(_describe_task(encoding, content)) + content for _, encoding, content in files)
    decoded, cause = _run_codec_process(b"".join([_to_json_line(limits), *tasks]), limits["seconds"])
    ends = np.cumsum(sizes)
    if cause:
        name = files[min(int(np.searchsorted(ends, len(decoded), "right")), len(files) - 1)][0]
        raise ReadRejected("pixels", Message("{name}: {cause}; copy or export it again", name=name, cause=cause))
    if len(decoded) != sum(sizes):
        raise ReadRejected(
            "pixels",
            Message(
                "{name}: its pixels decode to {num_bytes} bytes; {num_expected} were declared",
                name=files[0][0] if len(files) == 1 else f"one of {len(files)} files from {files[0][0]}",
                num_bytes=len(decoded),
                num_expected=sum(sizes),
            ),
        )
    content = memoryview(decoded)
    return [
        _to_array(content[end - size : end], encoding)
        for (_, encoding, _), size, end in zip(files, sizes, ends, strict=True)
    ]


def _run_codec_process(request: bytes, seconds: int) -> tuple[bytes, Message | None]:
    """Returns the output of the codec process, and why it failed or took too long; None if it did not."""
    command = [sys.executable, "-m", "medssl.io.dicom.pixel_data.codec_process"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(command, input=request, capture_output=True, timeout=2 * seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        return error.stdout or b"", Message("its pixels did not decode within {seconds} s", seconds=2 * seconds)
    if child.returncode == 0:
        return child.stdout, None
    lines = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"signal {-child.returncode}"]
    return child.stdout, Message("its pixels cannot be decoded ({cause})", cause=lines[0][:120])


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


def _to_array(decoded: memoryview, encoding: PixelEncoding) -> Integer[np.ndarray, "n j i"]:
    """Returns decoded bytes as frames."""
    return np.frombuffer(decoded, f"<u{encoding.bits_allocated // 8}").reshape(
        encoding.frames, encoding.rows, encoding.columns
    )
