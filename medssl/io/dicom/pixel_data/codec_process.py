"""Decodes compressed pixels as a separate process, so that a broken stream cannot crash the reader."""

import json
import sys
import warnings

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

try:
    import resource
except ImportError:  # Windows has no resource limits
    resource = None  # type: ignore[assignment]

CODECS = {
    str(JPEGBaseline8Bit): "gdcm",
    str(JPEGExtended12Bit): "gdcm",
    str(JPEGLossless): "gdcm",
    str(JPEGLosslessSV1): "gdcm",
    str(JPEGLSLossless): "pyjpegls",
    str(JPEGLSNearLossless): "pyjpegls",
    str(JPEG2000Lossless): "pylibjpeg",
    str(JPEG2000): "pylibjpeg",
    str(HTJ2KLossless): "pylibjpeg",
    str(HTJ2KLosslessRPCL): "pylibjpeg",
    str(HTJ2K): "pylibjpeg",
    str(RLELossless): "pylibjpeg",
}


def main() -> None:
    """Reads lines of JSON, each followed by the bytes of one file's encapsulated pixels, and writes decoded pixels."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    limits = json.loads(source.readline())
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits["bytes"], limits["bytes"]))
        resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    while line := source.readline():
        task = json.loads(line)
        numbers, _ = get_decoder(task["syntax"]).as_array(
            source.read(task["bytes"]), raw=True, decoding_plugin=CODECS[task["syntax"]], **task["options"]
        )
        sink.write(numbers.astype(np.dtype(f"<u{task['options']['bits_allocated'] // 8}"), copy=False).tobytes())
        sink.flush()  # what has arrived tells which file crashed the process


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}"[:200])
