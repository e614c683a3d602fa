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
from jaxtyping import Float64, Int

from medssl.data import leaks
from medssl.data.atlas import Atlas, gathered, mean, sampled, spread
from medssl.data.classes import UNKNOWN, Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.relabelled import relabel
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.metrics.overlap import dice

Sums = Float64[np.ndarray, "n i j k"]
LEAST = 0.05  # of the voxels that could be brought to one of the atlas, without which nothing is known there


@dataclass(frozen=True)
class Propagated:
    """A store of the unlabelled cases with their propagated labels, and what its classes are.

    `agreement` is the mean Dice of the drawn labels and those that the other labelled volumes would give in their
    place; None of a single labelled volume, which has no other.
    """

    manifest: Manifest
    classes: Classes
    agreement: float | None


class Votes:
    """What the labelled cases `few` say of each voxel of an atlas, for those of the cases `rest` that lie in it."""

    def __init__(self, folder: Path, few: Manifest, rest: Manifest) -> None:
        self.atlas, self.few, self.store = Atlas(folder), few, Store(few)
        self.classes = Classes.of(Card.read(few.folder))
        self._check()
        self.rest = replace(rest, cases=tuple(case for case in rest.cases if self.atlas.holds(case)))
        if not self.rest.cases:
            raise BadInput(f"{folder}: no unlabelled case of {rest.folder} lies in this atlas; make it of that store")
        self.total: Sums = np.sum([self._of(case) for case in few.cases], axis=0)

    def write(self, out: Path) -> Propagated:
        """Writes a store of those cases with the labels they are given, to look at and to learn from."""
        blank = self.classes.count if self.classes.unlabelled is None else self.classes.unlabelled
        names = {**self.classes.names, blank: "ignore"}
        found = ((case, self.label(case, self.total)) for case in self.rest.cases)
        labels = ((case, np.where(label == UNKNOWN, blank, label)) for case, label in found)
        manifest = relabel(self.rest, names, labels, out)
        return Propagated(manifest, Classes.of(Card.read(out)), self.agreement())

    def seen(self, test: Manifest | None) -> list[leaks.Trace]:
        """What the atlas was made of; BadInput where cases of `test`, if given, are among it."""
        seen = leaks.traces(self.atlas.manifest)
        if test:
            leaks.refuse(seen, leaks.traces(test), (str(self.atlas.folder), f"the test cases of {test.folder}"))
        return seen

    def agreement(self) -> float | None:
        """Of each labelled volume and the others, the Dice of the classes that are there; its mean."""
        if len(self.few.cases) < 2:
            return None
        return float(np.mean([self._agreement(case) for case in self.few.cases]))

    def label(self, case: Case, total: Sums) -> Int[np.ndarray, "p q r"]:
        """What the sums of votes give a case, on its own grid; UNKNOWN where nobody knows."""
        places = self.atlas.places(case)
        back = spread(self.store.image(case).shape, places.shape[1:])
        at = np.stack([sampled(axis, back) for axis in places])
        count = total.sum(0)
        best, label = np.full(at.shape[1:], LEAST, np.float32), np.full(at.shape[1:], UNKNOWN, np.int64)
        for number, one in enumerate(total):
            share = sampled(mean(one, count).astype(np.float32), at)
            label[share > best] = number
            best = np.maximum(best, share)
        return label

    def _check(self) -> None:
        """Refuses labelled cases that do not lie in the atlas, or of which some class was not drawn."""
        where, cases = self.atlas.folder, self.few.cases
        if outside := [case.id for case in cases if not self.atlas.holds(case)]:
            said = f"{outside[0]} is labelled and does not lie in this atlas ({len(outside)} such cases)"
            raise BadInput(f"{where}: {said}; make it of {self.few.folder}, with --split train")
        for case in cases:
            drawn = self.classes.drawn(case.id)
            if lacking := [name for n, name in self.classes.names.items() if not drawn[n]]:
                said = f"{', '.join(lacking)} was not drawn, so that its label cannot be propagated"
                raise BadInput(f"{case.id}: {said}; label volumes in which all classes were, or give unlabelled=none")

    def _of(self, case: Case) -> Sums:
        """The votes of one volume: for each class, how many voxels of it were brought to each place."""
        places, told = self.atlas.places(case), self._drawn(case)
        back = spread(places.shape[1:], told.shape)
        shares = [sampled((told == number).astype(np.float32), back) for number in range(self.classes.count)]
        return gathered(np.stack(shares), places)

    def _drawn(self, case: Case) -> Int[np.ndarray, "i j k"]:
        return self.classes.target(self.store.label(case).volume().voxels)

    def _agreement(self, case: Case) -> float:
        drawn, others = self._drawn(case), self.label(case, self.total - self._of(case))
        known = drawn != UNKNOWN
        there = [n for n in self.classes.names if (drawn == n).any()]
        return float(np.mean([dice((others == n) & known, drawn == n) for n in there])) if there else 1.0
