"""Small finished finetunings, with weights as they were born."""

import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medssl import cli
from medssl.data.transforms.augmentation import Augment
from medssl.io import nifti
from medssl.models.trained_model import Network
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

WINDOW = (16, 16, 16)


class Plain(Settings):
    run: Path
    manifest: Path
    augment: Augment = Augment()
    fold: int = 0
    folds: int | None = None
    seed: int = 0


def finished(path, seed=0, flip=(False, True, True), names=None, task="segment", more=(), dealt=None, **facts):
    """A closed run of a small network, `dealt` a fold (number, of how many, seed); `facts` go into its run.json."""
    network = Network.model_validate(
        {
            "encoder": EncoderConfig(channels=(4, 8), strides=(1, 2)), "in_channels": 1, "recipe": {}, "crop": WINDOW,
            "spacing_mm": (1.2, 1.2, 1.2), "labels": names or {1: "organ"}, "task": {"name": task} | dict(more),
        }
    )  # fmt: skip
    torch.manual_seed(seed)
    fold = dict(zip(("fold", "folds", "seed"), dealt or (), strict=False))
    manifest = path.parent / "private" / "manifest.csv"
    settings = Plain(run=path, manifest=manifest, augment=Augment(flip=flip), **fold)
    run = Run.create(path, settings, "finetune", network=network.model_dump(mode="json"), **facts)
    transfer.save(network.blank().transferable(), run.path / "weights.safetensors")
    run.close(scores={"val_dice": 0.5})
    return Run.open(path)


def scans(folder, count=2):
    """CTs of smooth noise, under names of their own."""
    for n in range(count):
        noise = ndimage.gaussian_filter(np.random.default_rng(n).normal(0, 1, (26, 22, 20)), 2)
        hu = (noise / noise.std() * 300).astype(np.int16)
        nifti.write(Volume(hu, np.diag([-1.0, -1.0, 1.5, 1.0]), "HU"), folder / f"scan{n}.nii.gz")
    return folder


def ingested(place, cases, labelled, shape, bright, shares):
    """A store of blurred noise in which what is `bright` is an organ, drawn in the first `labelled` cases."""
    for n in range(cases):
        noise = ndimage.gaussian_filter(np.random.default_rng(n).normal(0, 1, shape), 2)
        image = Volume((noise / noise.std() * 300).astype(np.int16), np.diag([1.2, 1.2, 1.2, 1.0]), "HU")
        nifti.write(image, place / "scans" / "imagesTr" / f"c{n}_0000.nii.gz")
        if n < labelled:
            label = Volume((image.voxels > bright).astype(np.uint8), image.affine, "label")
            nifti.write(label, place / "scans" / "labelsTr" / f"c{n}.nii.gz")
    told = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (place / "scans" / "dataset.json").write_text(json.dumps(told))
    words = [str(place / "scans"), "--out", str(place / "store"), "--shares", shares, "--workers", "0"]
    assert cli.run("ingest", words) == 0
