"""Searches for series in a DICOMweb service and retrieves their files into a folder, each series once."""

import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from medssl.errors import BadInput, Message
from medssl.files import atomic_folder, exclusive_lock, sweep_parts
from medssl.io.dicomweb.address import ServiceAddress
from medssl.io.dicomweb.service import Service

log = logging.getLogger(__name__)
PAGE = 200  # results of one request
ORIGINAL_ENCODING = (("application/dicom", "*"),)  # the archive must not decode and encode the pixels again
FIELDS = {
    "StudyInstanceUID": ("PatientID", "StudyDate", "AccessionNumber"),
    "SeriesInstanceUID": ("Modality", "SeriesDescription"),
    "SOPInstanceUID": (),
}
USABLE_MODALITIES = ("CT", "MR", "PT", "SEG", "RTSTRUCT")
EXACT_KEYS = ("StudyInstanceUID", "PatientID", "AccessionNumber", "SeriesInstanceUID", "Modality")
UID_FORM = re.compile(r"\d[\d.]{0,63}")
FileProgress = Callable[[int, int], None]  # called with the number of finished files and of all files


@dataclass(frozen=True)
class RemoteSeries:
    """A series of a DICOMweb service.

    Args:
        study: The StudyInstanceUID.
        uid: The SeriesInstanceUID.
        modality: The Modality.
        patient: The PatientID.
        description: The SeriesDescription.
        instances: The SOPInstanceUIDs, sorted.
    """

    study: str = field(repr=False)
    uid: str = field(repr=False)
    modality: str
    patient: str = field(repr=False)
    description: str = field(repr=False)
    instances: tuple[str, ...] = field(repr=False)


def find_series(
    service: Service, address: ServiceAddress, modalities: Sequence[str] = (), may_be_empty: bool = False
) -> list[RemoteSeries]:
    """Returns the series that have the keys of an address, ordered by their UIDs.

    Args:
        service: The service.
        address: The keys; at least one.
        modalities: Modalities of the series that count; empty for all.
        may_be_empty: Whether it is no fault that the search finds nothing.

    Raises:
        BadInput: If the search has no key, finds nothing, or the service ignores a key.
    """
    if not address.study_keys and not address.series_keys:
        raise BadInput(Message(
            "{url}: the address names no patient or study; add a search, for example ?PatientID=123", url=address.url
        ))  # fmt: skip
    matches = []
    for study in _search(DICOMwebClient.search_for_studies, service, address.study_keys, "StudyInstanceUID"):
        study_uid = _get(study, "StudyInstanceUID")
        search_series = partial(DICOMwebClient.search_for_series, study_instance_uid=study_uid)
        for series in _search(search_series, service, address.series_keys, "SeriesInstanceUID"):
            if not modalities or _get(series, "Modality") in modalities:
                matches.append(_describe(service, study, series))
    if not matches and not may_be_empty:
        raise BadInput(Message(
            "{url}: no series matches {keys}; check the values, and whether you may see these studies",
            url=address.url, keys=" and ".join((*address.study_keys, *address.series_keys)),
        ))  # fmt: skip
    return sorted(matches, key=lambda series: (series.study, series.uid))


def _describe(service: Service, study: Mapping[str, Any], series: Mapping[str, Any]) -> RemoteSeries:
    """Returns a series with the instances that it has now."""
    study_uid, uid = _get(study, "StudyInstanceUID"), _get(series, "SeriesInstanceUID")
    search_instances = partial(
        DICOMwebClient.search_for_instances, study_instance_uid=study_uid, series_instance_uid=uid
    )
    instances = _search(search_instances, service, {}, "SOPInstanceUID")
    return RemoteSeries(
        study_uid, uid, _get(series, "Modality"), _get(study, "PatientID"), _get(series, "SeriesDescription"),
        tuple(sorted(_get(instance, "SOPInstanceUID") for instance in instances)),
    )  # fmt: skip


def retrieve_all(
    service: Service, series: Sequence[RemoteSeries], folder: Path, on_progress: FileProgress = lambda *_: None
) -> Path:
    """Retrieves series into sub-folders that only their owner may read; complete ones are not retrieved again.

    Args:
        service: The service.
        series: What `find_series` returns.
        folder: The folder; a series is written to FOLDER/series/UID once it is complete.
        on_progress: Called with the number of finished files and of all files.

    Returns:
        The folder of all series that were ever retrieved into `folder`.

    Raises:
        BadInput: If the service fails; the series that are complete stay and count when the call is repeated.
    """
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    total, num_done = sum(len(item.instances) for item in series), 0
    with exclusive_lock(folder, "another command retrieves series into it; wait until it ends"):
        sweep_parts(folder)
        for item in series:
            place = folder / "series" / item.uid
            if not _is_complete(place, item):
                _retrieve(service, item, place, lambda count, before=num_done: on_progress(before + count, total))  # type: ignore[misc]
            num_done += len(item.instances)
            on_progress(num_done, total)
    return folder / "series"


def _is_complete(folder: Path, series: RemoteSeries) -> bool:
    """Whether a folder holds every instance of a series; it then appeared as a whole."""
    return {f"{uid}.dcm" for uid in series.instances} <= {path.name for path in folder.glob("*.dcm")}


def _retrieve(service: Service, series: RemoteSeries, folder: Path, on_count: Callable[[int], None]) -> None:
    """Retrieves a series at once, and then one by one the instances that did not arrive."""
    with atomic_folder(folder, overwrite=True) as part:
        num_saved = 0
        try:
            for data in service.client.iter_series(series.study, series.uid, media_types=ORIGINAL_ENCODING):
                _save(data, series, part)
                num_saved += 1
                on_count(num_saved)
        except Exception as error:  # the service is away, or one instance cannot be parsed
            log.info("%s: a series broke off (%s); its other files are retrieved one by one", service.url, type(error))
        for uid in series.instances:
            if not (part / f"{uid}.dcm").exists():
                _save(_retrieve_instance(service, series, uid), series, part)
                num_saved += 1
                on_count(num_saved)
        if missing := [uid for uid in series.instances if not (part / f"{uid}.dcm").exists()]:
            raise BadInput(Message(
                "{url}: {count} of {total} files of a series arrive under another name; check the archive",
                url=service.url, count=len(missing), total=len(series.instances),
            ))  # fmt: skip


def _retrieve_instance(service: Service, series: RemoteSeries, uid: str) -> Dataset:
    return service.request(
        lambda client: client.retrieve_instance(series.study, series.uid, uid, media_types=ORIGINAL_ENCODING)
    )


def _save(data: Dataset, series: RemoteSeries, folder: Path) -> None:
    """Writes an instance, whose elements keep their bytes."""
    uid = str(data.get("SOPInstanceUID", ""))
    if str(data.get("SeriesInstanceUID", "")) != series.uid:
        raise BadInput(Message("the service sends a file of another series; check the archive"))
    with warnings.catch_warnings(action="ignore"):  # about details of DICOM, with private values
        data.save_as(folder / f"{_check_uid(uid)}.dcm", enforce_file_format=False)


def _search(search: Callable[..., Any], service: Service, keys: Mapping[str, str], name: str) -> list[dict[str, Any]]:
    """Returns all results of a search, page by page, each once.

    Args:
        search: A method of the client.
        service: The service.
        keys: The attributes that the results must have.
        name: The keyword of the UID that identifies a result.
    """
    results: dict[str, dict[str, Any]] = {}
    while True:
        offset = len(results)
        page = service.request(partial(
            search, search_filters=dict(keys), fields=FIELDS[name], limit=PAGE, offset=offset
        ))  # fmt: skip
        results |= {_check_uid(_get(item, name)): item for item in page}
        if len(results) == offset:  # at the end, or if the service knows no pages
            break
    for item in results.values():
        _check_keys(service, item, keys)
    return list(results.values())


def _check_keys(service: Service, item: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """Rejects a result without a key of the search, which would be the scan of another patient."""
    for name, value in keys.items():
        text = _get(item, name)
        if name in EXACT_KEYS and text and not re.search(r"[*?\\,]", value) and text.casefold() != value.casefold():
            raise BadInput(Message(
                "{url}: ignores the key {name} of the search, and would send other scans; search by another key",
                url=service.url, name=name,
            ))  # fmt: skip


def _get(item: Mapping[str, Any], keyword: str) -> str:
    """Returns the first value of an attribute of a result as text; empty if there is none."""
    tag = tag_for_keyword(keyword)
    values = item.get(f"{tag:08X}", {}).get("Value") or [""]
    value = values[0]
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else "" if value is None else value).strip()


def _check_uid(uid: str) -> str:
    """Returns a UID, which becomes the name of a file; rejects everything else."""
    if not UID_FORM.fullmatch(uid):
        raise BadInput(Message("the service names an object {uid}, which is no UID; check the archive", uid=repr(uid)))
    return uid
