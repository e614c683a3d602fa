"""Data loaders: endless training crops, and whole volumes to validate on."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.crops import Crops, collate
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.case_pool import PooledCrops
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import CropSource, PendingCrops, PendingItem, PendingItems
from medssl.data.store import Store
from medssl.errors import BadInput
from medssl.nn.collectives import count_processes, get_rank, is_distributed
from medssl.training.config import TrainConfig
from medssl.training.fault_tolerance.failures import find_cause
from medssl.training.processes.agreement import find_any, gather_values

PREFETCHED = 4  # batches of each loader process
MAX_WORKERS = 12  # by default


@dataclass(frozen=True)
class DataLoaders:
    """The data of a training.

    Attributes:
        train: Batches of training crops, of which `augment_crops` gives the crops.
        val: Whole labelled volumes to validate on, or None to train without validation.
        val_every_n_epochs: Epochs between two validations.
        case_ids: Case of each volume number in `Crops.volume`, for error messages.
    """

    train: "DataLoader[Any]"
    val: "DataLoader[Crops] | None" = None
    val_every_n_epochs: int = 5
    case_ids: Sequence[str] = ()

    @property
    def dataset(self) -> Any:
        """The data set of the training crops."""
        dataset = self.train.dataset
        return dataset.source if isinstance(dataset, PendingItems) else dataset

    def skip_to(self, epoch: int, num_batches: int) -> None:
        """Makes the training batches begin in an epoch, after a number of its batches.

        Raises:
            TypeError: The loader has no `ResumableSampler`.
        """
        sampler = self.train.sampler
        if not isinstance(sampler, ResumableSampler):
            raise TypeError("a training resumes only with a loader from `train_loader`, or with a ResumableSampler")
        sampler.epoch, sampler.start = epoch, num_batches * (self.train.batch_size or 1) * sampler.world_size


def train_loader(
    dataset: CropDataset | PooledCrops, config: TrainConfig, extra: CropDataset | None = None
) -> "DataLoader[Any]":
    """Returns a loader with `config.steps_per_epoch` optimizer steps per epoch, for any number of volumes.

    Args:
        dataset: Crops to train on.
        config: Batch size, steps and loader processes.
        extra: Further crops for semi-supervised training. Labelled ones make up every second crop of a batch;
            unlabelled ones are added to each batch, as many as there are crops of `dataset`.
    """
    source: CropSource = dataset
    if extra and isinstance(dataset, CropDataset):
        source = InterleavedDataset(dataset, extra)
    augments = config.augment_on == "loader"
    global_batch = config.batch_size if extra is None or extra.labelled else 2 * config.batch_size
    batch_size, num_items = global_batch // count_processes(), config.steps_per_epoch * config.accumulate_grad_batches
    num_workers, has_gpu = count_workers(config), uses_gpu(config)
    sampler = ResumableSampler(
        num_items * global_batch, batch_size=batch_size, rank=get_rank(), world_size=count_processes()
    )
    return DataLoader(
        source if augments else PendingItems(source), batch_size, sampler=sampler,
        collate_fn=collate if augments else PendingCrops.pack, num_workers=num_workers, pin_memory=has_gpu,
        multiprocessing_context="spawn" if num_workers else None, persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCHED if num_workers else None, generator=torch.Generator(),
    )  # fmt: skip


def uses_gpu(config: TrainConfig) -> bool:
    """Whether a training with these settings uses a GPU here."""
    return config.accelerator != "cpu" and torch.cuda.is_available()


def count_workers(config: TrainConfig) -> int:
    """Returns the number of loader processes: as configured, or by the cores that this process may use."""
    if config.num_workers is not None:
        return config.num_workers
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, num_cores // config.devices - 1) if uses_gpu(config) else 0


class LoadingFailed(BadInput):
    """A batch could not be loaded in one of several processes; all of them raise this after the same step."""


class TrainBatches:
    """The batches of a loader as the trainer takes them: they fail in all processes of a training if one fails.

    Attributes:
        waited_s: Seconds that the training has waited for its batches so far.
    """

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self.loader = loader
        self.sampler = loader.sampler  # which Lightning tells the epoch
        self.waited_s = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Crops | PendingCrops]:
        """Yields the batches of this process.

        Raises:
            LoadingFailed: A batch could not be loaded in one of several processes.
        """
        batches = iter(self.loader)
        while True:
            crops, error, start = None, None, time.monotonic()
            try:
                crops = next(batches, None)
            except Exception as raised:
                error = raised
            if error is not None and not is_distributed():
                raise error
            if any(find_any(error is not None)):
                texts = gather_values(_describe(error) if error is not None else "")
                raise LoadingFailed("; ".join(dict.fromkeys(text for text in texts if text))) from error
            self.waited_s += time.monotonic() - start
            if crops is None:
                return
            yield crops


def volume_loader(
    manifest: Manifest, normalization: IntensityNormalization, classes: Classes | None = None
) -> "DataLoader[Crops]":
    """Returns a loader of whole labelled volumes, one per batch; each process gets its share of them.

    A process for which no volume is left gets one of another process; see `is_own_volume`.
    """
    dataset = VolumeDataset(manifest, normalization, classes)
    share = list(range(get_rank(), len(dataset), count_processes())) or [get_rank() % len(dataset)]
    return DataLoader(dataset, batch_size=None, sampler=share, generator=torch.Generator())


def is_own_volume(crops: Crops) -> bool:
    """Whether a volume of `volume_loader` is one that this process has to score."""
    return int(crops.volume[0]) % count_processes() == get_rank()


class InterleavedDataset(CropSource):
    """Alternates between labelled items and extra items; an extra item without a label gets one of ignored voxels."""

    def __init__(self, labelled: CropDataset, extra: CropDataset) -> None:
        self.labelled, self.extra = labelled, extra

    def __len__(self) -> int:
        return 2 * max(len(self.labelled), len(self.extra))

    def draw_item(self, number: int) -> PendingItem:
        """Draws all random numbers of an item and reads its volume."""
        index, is_extra = divmod(number, 2)
        if not is_extra:
            return self.labelled.draw_item(index)
        item, classes = self.extra.draw_item(index), self.labelled.classes
        item = replace(item, volume=len(self.labelled) + item.volume)
        if self.extra.labelled:
            return item
        annotated = torch.ones(classes.count, dtype=torch.bool) if classes else None
        return replace(item, fill_label=IGNORE_INDEX, annotated=annotated)


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


def _describe(error: Exception) -> str:
    """Describes an error of a loader in one line."""
    return find_cause(error) or (str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}")


class ResumableSampler(Sampler[int]):
    """Numbers the items of all epochs consecutively, so that an epoch and a start position resume a training exactly.

    Each process takes its own block of rows of every global batch, so that the batches of all processes, one behind
    the other, are the batch that one process would take.

    Args:
        num_items: Items in each epoch, over all processes; with several processes a multiple of the global batch.
        epoch: Index of the current epoch.
        start: Items of the current epoch to skip, over all processes.
        batch_size: Items of a batch of one process; only of use with several processes.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, num_items: int, *, epoch: int = 0, start: int = 0, batch_size: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        self.num_items, self.epoch, self.start = num_items, epoch, start
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def set_epoch(self, epoch: int) -> None:
        """Moves to the beginning of another epoch; the current one keeps its start position."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        """Returns the number of this process's items of a whole epoch, whatever its start, as Lightning counts them."""
        return self.num_items // self.world_size

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.num_items
        if self.world_size == 1:
            return iter(range(first + self.start, first + self.num_items))
        blocks = range(first + self.start + self.rank * self.batch_size, first + self.num_items, self._global_batch)
        return (block + row for block in blocks for row in range(self.batch_size))

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self.world_size
