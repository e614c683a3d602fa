"""nnU-Net: a store as a raw data set that nnU-Net v2 trains on, and predictions as it writes its own.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, 2021,
https://doi.org/10.1038/s41592-020-01008-z; the format is that of its documentation, dataset_format.md.
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
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.files import fresh, write_json
from medssl.io import nifti
from medssl.predictions_folder import LABELS, NOTICE, Index
from medssl.volume import Volume

log = logging.getLogger(__name__)
ENDING = ".nii.gz"
NAME = re.compile(r"Dataset\d{3}_\w+")


def write_raw(manifest: Manifest, out: Path) -> None:
    """Writes imagesTr, labelsTr, imagesTs, labelsTs, dataset.json and splits_final.json, as the store holds its voxels.

    Split test goes to Ts, and so do cases without a label; the splits train and val become the one fold of
    splits_final.json, which nnU-Net looks for in its folder of preprocessed data.
    """
    if not NAME.fullmatch(out.name):
        raise BadInput(f"{out}: nnU-Net wants a folder named like Dataset001_Liver; choose another --out")
    cases = manifest.cases
    channels = _one(cases)
    card = Card.read(manifest.folder)
    labels = _consecutive(card.labels, Classes.of(card).unlabelled, manifest.folder)
    learnt = [c for c in cases if c.label and c.split != "test"]
    if not learnt:
        raise BadInput(f"{manifest.folder}: no labelled case outside split test; nnU-Net has nothing to learn from")
    _tell_lost(Classes.of(card), learnt, out)
    with fresh(out) as part:
        for case in cases:
            _write_case(manifest, case, part, "Tr" if case in learnt else "Ts")
        write_json(
            part / "dataset.json",
            {"channel_names": channels, "labels": labels, "numTraining": len(learnt), "file_ending": ENDING}
            | {"name": out.name, "description": NOTICE, "overwrite_image_reader_writer": "NibabelIOWithReorient"},
        )
        split = {name: [c.id for c in learnt if (c.split == "val") == (name == "val")] for name in ("train", "val")}
        write_json(part / "splits_final.json", [split])


def write_predictions(index: Index, out: Path) -> None:
    """Writes the labels of every predicted case as CASE.nii.gz, beside a dataset.json that names them."""
    if not index.cases:
        raise BadInput(f"{index.folder}: holds no case yet; predict some")
    labels = {"background": 0} | {label.name: label.value for label in index.labels}
    with fresh(out) as part:
        for case in index.cases:
            shutil.copyfile(index.case(case) / LABELS, part / f"{case}{ENDING}")
        write_json(part / "dataset.json", {"labels": labels, "file_ending": ENDING, "description": NOTICE})


def _tell_lost(classes: Classes, learnt: Sequence[Case], out: Path) -> None:
    """Logs what the layout has no words for."""
    if partly := [case.id for case in learnt if not classes.drawn(case.id).all()]:
        log.warning("%s: in %d cases not every class was drawn; nnU-Net learns them as background", out, len(partly))
    if classes.regions:
        log.warning("%s: regions (%s) are left out; nnU-Net gets plain classes", out, ", ".join(classes.regions))


def _one(cases: Sequence[Case]) -> dict[str, str]:
    """The names of the channels, the same in all cases; nnU-Net windows what is called CT, and normalises all else."""
    kinds = {(case.modality, case.channels) for case in cases}
    if len(kinds) != 1:
        told = ", ".join(f"{modality} with {count} channels" for modality, count in sorted(kinds))
        raise BadInput(f"nnU-Net wants images of one kind, these are {told or 'none'}; split the store")
    modality, count = kinds.pop()
    names = modality.split("+")
    names = names if len(names) == count else names[:1] * count
    return {str(n): name for n, name in enumerate(names)}


def _consecutive(names: Mapping[int, str], blank: int | None, folder: Path) -> dict[str, int]:
    """Name -> number, as nnU-Net writes them; it takes no numbers but 0, 1, 2 and so on, voxels to ignore last."""
    if sorted(names) != list(range(1, len(names) + 1)):
        raise BadInput(f"{folder}: nnU-Net wants classes 1, 2, 3 ..., these are {sorted(names)}; number them anew")
    told = {("ignore" if number == blank else name): number for number, name in sorted(names.items())}
    if blank not in (None, len(names)):
        raise BadInput(f"{folder}: nnU-Net wants the class ignore to be the last, it is {blank}; number them anew")
    return {"background": 0} | told


def _write_case(manifest: Manifest, case: Case, part: Path, suffix: str) -> None:
    image = store.read(manifest.path(case)).volume()
    for number, channel in enumerate(image.voxels.reshape(-1, *image.shape)):
        kind = channel.dtype if channel.dtype == np.int16 else np.float32
        one = replace(image, voxels=channel.astype(kind, copy=False))
        nifti.write(one, part / f"images{suffix}" / f"{case.id}_{number:04d}{ENDING}")
    if case.label:
        label: Volume = store.read(manifest.label_path(case)).volume()
        nifti.write(label, part / f"labels{suffix}" / f"{case.id}{ENDING}")
