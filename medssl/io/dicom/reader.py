"""DICOM folders read into series, or refused with a reason; nothing in between."""

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from medssl.errors import Doubt
from medssl.io import archives as archive
from medssl.io.dicom.frames import Frame, check_kind, frames
from medssl.io.dicom.header import Header, parse, text
from medssl.io.dicom.pixel_data.read_pixels import same, stack
from medssl.io.dicom.regular_grid import filled, straightened
from medssl.io.dicom.slice_geometry import Grid, grid
from medssl.io.dicom.split_volumes import parts
from medssl.io.rejected import Refusal, Refused
from medssl.volume import Volume

AIR_HU = -1024.0
HIGHEST_HU = 40_000
BURNED_IN = (
    "BurnedInAnnotation is YES: text may stand in the pixels",
    "a saved screen: values may be those of a display",
)

PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


@dataclass(frozen=True)
class Person:
    """Who was scanned when with what, as far as the header tells; nothing of it is needed to read the volume."""

    age_years: float | None = None
    sex: str = ""
    scanner: str = ""
    date: str = ""


@dataclass(frozen=True)
class Series:
    """One volume of one patient: the files it is made of, and how to get its voxels.

    `part` names the tags that tell apart several volumes of one series ("EchoTime 4.6"); else it is empty.
    """

    uid: str
    study: str = field(repr=False)
    patient: str = field(repr=False)
    modality: str
    description: str = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    frame_of_reference: str = field(repr=False)
    frames: tuple[Frame, ...] = field(repr=False)
    grid: Grid = field(repr=False)
    part: str = ""
    doubts: tuple[str, ...] = ()
    person: Person = field(default_factory=Person, repr=False)

    def volume(self) -> Volume:
        """The voxels in HU (CT) or arbitrary units, on their grid in mm, RAS+; `BadInput` if they cannot be decoded."""
        for doubt in self.doubts:
            warnings.warn(doubt, Doubt, stacklevel=2)
        hounsfield = self.modality == "CT" and self.frames[0].marks.get("RescaleType", "HU") in ("HU", "US")
        background = AIR_HU if hounsfield else 0.0
        voxels = stack([self.frames[o] for o in self.grid.order], background)
        if hounsfield and voxels.max() > HIGHEST_HU:
            raise Refusal("values", f"values up to {voxels.max()} HU are impossible: the sign or the rescale is wrong")
        if voxels.min() == voxels.max():
            warnings.warn(f"every voxel is {voxels.flat[0]}", Doubt, stacklevel=2)
        if self.grid.between is not None:
            voxels = filled(voxels, self.grid.between)
        volume = Volume(voxels, self.grid.affine, "HU" if hounsfield else "a.u.")
        return straightened(volume, background) if self.grid.tilted else volume


def read(source: Path | Sequence[Path], allow_gaps: bool = False) -> Iterator[Series | Refused]:
    """Every series of a folder (or of a list of files), and every file that is not used with the reason.

    Each file is listed once, in a series or refused; only a multi-frame file of several volumes is in each of them.
    """
    groups: dict[str, list[_File]] = {}
    for path in archive.walk(source):
        if isinstance(path, Refused):
            yield path
            continue
        try:
            with archive.opened(path) as file:
                header = parse(path, file)
            check_kind(header)
            groups.setdefault(text(header.data, "SeriesInstanceUID"), []).append(_file(header))
        except Refusal as refusal:
            yield Refused((path,), f"{path.name}: {refusal}", refusal.code)
    for uid in sorted(groups):
        yield from _series(groups[uid], allow_gaps)


@dataclass(frozen=True)
class _File:
    """What one file adds to a series: its slices, or what is wrong with it."""

    path: Path
    sop: str
    description: str
    person: Person
    doubts: tuple[str, ...]
    frames: tuple[Frame, ...]
    fault: Refusal | None


def _file(header: Header) -> _File:
    path, data = header.path, header.data
    try:
        sop, description = text(data, "SOPInstanceUID"), text(data, "SeriesDescription")
        return _File(path, sop, description, _person(header), _doubts(header), frames(header), None)
    except Refusal as fault:
        return _File(path, "", "", Person(), (), (), fault)


def _person(header: Header) -> Person:
    data = header.data
    scanner = " ".join(filter(None, (text(data, "Manufacturer"), text(data, "ManufacturerModelName"))))
    age = re.fullmatch(r"(\d{3})([DWMY])", text(data, "PatientAge"))
    years = int(age[1]) / PER_YEAR[age[2]] if age else None
    return Person(years, text(data, "PatientSex"), scanner, text(data, "StudyDate"))


def _doubts(header: Header) -> tuple[str, ...]:
    found = []
    if text(header.data, "BurnedInAnnotation").upper() == "YES":
        found.append(BURNED_IN[0])
    if text(header.data, "PhotometricInterpretation") == "MONOCHROME1":
        found.append("MONOCHROME1: shown inverted; the values are kept as they are")
    if text(header.data, "LossyImageCompression") == "01":
        found.append("its pixels went through a lossy compression")
    if "SCREEN SAVE" in text(header.data, "ImageType").upper() or text(header.data, "ConversionType"):
        found.append(BURNED_IN[1])
    return tuple(found)


def _series(files: Sequence[_File], allow_gaps: bool) -> Iterator[Series | Refused]:
    """The volumes that the files of one series identifier make, or one refusal for all of them."""
    paths = tuple(file.path for file in files)
    try:
        if broken := [file for file in files if file.fault]:
            raise _together(broken[0], len(files))
        kept, copies = _without_copies(files)
        _check_one_origin(kept)
        found = parts(list(chain.from_iterable(file.frames for file in kept)))
        volumes = [_volume(kept, name, slices, allow_gaps) for name, slices in found]
    except Refusal as refusal:
        yield Refused(paths, str(refusal), refusal.code)
        return
    yield from copies
    yield from volumes


def _together(file: _File, count: int) -> Refusal:
    assert file.fault is not None
    others = f"; the other {count - 1} files of its series are left out with it" if count > 1 else ""
    return Refusal(file.fault.code, f"{file.path.name}: {file.fault}{others}")


def _without_copies(files: Sequence[_File]) -> tuple[list[_File], list[Refused]]:
    """Each SOP instance once; a second file of one must hold the same slices, or the series is refused."""
    kept: dict[str, _File] = {}
    copies = [(file, first) for file in files if (first := kept.setdefault(file.sop or str(file.path), file)) != file]
    firsts = [frame for _, first in copies for frame in first.frames]
    if copies and not same(firsts, [frame for file, _ in copies for frame in file.frames]):
        told = ", ".join(f"{file.path.name} and {first.path.name}" for file, first in copies[:4])
        raise Refusal("mixed", f"files of one SOP instance differ in content: {told}")
    told_apart = [(file, f"{file.path.name}: a copy of {first.path.name}, which is used") for file, first in copies]
    return list(kept.values()), [Refused((file.path,), reason, "copy") for file, reason in told_apart]


def _check_one_origin(files: Sequence[_File]) -> None:
    slices = list(chain.from_iterable(file.frames for file in files))
    for name in ("patient", "study", "modality", "frame_of_reference"):
        if len({getattr(s.origin, name) for s in slices}) > 1:
            raise Refusal("mixed", f"one series identifier, but more than one {name.replace('_', ' ')}")


def _volume(files: Sequence[_File], part: str, slices: tuple[Frame, ...], allow_gaps: bool) -> Series:
    first = slices[0].origin
    found = grid(slices, allow_gaps)
    used = {s.path for s in slices}
    doubts = dict.fromkeys(chain.from_iterable(file.doubts for file in files if file.path in used))
    return Series(
        uid=first.series,
        study=first.study,
        patient=first.patient,
        modality=first.modality,
        description=files[0].description,
        files=tuple(file.path for file in files if file.path in used),
        frame_of_reference=first.frame_of_reference,
        frames=slices,
        grid=found,
        part=part,
        doubts=(*doubts, *found.doubts),
        person=files[0].person,
    )
