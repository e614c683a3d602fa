"""Collects what the viewer writes on the planes of a scan: modality, acquisition, and the numbers of its slices."""

from medssl.data.ingest.dicom_studies import make_series_name, name_series
from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.io import archives
from medssl.io.dicom import header, reader
from medssl.io.rejected import ReadRejected
from medssl.predictions_folder import ChannelFacts
from medssl.volume import AXES, Unit, Volume

# The attributes of a series that readers look for, with the unit behind the number.
ACQUISITION = {
    "CT": (("KVP", "{:g} kV"),),
    "MR": (
        ("MagneticFieldStrength", "{:g} T"), ("RepetitionTime", "TR {:g} ms"), ("EchoTime", "TE {:g} ms"),
        ("InversionTime", "TI {:g} ms"),
    ),
    "PT": (),
}  # fmt: skip
MAX_NAME = 16  # letters of the name of an MR sequence


def describe_channels(scan: ScanRef, image: Volume) -> tuple[ChannelFacts, ...]:
    """Returns the facts of each channel of a scan.

    Descriptions that people gave to a series are left out, since they may name a person.

    Args:
        scan: The scan.
        image: Its voxels, as `scan.read` returns them.
    """
    if scan.series:
        series = _find_series(scan)
        return (_describe_series(series, image.unit),) if series else ()
    count = image.voxels.shape[0] if image.voxels.ndim == 4 else 1
    modalities = scan.modalities if len(scan.modalities) == count else scan.modalities[:1] * count
    names = scan.channel_names if len(scan.channel_names) == count else ("",) * count
    return tuple(
        ChannelFacts(
            "" if name == modality else name,
            modality,
            "HU" if modality == "CT" else image.unit if count == 1 else "a.u.",
        )
        for name, modality in zip(names, modalities or ("",) * count, strict=True)
    )


def _find_series(scan: ScanRef) -> reader.Series | None:
    """Returns the headers of the series of a scan; None if it cannot be found any more."""
    files = scan.list_files()
    for item in reader.read(files[0] if len(files) == 1 and files[0].is_dir() else files, allow_gaps=True):
        if isinstance(item, reader.Series):
            names = (name_series(item), make_series_name(item.uid, item.sub_volume or scan.sub_volume))
            if scan.series in names:
                return item
    return None


def _describe_series(series: reader.Series, unit: Unit) -> ChannelFacts:
    """Returns the facts of a DICOM series."""
    side = series.empty_volume().orientation()[2]
    axis = next(n for n, sides in enumerate(AXES) if side in sides)
    direction = 1 if side == AXES[axis][1] else -1
    numbers = [series.frames[n].number for n in series.grid.order]
    instances = [number for number in numbers[::direction] if number is not None]
    is_as_acquired = series.grid.slice_positions is None and not series.grid.is_tilted
    is_complete = is_as_acquired and len(set(instances)) == len(numbers)
    return ChannelFacts(
        "", series.modality, unit, _list_acquisition(series), axis, tuple(instances) if is_complete else ()
    )


def _list_acquisition(series: reader.Series) -> tuple[str, ...]:
    """Returns a line about how a series was acquired; nothing if its header does not tell."""
    path = series.frames[0].path
    try:
        with archives.open_file(path) as file:
            data = header.parse(path, file).data
    except (BadInput, ReadRejected, OSError):
        return ()
    texts = [header.get_text(data, "SequenceName")[:MAX_NAME]] if series.modality == "MR" else []
    texts += [_format_number(data, keyword, text) for keyword, text in ACQUISITION.get(series.modality, ())]
    return (line,) if (line := "  ".join(filter(None, texts))) else ()


def _format_number(data: header.Attributes, keyword: str, text: str) -> str:
    """Returns a number of the header with its unit; empty if it is missing, damaged or 0."""
    try:
        values = header.get_floats(data, keyword, 1)
    except ReadRejected:
        return ""
    return text.format(values[0]) if values and values[0] else ""
