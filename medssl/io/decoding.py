"""Decoding of compressed frames: which codec reads which transfer syntax."""

import numpy as np
from jaxtyping import Integer
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
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

from medssl.io.dicom_layout import Layout
from medssl.io.refused import Refusal

CODECS = {
    JPEGBaseline8Bit: "gdcm",
    JPEGExtended12Bit: "gdcm",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pylibjpeg",
}


def decode(encapsulated: bytes, layout: Layout) -> Integer[np.ndarray, "n j i"]:
    """The frames of one file's encapsulated pixel data."""
    if layout.syntax not in CODECS:
        raise Refusal("pixels", f"its encoding {UID(layout.syntax).name} is not read; export it uncompressed")
    array, _ = get_decoder(layout.syntax).as_array(
        encapsulated,
        raw=True,
        decoding_plugin=CODECS[UID(layout.syntax)],
        rows=layout.rows,
        columns=layout.columns,
        number_of_frames=layout.frames,
        samples_per_pixel=1,
        bits_allocated=layout.bits,
        bits_stored=layout.stored,
        pixel_representation=int(layout.signed),
        photometric_interpretation="MONOCHROME2",
        pixel_keyword="PixelData",
    )
    return array.reshape(layout.frames, layout.rows, layout.columns)
