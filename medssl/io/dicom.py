"""DICOM folders read into series, or refused with a reason; nothing in between."""

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from medssl.errors import BadInput, Doubt
from medssl.io.dicom_frames import Frame, Origin, check_kind, frames, origin
from medssl.io.dicom_geometry import Grid, grid
from medssl.io.dicom_header import Header, parse, text
from medssl.io.dicom_pixels import stack
from medssl.io.refused import Refusal, Refused
from medssl.volume import Volume

AIR_HU = -1024.0
HIGHEST_HU = 40_000


@dataclass(frozen=True)
class Series:
    """One volume of one patient: the files it is made of, and how to get its voxels."""

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

    def volume(self) -> Volume:
        """The voxels in HU (CT) or arbitrary units, on their grid in mm, RAS+; `BadInput` if they cannot be decoded."""
        for doubt in self.doubts:
            warnings.warn(doubt, Doubt, stacklevel=2)
        background = AIR_HU if self.modality == "CT" else 0.0
        voxels = stack([self.frames[o] for o in self.grid.order], background)
        if self.modality == "CT" and voxels.max() > HIGHEST_HU:
            raise Refusal("values", f"values up to {voxels.max()} HU are impossible: the sign or the rescale is wrong")
        if voxels.min() == voxels.max():
            warnings.warn(f"every voxel is {voxels.flat[0]}", Doubt, stacklevel=2)
        return Volume(voxels, self.grid.affine, "HU" if self.modality == "CT" else "a.u.")


@dataclass(frozen=True)
class _Piece:
    """What one file adds to a series: its slices, or what is wrong with it."""

    path: Path
    description: str
    frames: tuple[Frame, ...]
    fault: Refusal | None


def read(source: Path | Sequence[Path]) -> Iterator[Series | Refused]:
    """Every series of a folder (or of a list of files), and every file that is not used with the reason."""
    groups: dict[str, list[_Piece]] = {}
    for path in _walk(source) if isinstance(source, Path) else source:
        try:
            header = _header(path)
            check_kind(header)
            uid = text(header.data, "SeriesInstanceUID")
            groups.setdefault(uid, []).append(_piece(header))
        except Refusal as refusal:
            yield Refused((path,), f"{path.name}: {refusal}", refusal.code)
    for uid in sorted(groups):
        yield from _series(groups[uid])


def _walk(folder: Path) -> Iterator[Path]:
    """Every entry below a folder that is not a folder itself; links are not followed."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the folder that holds the DICOM files")
    for root, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        yield from (Path(root) / name for name in sorted(names + links))


def _header(path: Path) -> Header:
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode):
            raise Refusal("not-a-file", "a link, pipe or device, not a file; copy the file itself")
        if state.st_size == 0:
            raise Refusal("not-a-file", "empty")
        with path.open("rb") as file:
            return parse(path, file)
    except OSError as error:
        raise Refusal("unreadable", f"cannot be opened ({error.strerror})") from None


def _piece(header: Header) -> _Piece:
    description = text(header.data, "SeriesDescription")
    try:
        origin(header)
        return _Piece(header.path, description, frames(header), None)
    except Refusal as refusal:
        return _Piece(header.path, description, (), refusal)


def _series(pieces: Sequence[_Piece]) -> Iterator[Series | Refused]:
    """The volume that the files of one series identifier make, or one refusal for all of them."""
    files = tuple(piece.path for piece in pieces)
    try:
        if broken := [piece for piece in pieces if piece.fault]:
            raise _together(broken[0], len(files))
        slices = tuple(chain.from_iterable(piece.frames for piece in pieces))
        _check_one_origin(slices)
        yield _volume(files, slices, pieces[0].description)
    except Refusal as refusal:
        yield Refused(files, str(refusal), refusal.code)


def _together(piece: _Piece, count: int) -> Refusal:
    assert piece.fault is not None
    others = f"; the other {count - 1} files of its series are left out with it" if count > 1 else ""
    return Refusal(piece.fault.code, f"{piece.path.name}: {piece.fault}{others}")


def _check_one_origin(slices: Sequence[Frame]) -> None:
    for name in ("patient", "study", "modality", "frame_of_reference"):
        if len({getattr(s.origin, name) for s in slices}) > 1:
            raise Refusal("mixed", f"one series identifier, but more than one {name.replace('_', ' ')}")


def _volume(files: tuple[Path, ...], slices: tuple[Frame, ...], description: str) -> Series:
    first: Origin = slices[0].origin
    return Series(
        uid=first.series,
        study=first.study,
        patient=first.patient,
        modality=first.modality,
        description=description,
        files=files,
        frame_of_reference=first.frame_of_reference,
        frames=slices,
        grid=grid(slices),
    )
