"""Toys to train: an objective and batches so small that a training takes a second."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from medssl.data import store
from medssl.data.crops import Crops
from medssl.data.manifest import Case, Manifest
from medssl.data.store import Card
from medssl.nn.encoder import ResEncoder
from medssl.objectives.spark import Config, Spark
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.config import Plan
from medssl.volume import Volume


class Plain(Settings):
    run: Path


def batch(seed: int, label: bool = False) -> Crops:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 1, 1, 32, 32, 32, generator=g)
    eye = torch.eye(4).expand(2, 1, 4, 4)
    where = torch.zeros(2, 1, 3, dtype=torch.long)
    y = (x[:, :, 0] > 0.5).long() if label else None
    return Crops(x, where, torch.full((2, 3), 32), eye, torch.arange(2), y)


class Batches(torch.utils.data.Dataset):
    def __init__(self, n: int, label: bool = False, broken: int | None = None) -> None:
        self.n, self.label, self.broken = n, label, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Crops:
        crops = batch(index, self.label)
        if index == self.broken:
            crops.x[1, 0, 0, 3, 3, 3] = float("nan")
        return crops


def loader(n: int = 3, **how) -> DataLoader:
    return DataLoader(Batches(n, **how), batch_size=None)


def encoder() -> ResEncoder:
    torch.manual_seed(0)
    return ResEncoder((4, 8, 8), (1, 2, 2))


def spark() -> Spark:
    torch.manual_seed(0)
    return Spark(Config(), encoder())


def run(path: Path) -> Run:
    return Run.resume(path, Plain(run=path), "pretrain")


PLAN = Plan(epochs=4, steps=3, lr=1e-2)


def shelf(folder: Path, cases: int = 4, channels: int = 1, side: int = 20) -> Path:
    """A manifest of small noisy MRs with a bright ball, labelled; further channels show the ball dark."""
    folder.mkdir()
    at = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    made = []
    for n in range(cases):
        random = np.random.default_rng(n)
        ball = np.linalg.norm(at - random.uniform(7, 13, 3)[:, None, None, None], axis=0) < 5
        voxels = np.stack([0.4 + (0.3 if c == 0 else -0.3) * ball for c in range(channels)])
        voxels = (voxels + random.normal(0, 0.03, voxels.shape)).astype(np.float16)
        store.write(folder / f"c{n}.b2nd", Volume(voxels, np.eye(4), "a.u."), {})
        store.write(folder / f"l{n}.b2nd", Volume(ball.astype(np.uint8), np.eye(4), "label"), {})
        files, split = (f"c{n}", f"p{n}", f"c{n}.b2nd", f"l{n}.b2nd"), "val" if n == cases - 1 else "train"
        made.append(Case(*files, "MR", "a.u.", (1.0, 1.0, 1.0), (side,) * 3, channels, split, "", ""))
    Card(labels={0: "background", 1: "ball"}).write(folder)
    Manifest(tuple(made), folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"
