"""Names the classes of a store's labels and states which of them are annotated in each case."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int, Integer

from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput

IGNORE_INDEX = -1  # target value of a voxel without a known class
SIDES = {"left": "right", "l": "r", "lt": "rt", "lft": "rgt", "lh": "rh"}
OPPOSITE = SIDES | {right_name: left_name for left_name, right_name in SIDES.items()}


@dataclass(frozen=True)
class Classes:
    """Class names by label value, without background.

    Attributes:
        names: Label value -> name.
        ignore_label: Label value of unlabelled voxels (nnU-Net's "ignore" class), None if the store has none.
        present: Case id -> label values annotated in that case. Cases without an entry are annotated completely.
        regions: Name -> label values that together form the region.
        background_values: Values of classes that are not selected; targets hold background there.
    """

    names: Mapping[int, str]
    ignore_label: int | None = None
    present: Mapping[str, list[int]] = field(default_factory=dict)
    regions: Mapping[str, list[int]] = field(default_factory=dict)
    background_values: tuple[int, ...] = ()

    @classmethod
    def from_metadata(cls, metadata: StoreMetadata) -> "Classes":
        """Reads the classes from the metadata of a store."""
        ignore = next((n for n, name in metadata.labels.items() if name.casefold() == "ignore"), None)
        names = {n: name for n, name in metadata.labels.items() if n not in (0, ignore)}
        return cls(names, ignore, metadata.present_labels, metadata.regions)

    def select(self, names: Sequence[str]) -> "Classes":
        """Returns the classes with the given names, which keep their label values; all others become background.

        Raises:
            BadInput: A name is not a class.
        """
        if unknown := sorted(set(names) - set(self.names.values())):
            all_names = ", ".join(self.names.values())
            raise BadInput(f"classes: {', '.join(unknown)} is no class of this store; its classes are {all_names}")
        selected = {value: name for value, name in self.names.items() if name in names}
        return replace(self, names=selected, background_values=tuple(sorted(set(self.names) - set(selected))))

    @property
    def count(self) -> int:
        """Number of output channels of a network: the highest label value plus 1, for background and unused values."""
        return max(self.names) + 1

    def to_target(self, label: Integer[np.ndarray, "i j k"]) -> Int[np.ndarray, "i j k"]:
        """Converts a stored label to a training target, with IGNORE_INDEX at unlabelled voxels."""
        target = label.astype(np.int64)
        if self.background_values:
            target[np.isin(target, self.background_values)] = 0
        return target if self.ignore_label is None else np.where(target == self.ignore_label, IGNORE_INDEX, target)

    def annotation_mask(self, case: str) -> Bool[np.ndarray, "n"]:
        """Returns which classes are annotated in a case; background and unused label values count as annotated."""
        annotated = self.present.get(case, list(self.names))
        return np.array([n == 0 or n in annotated or n not in self.names for n in range(self.count)])

    def evaluation_mask(self, case: str) -> Bool[np.ndarray, "n"]:
        """Returns which classes are scored in a case: the annotated ones, without unused label values."""
        return self.annotation_mask(case) & np.array([n == 0 or n in self.names for n in range(self.count)])

    def find_left_right_pairs(self) -> tuple[tuple[int, int], ...] | None:
        """Finds the pairs of classes that a left-right mirror exchanges, by their names.

        Returns:
            The pairs of label values, or None if mirroring is not allowed: a sided class has no counterpart, or a
            case is annotated for one side of a pair only.
        """
        words = {n: _split_words(name) for n, name in self.names.items()}
        pairs = []
        for n, name_words in words.items():
            mirrored = [OPPOSITE.get(word, word) for word in name_words]
            partner = next((m for m in words if words[m] == mirrored), None)
            if partner is None:
                return None
            if n < partner:
                pairs.append((n, partner))
        one_sided = any((a in annotated) != (b in annotated) for annotated in self.present.values() for a, b in pairs)
        return None if one_sided else tuple(pairs)


def _split_words(name: str) -> list[str]:
    """Splits a name into lower-case words: LeftParotid, leftparotid and "parotid, left" have two each."""
    return [word.lower() for word in re.findall(r"(?i:left|right)|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
