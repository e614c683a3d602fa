"""Folds: who is asked about a case: all runs together or, after a cross-validation, the one that held the case out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from medssl.data.ingest.read_source import Scan, scans, stored
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.inference.predictor import Prediction
from medssl.models.model_pool import Predict, provenance
from medssl.run import Run
from medssl.volume import Volume

HELD_OUT = "held-out"  # stands for a split: the labelled cases that runs of one cross-validation held out
DEALT = ("folds", "seed")
T = TypeVar("T")


@dataclass(frozen=True)
class Panel:
    """Finished finetunings; `owner` numbers the run that answers for a case, where not all do together."""

    runs: tuple[Run, ...]
    owner: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Sequence[Run], place: Path, split: str) -> "Panel":
        """Those to be asked about a split of the manifest at `place`, or about a folder of scans."""
        return cls(tuple(runs), _held_out(runs, place) if split == HELD_OUT else {})

    def scans(self, place: Path, split: str, modality: str = "") -> list[Scan]:
        """The cases that they are asked about."""
        if not self.owner:
            return scans(place, split, modality)
        manifest = Manifest.read(place)
        return stored(replace(manifest, cases=tuple(c for c in manifest.cases if c.id in self.owner)))

    def groups(self) -> list[tuple[Run, ...]]:
        """The runs that answer together."""
        return [(run,) for run in self.runs] if self.owner else [self.runs]

    def pick(self, of_group: Sequence[T], case: str) -> T:
        """Of one thing a group, that of the group which answers for a case."""
        return of_group[self.owner.get(case, 0)]

    def answers(self, cases: Sequence[str], run: int) -> list[str]:
        """The cases that a run answers for."""
        return [case for case in cases if self.owner.get(case, run) == run]

    def predict(self, volume: Volume, case: str, ways: Sequence[Predict]) -> Prediction:
        """What the group that answers for a case says, given a way to ask each group."""
        return self.pick(ways, case)(volume, case)

    def provenance(self) -> dict[str, Any]:
        """Which runs predicted and, where each has cases of its own, which: for the index of a predictions folder."""
        told = provenance(self.runs)
        if not self.owner:
            return told
        each = told.get("runs", [told])
        return told | {"runs": [one | {"cases": self.answers([*self.owner], n)} for n, one in enumerate(each)]}


def _held_out(runs: Sequence[Run], place: Path) -> dict[str, int]:
    """The run that held out each case; refused where they were not dealt the same way, or two of them the same fold."""
    if not place.is_file():
        raise BadInput(f"{place}: what runs held out is told by a store's manifest.csv; give it, or another --split")
    manifest, owner = Manifest.read(place), dict[str, int]()
    told = [run.settings() for run in runs]
    for number, (run, one) in enumerate(zip(runs, told, strict=True)):
        if not one.get("folds"):
            raise BadInput(f"{run.path}: held nothing out; finetune it with folds=5 fold=0, or choose another --split")
        if any(one[name] != told[0][name] for name in DEALT):
            raise BadInput(f"{run.path}: folds dealt otherwise (folds, seed) than those of {runs[0].path}")
        mine = [case.id for case in manifest.fold(one["fold"], one["folds"], one["seed"]).by("val").labelled().cases]
        if owner.keys() & set(mine):
            raise BadInput(f"{run.path}: fold {one['fold']} was given before; give one run a fold")
        owner |= dict.fromkeys(mine, number)
    return owner
