"""One pool of volumes from several stores: of many sites, modalities, spacings and numbers of channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from medssl.data.manifest import Manifest
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import CropSource, PendingItem


@dataclass(frozen=True)
class SamplingGroup:
    """Cases of one store, one site and one number of channels.

    Attributes:
        manifest: The cases.
        numbers: The number of each case in the pool.
    """

    manifest: Manifest
    numbers: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class CasePool:
    """The cases of several stores, which one training draws from."""

    manifests: tuple[Manifest, ...]

    @classmethod
    def read(cls, first: Manifest, further: Sequence[Path], split: str) -> "CasePool":
        """Adds the cases of one split of further manifests to the cases of a first one."""
        return cls((first, *(Manifest.read(path).in_split(split) for path in further)))

    def list_groups(self) -> list[SamplingGroup]:
        """Returns the cases by store, site and number of channels."""
        groups: dict[tuple[int, str, int], list[int]] = {}
        first_numbers, total = [], 0
        for store, manifest in enumerate(self.manifests):
            first_numbers.append(total)
            for index, (site, channels) in enumerate(
                zip(manifest.column("site"), manifest.column("channels"), strict=True)
            ):
                groups.setdefault((store, site, channels), []).append(index)
            total += len(manifest.cases)
        return [
            SamplingGroup(self.manifests[store].select(indices), np.array(indices) + first_numbers[store])
            for (store, _, _), indices in sorted(groups.items())
        ]

    def column(self, name: str) -> list[Any]:
        """Returns one property of all cases, in the order of their numbers."""
        return [value for manifest in self.manifests for value in manifest.column(name)]


class PooledCrops(CropSource):
    """Random crops of a pool; item n is a pure function of the seed and n.

    A group of n cases is drawn with a probability proportional to n to the power of 1 / temperature, as languages are
    in Conneau et al., "Unsupervised cross-lingual representation learning at scale" (2020),
    https://arxiv.org/abs/1911.02116. At 1 all volumes are equally likely, at infinity all groups.

    Args:
        pool: The cases.
        make_dataset: Returns the crops of the cases of one group.
        temperature: At least 1.
        single_channel: Whether an item has one random channel of its volume, so that volumes with different numbers of
            channels form one batch.
        seed: Seed of all random choices but those of a crop.
    """

    def __init__(
        self,
        pool: CasePool,
        make_dataset: Callable[[Manifest], CropDataset],
        temperature: float = 1.0,
        single_channel: bool = False,
        seed: int = 0,
    ) -> None:
        self.groups = pool.list_groups()
        self.datasets = [make_dataset(group.manifest) for group in self.groups]
        sizes = np.array([len(group.numbers) for group in self.groups], float) ** (1 / temperature)
        self.probabilities = sizes / sizes.sum()
        self.single_channel, self.seed = single_channel, seed

    def __len__(self) -> int:
        """Returns the number of cases; items beyond it visit the cases again."""
        return sum(len(group.numbers) for group in self.groups)

    def draw_item(self, number: int) -> PendingItem:
        """Draws all random numbers of an item and reads its volume."""
        rng = np.random.default_rng((self.seed, number, 2))
        index = int(rng.choice(len(self.groups), p=self.probabilities))
        item = self.datasets[index].draw_item(number)
        item = replace(item, volume=int(self.groups[index].numbers[item.volume]))
        if not self.single_channel:
            return item
        return replace(item, channel=int(rng.integers(len(item.views[0].x))))
