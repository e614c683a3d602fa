"""Exports a store as raw nnU-Net v2 data, and predictions as nnU-Net names its own.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, 2021,
https://doi.org/10.1038/s41592-020-01008-z; the format follows its documentation, dataset_format.md.
"""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medssl.data import store
from medssl.data.classes import Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import atomic_folder, write_json
from medssl.io import nifti
from medssl.predictions_folder import LABELS, NOTICE, Index
from medssl.volume import Volume

log = logging.getLogger(__name__)
FILE_ENDING = ".nii.gz"
DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")


def write_raw_dataset(manifest: Manifest, out: Path) -> None:
    """Writes the cases of a store, with their voxels unchanged, as a raw nnU-Net dataset.

    Cases of split test and cases without a label go to imagesTs and labelsTs, all others to imagesTr and labelsTr. The
    splits train and val become the only fold of splits_final.json, which nnU-Net reads from its preprocessed folder.

    Args:
        manifest: The cases to export; all need the same modality and channels.
        out: A new folder, named as nnU-Net requires: Dataset001_Liver.
    """
    if not DATASET_NAME.fullmatch(out.name):
        raise BadInput(f"{out}: nnU-Net needs a folder name like Dataset001_Liver; choose another --out")
    channels = _channel_names(manifest.cases)
    metadata = StoreMetadata.read(manifest.folder)
    classes = Classes.from_metadata(metadata)
    labels = _number_labels(metadata.labels, classes.ignore_label, manifest.folder)
    training = [case for case in manifest.cases if case.label and case.split != "test"]
    if not training:
        raise BadInput(f"{manifest.folder}: no labelled case outside split test; nnU-Net has nothing to learn from")
    _warn_about_losses(classes, training, out)
    with atomic_folder(out) as part:
        for case in manifest.cases:
            _write_case(manifest, case, part, "Tr" if case in training else "Ts")
        write_json(
            part / "dataset.json",
            {"channel_names": channels, "labels": labels, "numTraining": len(training), "file_ending": FILE_ENDING}
            | {"name": out.name, "description": NOTICE, "overwrite_image_reader_writer": "NibabelIOWithReorient"},
        )
        fold = {
            "train": [case.id for case in training if case.split != "val"],
            "val": [case.id for case in training if case.split == "val"],
        }
        write_json(part / "splits_final.json", [fold])


def write_predictions(index: Index, out: Path) -> None:
    """Writes the labels of every predicted case as CASE.nii.gz, and a dataset.json with the names of the classes."""
    if not index.cases:
        raise BadInput(f"{index.folder}: holds no case yet; run `medssl predict` first")
    labels = {"background": 0} | {label.name: label.value for label in index.labels}
    with atomic_folder(out) as part:
        for case in index.cases:
            shutil.copyfile(index.case_folder(case) / LABELS, part / f"{case}{FILE_ENDING}")
        write_json(part / "dataset.json", {"labels": labels, "file_ending": FILE_ENDING, "description": NOTICE})


def _warn_about_losses(classes: Classes, training: Sequence[Case], out: Path) -> None:
    """Warns about partial annotations and regions, which the nnU-Net format cannot express."""
    if partial := [case.id for case in training if not classes.annotation_mask(case.id).all()]:
        log.warning(
            "%s: %d cases do not have all classes annotated; nnU-Net learns the missing ones as background",
            out, len(partial),
        )  # fmt: skip
    if classes.regions:
        log.warning("%s: regions (%s) are left out; nnU-Net gets plain classes", out, ", ".join(classes.regions))


def _channel_names(cases: Sequence[Case]) -> dict[str, str]:
    """Returns nnU-Net's channel names, which decide the normalization: a window for CT, z-scores for all others."""
    modalities = {(case.modality, case.channels) for case in cases}
    if len(modalities) != 1:
        listing = ", ".join(f"{modality} with {count} channels" for modality, count in sorted(modalities))
        raise BadInput(f"nnU-Net needs one modality with the same channels, got {listing or 'none'}; split the store")
    modality, count = modalities.pop()
    names = modality.split("+")
    names = names if len(names) == count else names[:1] * count
    return {str(n): name for n, name in enumerate(names)}


def _number_labels(names: Mapping[int, str], ignored: int | None, folder: Path) -> dict[str, int]:
    """Returns name -> value as in dataset.json; nnU-Net needs consecutive values, with `ignore` as the last."""
    if sorted(names) != list(range(1, len(names) + 1)):
        raise BadInput(f"{folder}: nnU-Net needs classes 1, 2, 3, ..., got {sorted(names)}; renumber them")
    labels = {("ignore" if value == ignored else name): value for value, name in sorted(names.items())}
    if ignored not in (None, len(names)):
        raise BadInput(f"{folder}: nnU-Net needs the class ignore to be the last, it is {ignored}; renumber them")
    return {"background": 0} | labels


def _write_case(manifest: Manifest, case: Case, part: Path, suffix: str) -> None:
    """Writes each channel of the image as one file, and the label if there is one."""
    image = store.read(manifest.path(case)).volume()
    for number, channel in enumerate(image.voxels.reshape(-1, *image.shape)):
        dtype = channel.dtype if channel.dtype == np.int16 else np.float32
        channel_image = replace(image, voxels=channel.astype(dtype, copy=False))
        nifti.write(channel_image, part / f"images{suffix}" / f"{case.id}_{number:04d}{FILE_ENDING}")
    if case.label:
        label: Volume = store.read(manifest.label_path(case)).volume()
        nifti.write(label, part / f"labels{suffix}" / f"{case.id}{FILE_ENDING}")
