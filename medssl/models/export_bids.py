"""Exports a store as a BIDS data set: scans of subjects, and labels with class names in the derivatives.

Gorgolewski et al., The brain imaging data structure, 2016, https://doi.org/10.1038/sdata.2016.44. BIDS has no names
for CT and for MR of unknown weighting; such files are named `_ct` and `_mr` and listed in .bidsignore.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data import store
from medssl.data.classes import Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import atomic_folder, write_json, write_text
from medssl.io import nifti
from medssl.predictions_folder import NOTICE
from medssl.volume import Volume

BIDS_VERSION = "1.10.0"
DERIVATIVE = "derivatives/medssl"
KINDS = {"CT": ("ct", "ct"), "PT": ("pet", "pet"), "MR": ("anat", "mr")}  # folder and suffix by modality
IGNORED = "**/*_ct.*\n**/*_mr.*\n"


def write_bids(manifest: Manifest, out: Path) -> None:
    """Writes the cases of a store, with their voxels unchanged, as a BIDS data set.

    Patients become subjects, their study days sessions, cases the entity `acq`, and the split a column of
    participants.tsv, so that an ingestion of the folder gives the same cases, patients, labels and splits.

    Args:
        manifest: The cases to export.
        out: A new folder.
    """
    if not manifest.cases:
        raise BadInput(f"{manifest.folder}: holds no case; nothing can be exported")
    metadata = StoreMetadata.read(manifest.folder)
    subjects = _make_labels([case.patient for case in manifest.cases])
    acquisitions = _make_labels([case.id for case in manifest.cases])
    sessions = _number_sessions(manifest.cases)
    with atomic_folder(out) as part:
        _write_descriptions(part, out.name, manifest.cases, subjects)
        for case in manifest.cases:
            session = sessions.get((case.patient, case.study_day), "")
            names = [f"sub-{subjects[case.patient]}", *([f"ses-{session}"] if session else [])]
            _write_case(manifest, case, metadata, part, names, acquisitions[case.id])


def _make_labels(names: Sequence[str]) -> dict[str, str]:
    """Returns a label of letters and digits, as BIDS needs, for each name; different names get different ones."""
    labels: dict[str, str] = {}
    for name in dict.fromkeys(names):
        base = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"^sub-", "", name)) or "x"
        label, number = base, 1
        while label.lower() in {other.lower() for other in labels.values()}:
            number += 1
            label = f"{base}x{number}"
        labels[name] = label
    return labels


def _number_sessions(cases: Sequence[Case]) -> dict[tuple[str, int | None], str]:
    """Returns the session of each study day of the patients that were scanned on several days."""
    days: dict[str, set[int]] = {}
    for case in cases:
        if case.study_day is not None:
            days.setdefault(case.patient, set()).add(case.study_day)
    numbered = ((p, day, n) for p, dates in days.items() if len(dates) > 1 for n, day in enumerate(sorted(dates), 1))
    return {(patient, day): f"{n:02d}" for patient, day, n in numbered}


def _write_descriptions(part: Path, name: str, cases: Sequence[Case], subjects: Mapping[str, str]) -> None:
    """Writes the files that describe the data set and its subjects."""
    generator = [{"Name": "medssl"}]
    for folder, kind in ((part, "raw"), (part / DERIVATIVE, "derivative")):
        folder.mkdir(parents=True, exist_ok=True)
        description: dict[str, Any] = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": kind}
        write_json(folder / "dataset_description.json", description | {"GeneratedBy": generator})
    write_text(part / "README", f"{name}: exported by medssl. {NOTICE}\n")
    write_text(part / ".bidsignore", IGNORED)
    first = {case.patient: case for case in reversed(cases)}
    rows = [
        (f"sub-{subjects[p]}", _format_unknown(c.age_years), c.sex or "n/a", c.site or "n/a", c.split or "n/a")
        for p, c in first.items()
    ]
    table = [("participant_id", "age", "sex", "site", "split"), *sorted(rows)]
    write_text(part / "participants.tsv", _format_tsv(table))


def _write_case(
    manifest: Manifest, case: Case, metadata: StoreMetadata, part: Path, names: Sequence[str], acquisition: str
) -> None:
    """Writes each channel of a case as a scan, and its label as a dseg of the first."""
    image = store.read(manifest.path(case)).volume()
    channels = image.voxels.reshape(-1, *image.shape)
    modalities = case.modality.split("+")
    modalities = modalities if len(modalities) == len(channels) else modalities[:1] * len(channels)
    for number, (channel, modality) in enumerate(zip(channels, modalities, strict=True)):
        kind, suffix = KINDS.get(modality, KINDS["MR"])
        entity = f"acq-{acquisition}" + (f"c{number}" if len(channels) > 1 else "")
        place = Path(*names, kind, "_".join([*names, entity, suffix]))
        dtype = channel.dtype if channel.dtype == np.int16 else np.float32
        scan = replace(image, voxels=channel.astype(dtype, copy=False))
        nifti.write(scan, _make_parent(part / f"{place}.nii.gz"))
        write_json(part / f"{place}.json", {"Modality": modality, "Units": case.unit})
        if number == 0 and case.label:
            label: Volume = store.read(manifest.label_path(case)).volume()
            target = part / DERIVATIVE / f"{place}_dseg"
            nifti.write(label, _make_parent(target.with_name(f"{target.name}.nii.gz")))
            classes = Classes.from_metadata(metadata)
            listed = classes.present.get(case.id, sorted(metadata.labels))
            rows = [("index", "name"), *((str(value), metadata.labels[value]) for value in listed)]
            write_text(target.with_name(f"{target.name}.tsv"), _format_tsv(rows))


def _make_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _format_unknown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"


def _format_tsv(rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n").writerows(rows)
    return out.getvalue()
