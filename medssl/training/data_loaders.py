"""Data loaders: endless training crops, and whole volumes to validate on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.crops import CropDataset, CropItem, Crops, ResumableSampler, collate
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.store import Store
from medssl.training.config import TrainConfig


@dataclass(frozen=True)
class DataLoaders:
    """The data of a training.

    Attributes:
        train: Batches of training crops.
        val: Whole labelled volumes to validate on, or None to train without validation.
        val_every_n_epochs: Epochs between two validations.
        case_ids: Case of each volume number in `Crops.volume`, for error messages.
    """

    train: "DataLoader[Crops]"
    val: "DataLoader[Crops] | None" = None
    val_every_n_epochs: int = 5
    case_ids: Sequence[str] = ()

    def skip_to(self, epoch: int, num_batches: int) -> None:
        """Makes the training batches begin in an epoch, after a number of its batches.

        Raises:
            TypeError: The loader has no `ResumableSampler`.
        """
        sampler = self.train.sampler
        if not isinstance(sampler, ResumableSampler):
            raise TypeError("a training resumes only with a loader from `train_loader`, or with a ResumableSampler")
        sampler.epoch, sampler.start = epoch, num_batches * (self.train.batch_size or 1)


def train_loader(dataset: CropDataset, config: TrainConfig, extra: CropDataset | None = None) -> "DataLoader[Any]":
    """Returns a loader with `config.steps_per_epoch` optimizer steps per epoch, for any number of volumes.

    Args:
        dataset: Crops to train on.
        config: Batch size, steps and loader processes.
        extra: Further crops for semi-supervised training. Labelled ones make up every second crop of a batch;
            unlabelled ones are added to each batch, as many as there are crops of `dataset`.
    """
    source = InterleavedDataset(dataset, extra) if extra else dataset
    batch_size = config.batch_size if extra is None or extra.labelled else 2 * config.batch_size
    sampler = ResumableSampler(config.steps_per_epoch * batch_size * config.accumulate_grad_batches)
    return DataLoader(
        source, batch_size, sampler=sampler, collate_fn=collate, num_workers=config.num_workers,
        multiprocessing_context="spawn" if config.num_workers else None, persistent_workers=config.num_workers > 0,
        generator=torch.Generator(),
    )  # fmt: skip


def volume_loader(
    manifest: Manifest, normalization: IntensityNormalization, classes: Classes | None = None
) -> "DataLoader[Crops]":
    """Returns a loader of whole labelled volumes, one per batch."""
    return DataLoader(VolumeDataset(manifest, normalization, classes), batch_size=None, generator=torch.Generator())


class InterleavedDataset(Dataset[CropItem]):
    """Alternates between labelled items and extra items; an extra item without a label gets one of ignored voxels."""

    def __init__(self, labelled: CropDataset, extra: CropDataset) -> None:
        self.labelled, self.extra = labelled, extra

    def __len__(self) -> int:
        return 2 * max(len(self.labelled), len(self.extra))

    def __getitem__(self, number: int) -> CropItem:
        index, is_extra = divmod(number, 2)
        if not is_extra:
            return self.labelled[index]
        item, classes = self.extra[index], self.labelled.classes
        item = replace(item, volume=len(self.labelled) + item.volume)
        if item.label is not None:
            return item
        v, _, i, j, k = item.x.shape
        annotated = torch.ones(classes.count, dtype=torch.bool) if classes else None
        return replace(item, label=torch.full((v, i, j, k), IGNORE_INDEX), annotated=annotated)


class VolumeDataset(Dataset[Crops]):
    """Item n is case n as a batch of one crop that covers the whole volume."""

    def __init__(
        self, manifest: Manifest, normalization: IntensityNormalization, classes: Classes | None = None
    ) -> None:
        self.store, self.normalization, self.classes = Store(manifest), normalization, classes

    def __len__(self) -> int:
        return len(self.store.manifest.cases)

    def __getitem__(self, number: int) -> Crops:
        case = self.store.manifest.cases[number]
        image, label = self.store.image(case), self.store.label(case)
        voxels = label.volume().voxels
        target = voxels.astype("int64") if self.classes is None else self.classes.to_target(voxels)
        x = torch.from_numpy(image.network_input(self.normalization))
        return Crops(
            x=x[None, None],
            corner=torch.zeros(1, 1, 3, dtype=torch.long),
            size=torch.tensor([image.shape]),
            affine=torch.from_numpy(image.affine).float()[None, None],
            volume=torch.tensor([number]),
            label=torch.from_numpy(target)[None, None],
            annotated=None if self.classes is None else torch.from_numpy(self.classes.evaluation_mask(case.id))[None],
        )
