"""Chooses the volumes of a batch from different groups, such as clusters of similar volumes.

Chakraborty, Gosthipaty and Paul, "G-SimCLR: self-supervised contrastive learning with guided projection via pseudo
labelling" (2020), https://arxiv.org/abs/2009.12007. Deviation: groups may be of any size, and every volume is still
visited in every round, so that a batch holds two volumes of a group only if the group is too large to be spread.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from medssl.data.manifest import Manifest
from medssl.data.selection.case_groups import group_cases


@dataclass(frozen=True)
class SpreadBatches:
    """Batches that are spread over groups of volumes; which volume an item has is a pure function of seed and number.

    All volumes stand in a row, group by group. A batch takes volumes at equal distances from the row, so that no two
    are of one group unless the group has more than number of volumes / batch size members. Each round of batches has
    another order of the groups, of the volumes in them, and of the batches.

    Attributes:
        groups: The group of each volume.
        batch_size: The number of consecutive items that form a batch.
    """

    groups: tuple[int, ...]
    batch_size: int

    def find_case(self, number: int, seed: int) -> int:
        """Returns which volume an item has, in a time proportional to the number of volumes."""
        num_batches = -(-len(self.groups) // self.batch_size)
        batch, slot = divmod(number, self.batch_size)
        round_, place = divmod(batch, num_batches)
        rng = np.random.default_rng((seed, round_, 3))
        row = self._arrange(rng)
        first = rng.permutation(num_batches)[place]
        return int(row[(slot * num_batches + first) * len(row) // (self.batch_size * num_batches)])

    def _arrange(self, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
        """Returns the volumes group by group, in a random order of the groups and of the volumes of each."""
        ranks = rng.permutation(max(self.groups) + 1)[list(self.groups)]
        return np.lexsort((rng.random(len(ranks)), ranks))


def group_batches(manifest: Manifest, by: str | None, batch_size: int) -> SpreadBatches | None:
    """Returns batches that are spread over groups of cases, see `group_cases`; None without groups."""
    if by is None:
        return None
    groups = group_cases(manifest.cases, by)
    numbers = {name: number for number, name in enumerate(sorted(set(groups.values())))}
    return SpreadBatches(tuple(numbers[groups[case.id]] for case in manifest.cases), batch_size)
