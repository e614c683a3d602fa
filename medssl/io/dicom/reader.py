"""Reads DICOM folders as series; files that cannot be used are listed with the reason."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from medssl.errors import InputWarning, Message, join_messages
from medssl.io import archives, file_walk
from medssl.io.dicom.frames import Frame
from medssl.io.dicom.geometry.missing_slices import find_damaged_neighbours, find_missing_ends
from medssl.io.dicom.geometry.regular_grid import correct_gantry_tilt, interpolate_missing_slices, make_straight_grid
from medssl.io.dicom.geometry.slice_geometry import Grid, fit_grid
from medssl.io.dicom.geometry.split_volumes import split_into_volumes
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.io.dicom.pixel_data.read_pixels import have_same_content, stack_slices
from medssl.io.dicom.series_files import PatientInfo, SeriesFile
from medssl.io.dicom.suv import convert_to_suv
from medssl.io.rejected import ReadRejected, RejectedFiles
from medssl.io.slabs.stored_values import ValueRange
from medssl.volume import Volume

AIR_HU = -1024.0
MAX_HU = 40_000
UNREADABLE = ("not-a-file", "not-dicom", "unreadable", "archive")  # codes of files that may be damaged slices


@dataclass(frozen=True)
class Series:
    """One volume of one patient: its files, its geometry and, on request, its voxels.

    Args:
        uid: The SeriesInstanceUID.
        study: The StudyInstanceUID.
        patient: The PatientID.
        modality: "CT", "MR" or "PT".
        description: The SeriesDescription.
        files: The files that hold its slices.
        frame_of_reference: The FrameOfReferenceUID.
        frames: The slices in the order of the files.
        grid: The order of the slices and the geometry of the volume.
        sub_volume: The tags that distinguish several volumes of one series ("EchoTime 4.6"); else empty.
        warnings: What should be checked about the series.
        missing: Warnings that slices at an end may be missing; they need all files of the series.
        patient_info: Facts about the patient and the scan.
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
    sub_volume: str = field(default="", repr=False)
    warnings: tuple[Message, ...] = ()
    missing: tuple[Message, ...] = ()
    patient_info: PatientInfo = field(default_factory=PatientInfo, repr=False)

    def empty_volume(self) -> Volume:
        """Returns a volume with the grid that `volume` has, without reading the pixels."""
        columns, rows = self.frames[0].size
        positions = self.grid.slice_positions
        count = len(self.frames) if positions is None else len(positions)
        empty = Volume(np.broadcast_to(np.int16(0), (columns, rows, count)), self.grid.affine, "a.u.")
        return make_straight_grid(empty) if self.grid.is_tilted else empty

    def volume(self, on_disk: bool = False) -> Volume:
        """Reads the voxels in HU (CT), SUVbw (PET) or arbitrary units, on a straight grid with its affine in mm, RAS+.

        Args:
            on_disk: Whether the voxels of a large volume lie on disk.

        Raises:
            BadInput: If the pixels are damaged or cannot be decoded.
        """
        for message in (*self.warnings, *self.missing):
            warnings.warn(message, InputWarning, stacklevel=2)
        is_hu = self.modality == "CT" and self.frames[0].volume_tags.get("RescaleType", "HU") in ("HU", "US")
        background = AIR_HU if is_hu else 0.0
        voxels = stack_slices([self.frames[o] for o in self.grid.order], background, on_disk)
        values = ValueRange.measure_slabs(voxels)
        if is_hu and values.high > MAX_HU:
            highest = voxels.dtype.type(values.high)
            raise ReadRejected(
                "values",
                Message("values up to {highest} HU are impossible: the sign or the rescale is wrong", highest=highest),
            )
        if values.low == values.high:
            warnings.warn(Message("every voxel is {value}", value=voxels.flat[0]), InputWarning, stacklevel=2)
        if self.grid.slice_positions is not None:
            voxels = interpolate_missing_slices(voxels, self.grid.slice_positions)
        volume = Volume(voxels, self.grid.affine, "HU" if is_hu else "a.u.")
        if self.modality == "PT":
            volume = convert_to_suv(volume, [frame.pet for frame in self.frames])
        return correct_gantry_tilt(volume, background) if self.grid.is_tilted else volume


def read(
    source: Path | Sequence[Path],
    allow_gaps: bool = False,
    follow_links: bool = False,
    memory: HeaderMemory | None = None,
) -> Iterator[Series | RejectedFiles]:
    """Reads the headers of all DICOM files of a folder and groups them into series.

    Args:
        source: A folder, a file, or a list of files; zip and tar archives are opened.
        allow_gaps: Whether missing slices are interpolated instead of rejecting the series.
        follow_links: Whether links in a folder are followed.
        memory: The headers that an earlier call has read.

    Yields:
        Every series, and every file that is not used with the reason. Each file occurs once, except multi-frame files
        of several volumes, which occur in each of them.
    """
    memory = memory or HeaderMemory()
    groups: dict[str, list[SeriesFile]] = {}
    unreadable: list[Path] = []
    with archives.FileOpener() as opener:
        for path in file_walk.walk_files(source, opener, follow_links, memory.has):
            if isinstance(path, RejectedFiles):
                yield path
                continue
            try:
                file = memory.describe(path, opener)
                groups.setdefault(file.series, []).append(file)
            except ReadRejected as error:
                if error.code in UNREADABLE:
                    unreadable.append(path)
                reason = Message("{path.name}: {reason}", path=path, reason=error.message)
                yield RejectedFiles((path,), reason, error.code)
    for uid in sorted(groups):
        yield from _assemble_series(groups[uid], allow_gaps, unreadable)


def _assemble_series(
    files: Sequence[SeriesFile], allow_gaps: bool, unreadable: Sequence[Path]
) -> Iterator[Series | RejectedFiles]:
    """Builds the volumes of the files of one series UID, or rejects all of these files with one reason."""
    paths = tuple(file.path for file in files)
    try:
        if rejected := [file for file in files if file.fault]:
            raise _reject_series(rejected[0], len(files))
        unique, copies = _drop_copies(files)
        _check_one_origin(unique)
        parts = split_into_volumes(list(chain.from_iterable(file.frames for file in unique)))
        volumes = [_build_series(unique, tags, slices, allow_gaps) for tags, slices in parts]
    except ReadRejected as error:
        yield RejectedFiles(paths, error.message, error.code)
        return
    yield from copies
    lost = find_damaged_neighbours(paths, unreadable)
    yield from (replace(volume, missing=(*volume.missing, *lost)) for volume in volumes) if lost else volumes


def _reject_series(file: SeriesFile, count: int) -> ReadRejected:
    """Returns the error of one file, extended to the other files of its series."""
    assert file.fault is not None
    reason = Message("{name}: {fault}", name=file.path.name, fault=file.fault.message)
    if count > 1:
        others = Message("the other {num_others} files of its series are rejected with it", num_others=count - 1)
        reason = join_messages([reason, others])
    return ReadRejected(file.fault.code, reason)


def _drop_copies(files: Sequence[SeriesFile]) -> tuple[list[SeriesFile], list[RejectedFiles]]:
    """Keeps each SOP instance once; a second file of one must hold the same slices."""
    unique: dict[str, SeriesFile] = {}
    copies = [
        (file, first)
        for file in files
        if (first := unique.setdefault(file.sop_instance or str(file.path), file)) != file
    ]
    firsts = [frame for _, first in copies for frame in first.frames]
    if copies and not have_same_content(firsts, [frame for file, _ in copies for frame in file.frames]):
        names = ", ".join(f"{file.path.name} and {first.path.name}" for file, first in copies[:4])
        raise ReadRejected("mixed", Message("files of one SOP instance differ in content: {values}", values=names))
    reasons = [
        Message("{path.name}: a copy of {first.name}, which is used", path=file.path, first=first.path)
        for file, first in copies
    ]
    rejected = [RejectedFiles((file.path,), reason, "copy") for (file, _), reason in zip(copies, reasons, strict=True)]
    return list(unique.values()), rejected


def _check_one_origin(files: Sequence[SeriesFile]) -> None:
    """Rejects files of one series UID that belong to different patients, studies, modalities or frames of reference."""
    slices = list(chain.from_iterable(file.frames for file in files))
    for name in ("patient", "study", "modality", "frame_of_reference"):
        if len({getattr(s.series_key, name) for s in slices}) > 1:
            raise ReadRejected(
                "mixed",
                Message("one series identifier, but more than one {attribute}", attribute=name.replace("_", " ")),
            )


def _build_series(files: Sequence[SeriesFile], sub_volume: str, slices: tuple[Frame, ...], allow_gaps: bool) -> Series:
    """Builds the series of one volume from its slices."""
    key = slices[0].series_key
    grid = fit_grid(slices, allow_gaps)
    used_paths = {s.path for s in slices}
    messages = dict.fromkeys(chain.from_iterable(file.warnings for file in files if file.path in used_paths))
    return Series(
        uid=key.series,
        study=key.study,
        patient=key.patient,
        modality=key.modality,
        description=files[0].description,
        files=tuple(file.path for file in files if file.path in used_paths),
        frame_of_reference=key.frame_of_reference,
        frames=slices,
        grid=grid,
        sub_volume=sub_volume,
        warnings=(*messages, *grid.warnings),
        missing=() if sub_volume else find_missing_ends(slices),
        patient_info=files[0].patient_info,
    )
