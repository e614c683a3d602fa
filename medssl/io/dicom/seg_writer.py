"""DICOM SEG: numbered structures on the slices of the series that they were found in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentDescription
from pydicom import Dataset

from medssl.errors import BadInput
from medssl.files import atomic
from medssl.io.dicom import annotations as labels
from medssl.io.dicom import codes as terms
from medssl.io.dicom.reader import Series
from medssl.io.dicom.slice_geometry import TO_RAS
from medssl.io.dicom.source_headers import headers, next_number, quiet
from medssl.volume import Volume

Kind = Literal["BINARY", "LABELMAP"]


@dataclass(frozen=True)
class Segment:
    """One structure: its own name, what it is, its UID over all documents, and whether a person drew in it."""

    name: str
    what: str
    tracking_id: str
    tracking_uid: str
    colour: tuple[int, int, int]
    corrected: bool = False


@dataclass(frozen=True)
class Maker:
    """What made the segments: the model by the hash of its weights, its code's version, and what must be said of it."""

    weights_sha256: str
    version: str
    notice: str


def write(series: Series, parts: Volume, segments: Sequence[Segment], maker: Maker, path: Path, kind: Kind) -> Dataset:
    """Writes the parts (n + 1 is `segments[n]`) on the series' slices and gives what was written.

    A BINARY one is read back and compared voxel for voxel before it gets its name.
    """
    check(series)
    image = series.volume()
    parts = parts.oriented(image.orientation()).require_same_grid(image)
    made = _made(series, parts, segments, maker, kind)
    with atomic(path) as part:
        made.save_as(part)
        if kind == "BINARY":
            _check_back(part, parts, series)
    return made


def check(series: Series) -> None:
    """Refuses a series whose volume is not its stored slices, as no segment could be laid on them."""
    if irregular(series):
        raise BadInput(f"its series is irregular ({'; '.join(series.grid.doubts)}): a SEG needs evenly stacked slices")


def irregular(series: Series) -> bool:
    """Whether the volume of a series was resampled from its slices."""
    return series.grid.tilted or series.grid.between is not None


def _made(series: Series, parts: Volume, segments: Sequence[Segment], maker: Maker, kind: Kind) -> Segmentation:
    sources = headers(series)
    described = [_described(n, segment, maker) for n, segment in enumerate(segments, 1)]
    try:
        with quiet():
            return Segmentation(
                sources, _placed(parts, series), kind, described, hd.UID(), next_number(sources), hd.UID(), 1,
                "medssl", "medssl", maker.version, maker.weights_sha256 or "unknown", content_description=maker.notice,
                content_label="PREDICTION", series_description=maker.notice, coding_schemes=[terms.scheme()],
                omit_empty_frames=True,
            )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"its series cannot be segmented ({error})") from error


def _described(number: int, segment: Segment, maker: Maker) -> SegmentDescription:
    """A segment that a person corrected is semi-automatic."""
    kinds = SegmentAlgorithmTypeValues
    category, kind = terms.what(segment.what)
    return SegmentDescription(
        number, segment.name, category, kind, kinds.SEMIAUTOMATIC if segment.corrected else kinds.AUTOMATIC,
        hd.AlgorithmIdentificationSequence("medssl", terms.NETWORK, maker.version),
        segment.tracking_uid, segment.tracking_id, display_color=CIELabColor.from_rgb(*segment.colour),
    )  # fmt: skip


def _placed(parts: Volume, series: Series) -> hd.Volume:
    """The same voxels as highdicom counts them: slice, row, column; mm towards the left and the back."""
    affine = (TO_RAS @ parts.affine)[:, [2, 1, 0, 3]]
    dtype = np.uint8 if parts.voxels.max() < 256 else np.uint16
    return hd.Volume(parts.voxels.transpose(2, 1, 0).astype(dtype), affine, "PATIENT", series.frame_of_reference)


def _check_back(path: Path, parts: Volume, series: Series) -> None:
    again = labels.read(path)
    if again.series != series.uid or not np.array_equal(again.volume(parts).voxels, parts.voxels):
        raise BadInput("the SEG does not read back as it was written; nothing is delivered of this case")
