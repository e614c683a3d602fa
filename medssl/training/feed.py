"""Loaders: training crops without end and whole volumes to validate on, each a pure function of seed and number."""

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from medssl.data.crops import CropDataset, Crops, Epochs, collate
from medssl.data.manifest import Manifest
from medssl.data.normalise import Recipe
from medssl.data.store import Store
from medssl.training.plan import Plan


def crops(dataset: CropDataset, plan: Plan) -> "DataLoader[Any]":
    """An epoch is as many crops as the plan's steps take, however many volumes there are."""
    epoch = Epochs(plan.steps * plan.batch * plan.accumulate)
    return DataLoader(
        dataset, plan.batch, sampler=epoch, collate_fn=collate, num_workers=plan.workers,
        multiprocessing_context="spawn" if plan.workers else None, persistent_workers=plan.workers > 0,
    )  # fmt: skip


def wholes(manifest: Manifest, recipe: Recipe) -> "DataLoader[Crops]":
    """Labelled volumes one by one, whole."""
    return DataLoader(Wholes(manifest, recipe), batch_size=None)


class Wholes(Dataset[Crops]):
    """Item n is case n as a batch of one crop that is the volume."""

    def __init__(self, manifest: Manifest, recipe: Recipe) -> None:
        self.store, self.recipe = Store(manifest), recipe

    def __len__(self) -> int:
        return len(self.store.manifest.cases)

    def __getitem__(self, number: int) -> Crops:
        case = self.store.manifest.cases[number]
        image, label = self.store.image(case), self.store.label(case)
        x = torch.from_numpy(self.recipe.apply(image.volume().voxels, image.unit, image.deciles))
        return Crops(
            x=x[None, None],
            corner=torch.zeros(1, 1, 3, dtype=torch.long),
            size=torch.tensor([image.shape]),
            affine=torch.from_numpy(image.affine).float()[None, None],
            volume=torch.tensor([number]),
            label=torch.from_numpy(label.volume().voxels.astype("int64"))[None, None],
        )
