"""Predicts one case and writes its files, on the grid of its scan and with the fields of its header."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from medssl.arrays.disk_arrays import create_disk_array, release_pages
from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput, Message, as_message
from medssl.files import is_disk_full, write_json
from medssl.inference.channel_facts import describe_channels
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.io import images, nifti
from medssl.io.nifti_writer import NO_FIELDS, NiftiFields, open_writer
from medssl.io.slabs.from_nifti import name_slab_file, write_slabs
from medssl.predictions_folder import CHANNELS, FINDINGS, IMAGE, LABELS, PROBABILITY, SEQUENCE, UNCERTAINTY
from medssl.volume import Unit, Volume

NO_REASON = Message("")
UNITS: dict[str, Unit] = {LABELS: "label", PROBABILITY: "probability", UNCERTAINTY: "probability"}


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a scan: the files of its prediction, or the reason why there are none.

    Args:
        folder: A temporary folder with the files; None if the scan could not be predicted.
        unit: The unit of the image.
        text: The reason; empty if the scan was predicted.
        reason: The reason with its public version.
    """

    folder: Path | None = None
    unit: str = ""
    text: str = ""
    reason: Message = NO_REASON


def predict_case(
    scan: ScanRef, predict: Callable[[Volume, str], PredictionSource], folder: Path, num_labels: int
) -> CaseOutcome:
    """Reads and predicts a scan, and writes its files into a new folder in `folder`.

    A scan that cannot be read, predicted or written leaves no file behind, and its outcome has the reason. A full disk
    raises OSError: the other scans would fail as well.

    Args:
        scan: The scan.
        predict: Maps an image and a case id to a prediction.
        folder: A folder on the disk of the predictions.
        num_labels: The highest label value.
    """
    part = Path(tempfile.mkdtemp(dir=folder)) / "case"  # a job that is repeated after a kill has a folder of its own
    try:
        image, fields = scan.read(), read_header_fields(scan)
        write_case(part, image, predict(image, scan.case), num_labels, fields)
        write_json(part / CHANNELS, [asdict(facts) for facts in describe_channels(scan, image)])
    except (BadInput, OSError, MemoryError) as error:
        shutil.rmtree(part.parent)
        if is_disk_full(error):
            raise
        text = " ".join(str(error).split()).removeprefix(f"{scan.case}: ") or "the memory does not suffice"
        return CaseOutcome(text=text, reason=as_message(error.args[0] if error.args else ""))
    return CaseOutcome(part, image.unit)


def report_worker_death(scan: ScanRef) -> CaseOutcome:
    """Returns the outcome of a scan whose prediction killed every worker that tried it."""
    reason = Message("its prediction killed several workers; predict it alone, with more memory")
    return CaseOutcome(text=str(reason), reason=reason)


def read_header_fields(scan: ScanRef) -> NiftiFields:
    """Returns what the NIfTI files of a prediction take over from the header of its scan.

    The free text is left out for the cases of a de-identified store.
    """
    files = scan.list_files()
    if not files or not images.is_nifti(files[0]):
        return NO_FIELDS
    fields = nifti.read_fields(files[0])
    return replace(fields, description=b"") if scan.is_deidentified else fields


def write_case(folder: Path, image: Volume, prediction: PredictionSource, num_labels: int, fields: NiftiFields) -> None:
    """Writes the files of one case, and their slab files, into a new folder.

    The channels of an image after the first are its sequences.

    Args:
        folder: The folder, which is created.
        image: The image that was predicted.
        prediction: Its prediction, which is computed while it is written.
        num_labels: The highest label value.
        fields: The fields of the header of the scan's NIfTI file.
    """
    folder.mkdir()
    channels = {
        SEQUENCE.format(number) if number else IMAGE: replace(image, voxels=voxels)
        for number, voxels in enumerate(image.voxels if image.voxels.ndim == 4 else image.voxels[None])
    }
    for name, channel in channels.items():
        nifti.write(channel, folder / name, fields)
    types = {LABELS: np.dtype(np.uint8 if num_labels < 256 else np.uint16), PROBABILITY: np.dtype(np.uint8)}
    if prediction.has_uncertainty:
        types[UNCERTAINTY] = np.dtype(np.uint8)
    maps = {name: create_disk_array(image.shape[::-1], dtype) for name, dtype in types.items()}
    with ExitStack() as stack:
        files = [
            stack.enter_context(open_writer(folder / name, channels[IMAGE], dtype, fields.describe_map()))
            for name, dtype in types.items()
        ]
        first = 0
        for block in prediction.iterate_blocks():
            values = [block.labels.astype(types[LABELS], copy=False), _to_bytes(block.probability)]
            values += [] if block.uncertainty is None else [_to_bytes(block.uncertainty)]
            for file, stored, slices in zip(files, maps.values(), values, strict=True):
                file.append(slices)
                stored[first : first + len(slices)] = slices
                release_pages(stored)
            first += len(block.labels)
    volumes = {name: replace(image, voxels=stored.T, unit=UNITS[name]) for name, stored in maps.items()}
    for name, volume in (channels | volumes).items():
        write_slabs(volume, folder / name, name_slab_file(folder / name))
    write_json(folder / FINDINGS, [asdict(finding) for finding in prediction.findings])


def _to_bytes(values: Float[np.ndarray, "k j i"]) -> UInt8[np.ndarray, "k j i"]:
    """Maps values from [0, 1] to 0 .. 255."""
    return np.rint(values * np.float32(255)).astype(np.uint8)
