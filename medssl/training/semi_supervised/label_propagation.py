"""Propagated labels: those of a few volumes, carried over an atlas to all others that lie in it.

Multi-atlas segmentation, of which Iglesias and Sabuncu, "Multi-atlas segmentation of biomedical images: a survey"
(2015), https://doi.org/10.1016/j.media.2015.06.012: every labelled volume votes, by the mean. That a network learns
from such labels beside drawn ones is from Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image
registration and segmentation" (MICCAI 2019), https://arxiv.org/abs/1904.08465. Deviation: the registration comes first
and is not learnt, and goes over one atlas, so that each scan is registered once, whichever volumes are labelled.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

from medssl.data.classes import UNKNOWN, Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.registration.atlas import Atlas, gathered, mean, sampled, spread, stretched
from medssl.data.relabel import relabel
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.files import atomic
from medssl.metrics.overlap import dice
from medssl.render.figures import around, png

Sums = Float64[np.ndarray, "2 n i j k"]
Shares = Float32[np.ndarray, "n i j k"]
DRAWN = 3  # cases, to be looked at
LEAST = 0.05  # how surely somebody labelled what is brought to a voxel of the atlas, without which nothing is known


@dataclass(frozen=True)
class Propagated:
    """A store of the unlabelled cases with their propagated labels, and what its classes are.

    `agreement` is the mean Dice of the drawn labels and those that the other labelled volumes would give in their
    place, over volumes and classes; None of a single labelled volume, which has no other.
    """

    manifest: Manifest
    classes: Classes
    agreement: float | None

    def draw(self, folder: Path) -> None:
        """A picture of each of the first cases: the three planes through the middle of what is labelled."""
        shelf = Store(self.manifest)
        for case in self.manifest.cases[:DRAWN]:
            image, label = shelf.image(case).volume(), shelf.label(case).volume()
            first = replace(image, voxels=image.voxels.reshape(-1, *image.shape)[0].astype(np.float32))
            named = np.isin(label.voxels, list(self.classes.names))
            middle = np.argwhere(named).mean(0) if named.any() else np.array(image.shape) / 2
            said = around(first, tuple(image.to_mm(middle)), replace(label, voxels=label.voxels * named))
            with atomic(folder / f"propagated_to_{case.id}.png") as part:
                part.write_bytes(png(said))


class Votes:
    """What the labelled cases `few` say of each voxel of an atlas, for those of the cases `rest` that lie in it.

    Of a class only those vote in which it was drawn. `total` counts the voxels that were brought to each of the atlas:
    first those of each class, then those of which it was asked.
    """

    def __init__(self, folder: Path, few: Manifest, rest: Manifest) -> None:
        self.atlas, self.few, self.store = Atlas(folder), few, Store(few)
        self.classes = Classes.of(Card.read(few.folder))
        self._check()
        self.rest = replace(rest, cases=tuple(case for case in rest.cases if self.atlas.holds(case)))
        if not self.rest.cases:
            raise BadInput(f"{folder}: no unlabelled case of {rest.folder} lies in this atlas; make it of that store")
        self.total: Sums = sum((self._of(case) for case in few.cases), start=np.zeros(()))

    def write(self, out: Path) -> Propagated:
        """Writes a store of those cases with the labels they are given, to look at and to learn from."""
        blank = self.classes.count if self.classes.unlabelled is None else self.classes.unlabelled
        names = {**self.classes.names, blank: "ignore"}
        shares = shared(self.total)
        found = ((case, self.label(case, shares)) for case in self.rest.cases)
        labels = ((case, np.where(label == UNKNOWN, blank, label)) for case, label in found)
        told = np.any([self.classes.drawn(case.id) for case in self.few.cases], axis=0)
        manifest = relabel(self.rest, names, labels, out, drawn=[n for n in self.classes.names if told[n]])
        return Propagated(manifest, Classes.of(Card.read(out)), self.agreement())

    def agreement(self) -> float | None:
        """Of each labelled volume and the others, the Dice of the classes that are there; its mean."""
        found = [score for case in self.few.cases for score in self._agreement(case)]
        return float(np.mean(found)) if found else None

    def label(self, case: Case, shares: Shares) -> Int[np.ndarray, "p q r"]:
        """What the votes give a case, on its own grid; UNKNOWN where nobody knows."""
        at = stretched(self.atlas.places(case), self.store.image(case).shape)
        best = sampled(1 - np.sum(shares[1:], axis=0), at)  # what is of no class is background
        label = np.zeros(best.shape, np.int64)
        for number, share in enumerate(shares[1:], 1):
            here = sampled(share, at)
            label[here > best] = number
            best = np.maximum(best, here)
        label[sampled(shares[0], at) <= LEAST] = UNKNOWN
        return label

    def _check(self) -> None:
        """Refuses labelled cases that do not lie in the atlas."""
        where = self.atlas.folder
        if outside := [case.id for case in self.few.cases if not self.atlas.holds(case)]:
            said = f"{outside[0]} is labelled and does not lie in this atlas ({len(outside)} such cases)"
            raise BadInput(f"{where}: {said}; make it of {self.few.folder}, with --split train")

    def _of(self, case: Case) -> Sums:
        """The votes of one volume: for each class, how many voxels of it were brought to each place."""
        places, told = self.atlas.places(case), self._drawn(case)
        back = spread(places.shape[1:], told.shape)
        said = [sampled((told == number).astype(np.float32), back) for number in range(self.classes.count)]
        known = sampled((told != UNKNOWN).astype(np.float32), back)
        asked = [known * drawn for drawn in self.classes.drawn(case.id)]
        return np.stack([gathered(np.stack(kind), places) for kind in (said, asked)])

    def _drawn(self, case: Case) -> Int[np.ndarray, "i j k"]:
        return self.classes.target(self.store.label(case).volume().voxels)

    def _agreement(self, case: Case) -> list[float]:
        """The Dice of each class that is there and that others tell of."""
        total = self.total - self._of(case)
        drawn, others = self._drawn(case), self.label(case, shared(total))
        known = drawn != UNKNOWN
        there = [n for n in self.classes.names if (drawn == n).any() and total[1, n].max() > LEAST]
        return [dice((others == n) & known, drawn == n) for n in there]


def shared(total: Sums) -> Shares:
    """For each voxel of an atlas whether anybody knows it, and then which share of its votes each class has."""
    said, asked = total
    pairs = zip((asked[0], *said[1:]), asked, strict=True)
    return np.stack([mean(*one) for one in pairs]).astype(np.float32)
