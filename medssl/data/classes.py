"""Classes: what the numbers in a store's labels mean, and in which cases each was drawn."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, Integer

from medssl.data.store import Card

UNKNOWN = -1  # the label of a voxel of which nothing is known
SIDES = {"left": "right", "l": "r", "lt": "rt", "lft": "rgt", "lh": "rh"}
OPPOSITE = SIDES | {right: left for left, right in SIDES.items()}


@dataclass(frozen=True)
class Classes:
    """Names by number, without background; `unlabelled` marks voxels that nobody labelled (nnU-Net's class "ignore").

    `present` lists the classes that were drawn in a case, where that is told; in other cases all were. `regions` are
    unions of classes that have a name.
    """

    names: Mapping[int, str]
    unlabelled: int | None = None
    present: Mapping[str, list[int]] = field(default_factory=dict)
    regions: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, card: Card) -> "Classes":
        """The classes of a store."""
        blank = next((n for n, name in card.labels.items() if name.casefold() == "ignore"), None)
        names = {n: name for n, name in card.labels.items() if n not in (0, blank)}
        return cls(names, blank, card.present_labels, card.regions)

    @property
    def count(self) -> int:
        """How many classes a network tells apart, background and gaps in the numbers included."""
        return max(self.names) + 1

    def target(self, label: Integer[np.ndarray, "i j k"]) -> Int[np.ndarray, "i j k"]:
        """Labels to learn from: UNKNOWN where nobody labelled."""
        known = label.astype(np.int64)
        return known if self.unlabelled is None else np.where(known == self.unlabelled, UNKNOWN, known)

    def drawn(self, case: str) -> Bool[np.ndarray, "n"]:
        """Which classes were drawn in a case, background among them."""
        told = self.present.get(case, list(self.names))
        return np.array([n == 0 or n in told or n not in self.names for n in range(self.count)])

    def measured(self, case: str) -> Bool[np.ndarray, "n"]:
        """Which classes a result is held against in a case: those drawn, without gaps in the numbers."""
        return self.drawn(case) & np.array([n == 0 or n in self.names for n in range(self.count)])

    def mirrored(self) -> tuple[tuple[int, int], ...] | None:
        """Classes that change places in a mirror, left with right; None if a side has no other or was drawn alone."""
        words = {n: _words(name) for n, name in self.names.items()}
        pairs = []
        for n, own in words.items():
            other = [OPPOSITE.get(word, word) for word in own]
            partner = next((m for m in words if words[m] == other), None)
            if partner is None:
                return None
            if n < partner:
                pairs.append((n, partner))
        alone = any((a in told) != (b in told) for told in self.present.values() for a, b in pairs)
        return None if alone else tuple(pairs)


def _words(name: str) -> list[str]:
    """A name's words in small letters: LeftParotid, leftparotid and "parotid, left" are two each."""
    return [word.lower() for word in re.findall(r"(?i:left|right)|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
