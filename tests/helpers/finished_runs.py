"""Small finished finetuning runs with random weights, and small data sets for them."""

import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medssl import cli
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.io import nifti
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

WINDOW = (16, 16, 16)


class RunSettings(Settings):
    """The settings of a finetuning run that other commands read."""

    run: Path
    manifest: Path
    augment: AugmentConfig = AugmentConfig()
    fold: int = 0
    num_folds: int | None = None
    seed: int = 0


def make_finished_run(
    path, seed=0, flip=(False, True, True), names=None, task="segment", task_settings=(), fold=None, encoder=None,
    window=WINDOW, spacing_mm=(1.2, 1.2, 1.2), **metadata,
):  # fmt: skip
    """Writes a finished run of a small network.

    `encoder` holds the settings of another encoder.
    `fold` is (fold, num_folds, seed) of a cross-validation; `metadata` goes into its run.json.
    """
    network = TrainedModel.model_validate(
        {
            "encoder": encoder or EncoderConfig(channels=(4, 8), strides=(1, 2)), "in_channels": 1, "normalization": {},
            "patch_size": window, "spacing_mm": spacing_mm, "labels": names or {1: "organ"},
            "task": {"name": task} | dict(task_settings),
        }
    )  # fmt: skip
    torch.manual_seed(seed)
    fold_settings = dict(zip(("fold", "num_folds", "seed"), fold or (), strict=False))
    manifest = path.parent / "private" / "manifest.csv"
    settings = RunSettings(run=path, manifest=manifest, augment=AugmentConfig(flip=flip), **fold_settings)
    run = Run.create(path, settings, "finetune", network=network.model_dump(mode="json"), **metadata)
    weight_transfer.save_parts(network.build_task().transferable(), run.path / "weights.safetensors")
    run.close(scores={"val_dice": 0.5})
    return Run.open(path)


def write_scans(folder, count=2):
    """Writes CTs of smooth noise as scan0.nii.gz, scan1.nii.gz, ..."""
    for n in range(count):
        noise = ndimage.gaussian_filter(np.random.default_rng(n).normal(0, 1, (26, 22, 20)), 2)
        hu = (noise / noise.std() * 300).astype(np.int16)
        nifti.write(Volume(hu, np.diag([-1.0, -1.0, 1.5, 1.0]), "HU"), folder / f"scan{n}.nii.gz")
    return folder


def ingest_store(folder, cases, labelled, shape, threshold_hu, split_fractions):
    """Ingests CTs of blurred noise into folder / "store".

    Voxels above `threshold_hu` are an organ, which is annotated in the first `labelled` cases.
    """
    for n in range(cases):
        noise = ndimage.gaussian_filter(np.random.default_rng(n).normal(0, 1, shape), 2)
        image = Volume((noise / noise.std() * 300).astype(np.int16), np.diag([1.2, 1.2, 1.2, 1.0]), "HU")
        nifti.write(image, folder / "scans" / "imagesTr" / f"c{n}_0000.nii.gz")
        if n < labelled:
            label = Volume((image.voxels > threshold_hu).astype(np.uint8), image.affine, "label")
            nifti.write(label, folder / "scans" / "labelsTr" / f"c{n}.nii.gz")
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (folder / "scans" / "dataset.json").write_text(json.dumps(dataset))
    args = [folder / "scans", "--out", folder / "store", "--split-fractions", split_fractions, "--workers", 0]
    assert cli.run("ingest", [str(arg) for arg in args]) == 0
