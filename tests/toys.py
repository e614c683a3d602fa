"""Toys to train: an objective and batches so small that a training takes a second."""

from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.objectives.spark import Config, Spark
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.plan import Plan


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
        return replace(crops, x=crops.x * float("nan")) if index == self.broken else crops


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
