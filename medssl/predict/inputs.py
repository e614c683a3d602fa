"""What is to be predicted: the cases of a manifest or of a folder, each read when its turn comes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from medssl.data import layouts
from medssl.data.layouts import Source
from medssl.data.manifest import Manifest
from medssl.data.sources import read_images, read_series, read_source
from medssl.errors import BadInput
from medssl.volume import Volume

Reader = Callable[[], Volume]


def volumes(given: Path, split: str, modality: str) -> list[tuple[str, Reader]]:
    """Case ids and how to read each in its scanner's grid; a manifest gives the cases of one split, a folder all."""
    if given.is_dir():
        found = layouts.find(given, modality)
        cases = [(source.id, partial(_read, source)) for source in found.sources]
        why = "; ".join(sorted({r.reason for r in found.refused})[:3])
        nothing = (
            f"{given}: holds no scan that can be used ({why or 'it is empty'}); DICOM, NIfTI, NRRD and MHA are read"
        )
    else:
        manifest = Manifest.read(given)
        chosen = manifest.by(split).cases if split else manifest.cases
        cases = [(case.id, partial(read_source, case, manifest)) for case in chosen]
        known = ", ".join(sorted({c.split for c in manifest.cases}))
        nothing = f"{given}: no case in split {split!r}; its splits are {known}"
    if not cases:
        raise BadInput(nothing)
    return cases


def _read(source: Source) -> Volume:
    if source.series is not None:
        return read_series(source.images, source.series)
    return read_images(source.images, source.modalities)[0]
