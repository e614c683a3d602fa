"""Loaders: training crops without end and whole volumes to validate on, each a pure function of seed and number."""

from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from medssl.data.classes import UNKNOWN, Classes
from medssl.data.crops import CropDataset, Crops, Epochs, Item, collate
from medssl.data.manifest import Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Store
from medssl.training.config import Plan


def crops(dataset: CropDataset, plan: Plan, beside: CropDataset | None = None) -> "DataLoader[Any]":
    """An epoch is as many crops as the plan's steps take, however many volumes there are.

    Of others `beside` that have labels every second crop is one; of those that have none there are as many more.
    """
    source = Beside(dataset, beside) if beside else dataset
    batch = plan.batch if beside is None or beside.labelled else 2 * plan.batch
    epoch = Epochs(plan.steps * batch * plan.accumulate)
    return DataLoader(
        source, batch, sampler=epoch, collate_fn=collate, num_workers=plan.workers,
        multiprocessing_context="spawn" if plan.workers else None, persistent_workers=plan.workers > 0,
    )  # fmt: skip


def wholes(manifest: Manifest, recipe: Recipe, classes: Classes | None = None) -> "DataLoader[Crops]":
    """Labelled volumes one by one, whole."""
    return DataLoader(Wholes(manifest, recipe, classes), batch_size=None)


class Beside(Dataset[Item]):
    """Labelled items and others by turns, the latter, where they have no label, with one that says nothing."""

    def __init__(self, labelled: CropDataset, others: CropDataset) -> None:
        self.labelled, self.others = labelled, others

    def __len__(self) -> int:
        return 2 * max(len(self.labelled), len(self.others))

    def __getitem__(self, number: int) -> Item:
        at, other = divmod(number, 2)
        if not other:
            return self.labelled[at]
        item, classes = self.others[at], self.labelled.classes
        item = replace(item, volume=len(self.labelled) + item.volume)
        if item.label is not None:
            return item
        v, _, i, j, k = item.x.shape
        drawn = torch.ones(classes.count, dtype=torch.bool) if classes else None
        return replace(item, label=torch.full((v, i, j, k), UNKNOWN), drawn=drawn)


class Wholes(Dataset[Crops]):
    """Item n is case n as a batch of one crop that is the volume."""

    def __init__(self, manifest: Manifest, recipe: Recipe, classes: Classes | None = None) -> None:
        self.store, self.recipe, self.classes = Store(manifest), recipe, classes

    def __len__(self) -> int:
        return len(self.store.manifest.cases)

    def __getitem__(self, number: int) -> Crops:
        case = self.store.manifest.cases[number]
        image, label = self.store.image(case), self.store.label(case)
        voxels = label.volume().voxels
        known = voxels.astype("int64") if self.classes is None else self.classes.target(voxels)
        x = torch.from_numpy(image.input(self.recipe))
        return Crops(
            x=x[None, None],
            corner=torch.zeros(1, 1, 3, dtype=torch.long),
            size=torch.tensor([image.shape]),
            affine=torch.from_numpy(image.affine).float()[None, None],
            volume=torch.tensor([number]),
            label=torch.from_numpy(known)[None, None],
            drawn=None if self.classes is None else torch.from_numpy(self.classes.measured(case.id))[None],
        )
