"""Crops: what every objective and task is fed with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medssl.data.classes import Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Corner, Store
from medssl.data.transforms.augmentation import Augment, augment
from medssl.errors import BadInput


@dataclass(frozen=True)
class Crops:
    """A batch of v views per volume, intensities in [0, 1], with where each was cut.

    `corner` and `size` are voxels of the stored volume; `affine` maps a crop's voxel index to mm, RAS+;
    `volume` numbers the volume each row was cut from, so that crops of one scan are known as such.
    A label is negative where nothing is known; `drawn` tells which classes were drawn in each volume, None if all were.
    Of crops that lack channels, `whole` is what they were cut as.
    """

    x: Float[Tensor, "b v c i j k"]
    corner: Int[Tensor, "b v 3"]
    size: Int[Tensor, "b 3"]
    affine: Float[Tensor, "b v 4 4"]
    volume: Int[Tensor, "b"]
    label: Int[Tensor, "b v i j k"] | None = None
    drawn: Bool[Tensor, "b n"] | None = None
    whole: Float[Tensor, "b v c i j k"] | None = None

    def target(self) -> Float[Tensor, "n c i j k"]:
        """What a reconstruction of each view is held against: every channel, also one that the view lacks."""
        return (self.x if self.whole is None else self.whole).flatten(0, 1)

    def labels(self) -> Int[Tensor, "b v i j k"]:
        """The labels, which a task cannot do without."""
        if self.label is None:
            raise BadInput("these crops have no labels; take them from labelled cases")
        return self.label

    def drawn_by_view(self) -> Bool[Tensor, "m n"] | None:
        """Which classes were drawn, for each view: those of its volume."""
        return None if self.drawn is None else self.drawn.repeat_interleave(self.x.shape[1], 0)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Crops":
        """The same crops on another device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: Any = {n: None if t is None else t.to(device, non_blocking=non_blocking) for n, t in tensors.items()}
        return Crops(**moved)


@dataclass(frozen=True)
class Item:
    """The crops of one volume: a row of `Crops`."""

    x: Float[Tensor, "v c i j k"]
    corner: Int[Tensor, "v 3"]
    size: Int[Tensor, "3"]
    affine: Float[Tensor, "v 4 4"]
    volume: int
    label: Int[Tensor, "v i j k"] | None = None
    drawn: Bool[Tensor, "n"] | None = None


def collate(items: Sequence[Item]) -> Crops:
    """Items as one batch; labels, and what was drawn, are there where every item has them."""
    labels = [item.label for item in items if item.label is not None]
    drawn = [item.drawn for item in items if item.drawn is not None]
    return Crops(
        x=torch.stack([item.x for item in items]),
        corner=torch.stack([item.corner for item in items]),
        size=torch.stack([item.size for item in items]),
        affine=torch.stack([item.affine for item in items]),
        volume=torch.tensor([item.volume for item in items]),
        label=torch.stack(labels) if len(labels) == len(items) else None,
        drawn=torch.stack(drawn) if len(drawn) == len(items) else None,
    )


class CropDataset(Dataset[Item]):
    """Item n is `views` crops of one volume; volumes take turns, in a new order each round.

    Unlabelled crops lie about a voxel of the body, so that they are not mostly air. Of labelled ones the share
    `foreground` lies about a voxel of a class, each class of the volume being as likely as the next, or with `by_part`
    each connected part of one: else a lesion a third as wide is drawn 27 times less often.
    The first view decides the place; with `overlap` every further view shares at least that part of it with the first.
    """

    def __init__(
        self, manifest: Manifest, recipe: Recipe, size: Corner, *, views: int = 1, overlap: float | None = None,
        labelled: bool = False, foreground: float = 0.5, seed: int = 0, augment: Augment | None = None,
        classes: Classes | None = None, by_part: bool = False,
    ) -> None:  # fmt: skip
        if not manifest.cases:
            raise BadInput(f"{manifest.folder}: no cases to cut crops from; is the split empty?")
        bare = [case.id for case in manifest.cases if labelled and not case.label]
        if bare:
            raise BadInput(f"{manifest.folder}: no label for {', '.join(bare[:5])}; take `.labelled()` cases only")
        channels = {case.channels for case in manifest.cases}
        if len(channels) > 1:
            raise BadInput(f"{manifest.folder}: cases with {sorted(channels)} channels; train on one kind at a time")
        self.store = Store(manifest)
        self.recipe, self.size, self.views, self.overlap = recipe, size, views, overlap
        self.labelled, self.foreground, self.seed, self.augment = labelled, foreground, seed, augment
        self.classes, self.by_part = classes, by_part

    def __len__(self) -> int:
        """The volumes there are; items go on beyond that, in a new order."""
        return len(self.store.manifest.cases)

    def __getitem__(self, number: int) -> Item:
        random = np.random.default_rng((self.seed, number))
        at = self._turn(number)
        case = self.store.manifest.cases[at]
        corners = self._corners(case, random)
        item = Item(
            x=torch.from_numpy(np.stack([self._voxels(case, c) for c in corners])),
            corner=torch.tensor(corners),
            size=torch.tensor(self.store.image(case).shape),
            affine=torch.from_numpy(np.stack([self._affine(case, c) for c in corners])),
            volume=at,
            label=torch.from_numpy(np.stack([self._label(case, c) for c in corners])) if self.labelled else None,
            drawn=torch.from_numpy(self.classes.drawn(case.id)) if self.labelled and self.classes else None,
        )
        return item if self.augment is None else _augmented(item, self.augment, random)

    def _turn(self, number: int) -> int:
        """Which volume: every round shows each once, in an order of its own."""
        round_, place = divmod(number, len(self))
        return int(np.random.default_rng((self.seed, round_, 1)).permutation(len(self))[place])

    def _corners(self, case: Case, random: np.random.Generator) -> list[Corner]:
        """Where the views of one volume begin."""
        corners = [self._corner(case, random)]
        while len(corners) < self.views:
            further = self._corner(case, random) if self.overlap is None else self._beside(case, corners[0], random)
            corners.append(further)
        return corners

    def _corner(self, case: Case, random: np.random.Generator) -> Corner:
        """A crop that holds a drawn voxel somewhere in its middle half."""
        points = self.store.image(case).points["body"]
        places = self._places(case) if self.labelled else []
        if places and random.random() < self.foreground:
            points = places[random.integers(len(places))]
        shape = np.array(self.store.image(case).shape)
        point = points[random.integers(len(points))] if len(points) else random.integers(shape)
        return self._within(case, point - random.uniform(0.25, 0.75, 3) * self.size)

    def _places(self, case: Case) -> list[Int[np.ndarray, "n 3"]]:
        """Some voxels of every class of a case, or of every connected part of one."""
        label = self.store.label(case)
        marked = label.parts if self.by_part else [(int(n), points) for n, points in sorted(label.points.items())]
        return [points for n, points in marked if self.classes is None or n in self.classes.names]

    def _beside(self, case: Case, first: Corner, random: np.random.Generator) -> Corner:
        """A crop that shares at least `overlap` of its voxels with the first."""
        reach = (1 - (self.overlap or 0) ** (1 / 3)) * np.array(self.size)
        return self._within(case, np.array(first) + np.trunc(random.uniform(-reach, reach)))

    def _within(self, case: Case, corner: Float[np.ndarray, "3"]) -> Corner:
        """The nearest whole corner that leaves the crop inside; a smaller volume comes to lie in the middle."""
        room = np.array(self.store.image(case).shape) - self.size
        i, j, k = np.where(room < 0, room // 2, np.clip(np.floor(corner), 0, np.maximum(room, 0))).astype(int).tolist()
        return i, j, k

    def _voxels(self, case: Case, corner: Corner) -> Float[np.ndarray, "c i j k"]:
        image = self.store.image(case)
        return self.recipe.apply(image.crop(corner, self.size), image.unit, image.deciles)

    def _label(self, case: Case, corner: Corner) -> Int[np.ndarray, "i j k"]:
        label = self.store.label(case).crop(corner, self.size)
        return label.astype(np.int64) if self.classes is None else self.classes.target(label)

    def _affine(self, case: Case, corner: Corner) -> Float[np.ndarray, "4 4"]:
        moved = np.eye(4)
        moved[:3, 3] = corner
        return (self.store.image(case).affine @ moved).astype(np.float32)


def _augmented(item: Item, how: Augment, random: np.random.Generator) -> Item:
    source = torch.Generator().manual_seed(int(random.integers(2**62)))
    labels = item.label if item.label is not None else [None] * len(item.x)
    done = [augment(how, x, label, source) for x, label in zip(item.x, labels, strict=True)]
    label = None if item.label is None else torch.stack([y for _, y in done if y is not None])
    return replace(item, x=torch.stack([x for x, _ in done]), label=label)


class Epochs(Sampler[int]):
    """Numbers the items of all epochs through, so that (epoch, place in it) is enough to go on exactly.

    With several processes each takes every `world`-th item.
    """

    def __init__(self, crops: int, *, epoch: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.crops, self.epoch, self.start, self.rank, self.world = crops, epoch, start, rank, world

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of another epoch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.crops, self.world))

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.crops
        return iter(range(first + self.start + self.rank, first + self.crops, self.world))
