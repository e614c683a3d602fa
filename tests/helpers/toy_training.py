"""Small objectives, batches and stores, on which a training takes a second."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from medssl.data import store
from medssl.data.crops import Crops
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.spark import Config, Spark
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, ResumableSampler
from medssl.volume import Volume


class RunSettings(Settings):
    run: Path


def make_batch(seed: int, label: bool = False) -> Crops:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 1, 1, 32, 32, 32, generator=g)
    eye = torch.eye(4).expand(2, 1, 4, 4)
    corner = torch.zeros(2, 1, 3, dtype=torch.long)
    y = (x[:, :, 0] > 0.5).long() if label else None
    return Crops(x, corner, torch.full((2, 3), 32), eye, torch.arange(2), y)


class Batches(torch.utils.data.Dataset):
    def __init__(self, n: int, label: bool = False, broken: int | None = None) -> None:
        self.n, self.label, self.broken = n, label, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Crops:
        index %= self.n
        crops = make_batch(index, self.label)
        if index == self.broken:
            crops.x[1, 0, 0, 3, 3, 3] = float("nan")
        return crops


def make_loader(n: int = 3, **options) -> DataLoader:
    return DataLoader(Batches(n, **options), batch_size=None, sampler=ResumableSampler(n))


def make_loaders(n: int = 3, case_ids: tuple[str, ...] = (), **options) -> DataLoaders:
    return DataLoaders(make_loader(n, **options), case_ids=case_ids)


def make_encoder() -> ResEncoder:
    torch.manual_seed(0)
    return ResEncoder((4, 8, 8), (1, 2, 2))


def make_spark() -> Spark:
    torch.manual_seed(0)
    return Spark(Config(), make_encoder())


def open_run(path: Path) -> Run:
    return Run.resume(path, RunSettings(run=path), "pretrain")


SHORT_TRAINING = TrainConfig(epochs=4, steps_per_epoch=3, lr=1e-2)


def write_store(
    folder: Path, cases: int = 4, channels: int = 1, side: int = 20, air_voxels: Sequence[int] = (0,)
) -> Path:
    """Writes a store of small noisy MRs with a labelled bright ball, which is dark in further channels.

    The volumes take turns at `air_voxels`, the depth of the air at their first side, so that they differ in what a
    masked mean counts.
    """
    folder.mkdir()
    index = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    rows = []
    for n in range(cases):
        random = np.random.default_rng(n)
        ball = np.linalg.norm(index - random.uniform(7, 13, 3)[:, None, None, None], axis=0) < 5
        voxels = np.stack([0.4 + (0.3 if c == 0 else -0.3) * ball for c in range(channels)])
        voxels = (voxels + random.normal(0, 0.03, voxels.shape)).astype(np.float16)
        voxels[:, : air_voxels[n % len(air_voxels)]] = 0
        store.write(folder / f"c{n}.b2nd", Volume(voxels, np.eye(4), "a.u."), {})
        store.write(folder / f"l{n}.b2nd", Volume(ball.astype(np.uint8), np.eye(4), "label"), {})
        files, split = (f"c{n}", f"p{n}", f"c{n}.b2nd", f"l{n}.b2nd"), "val" if n == cases - 1 else "train"
        rows.append(Case(*files, "MR", "a.u.", (1.0, 1.0, 1.0), (side,) * 3, channels, split, "", ""))
    StoreMetadata(labels={0: "background", 1: "ball"}).write(folder)
    Manifest(tuple(rows), folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"
