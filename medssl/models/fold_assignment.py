"""Assigns cases to runs: all runs together or, after a cross-validation, the run that held the case out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from medssl.data.ingest.read_source import ScanRef, list_scans, list_stored_scans
from medssl.data.manifest import Manifest
from medssl.data.selection.splits import assign_fold
from medssl.errors import BadInput
from medssl.inference.streaming.case_stream import Prediction
from medssl.models.model_pool import describe_runs
from medssl.models.prediction.prepared import PooledPredictor
from medssl.run import Run
from medssl.volume import Volume

HELD_OUT = "held-out"  # used as a split: the labelled cases that the runs of one cross-validation held out
FOLD_SETTINGS = ("num_folds", "seed")
T = TypeVar("T")


@dataclass(frozen=True)
class FoldAssignment:
    """Finished finetuning runs, and the cases that each of them predicts.

    `run_of_case` is the index in `runs` of the run that held a case out. It is empty if all runs predict every case
    together.
    """

    runs: tuple[Run, ...]
    run_of_case: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def for_split(cls, runs: Sequence[Run], source: Path, split: str) -> "FoldAssignment":
        """Assigns the cases of a source to runs.

        Args:
            runs: Finished finetuning runs.
            source: A store's manifest.csv, or a folder of scans.
            split: The name of a split, or `held-out`.

        Raises:
            BadInput: The split is `held-out`, and the runs are not different folds of one cross-validation.
        """
        return cls(tuple(runs), _match_cases_to_runs(runs, source) if split == HELD_OUT else {})

    def list_scans(self, source: Path, split: str, modality: str = "") -> list[ScanRef]:
        """Returns the scans to predict: those of the split or folder, or those that the runs held out."""
        if not self.run_of_case:
            return list_scans(source, split, modality)
        manifest = Manifest.read(source)
        return list_stored_scans(replace(manifest, cases=tuple(c for c in manifest.cases if c.id in self.run_of_case)))

    def run_groups(self) -> list[tuple[Run, ...]]:
        """Returns the groups of runs that predict together: one group of all runs, or one group per run."""
        return [(run,) for run in self.runs] if self.run_of_case else [self.runs]

    def group_for(self, per_group: Sequence[T], case: str) -> T:
        """Returns the item of the group that predicts a case, given one item per group of `run_groups`."""
        return per_group[self.run_of_case.get(case, 0)]

    def cases_for_run(self, cases: Sequence[str], run: int) -> list[str]:
        """Returns the cases that a run predicts."""
        return [case for case in cases if self.run_of_case.get(case, run) == run]

    def predict(self, volume: Volume, case: str, predictors: Sequence[PooledPredictor]) -> Prediction:
        """Predicts a case with the group it is assigned to, given one predictor per group."""
        return self.group_for(predictors, case)(volume, case)

    def describe_model(self) -> dict[str, Any]:
        """Returns the `model` field of a predictions index: the runs and, after a cross-validation, their cases."""
        model = describe_runs(self.runs)
        if not self.run_of_case:
            return model
        runs = model.get("runs", [model])
        return model | {
            "runs": [run | {"cases": self.cases_for_run([*self.run_of_case], n)} for n, run in enumerate(runs)]
        }


def _match_cases_to_runs(runs: Sequence[Run], source: Path) -> dict[str, int]:
    """Returns the index of the run that held out each labelled case."""
    if not source.is_file():
        raise BadInput(f"{source}: held-out cases are listed in a store's manifest.csv; give it, or another --split")
    manifest, run_of_case = Manifest.read(source), dict[str, int]()
    settings = [run.read_settings() for run in runs]
    for number, (run, config) in enumerate(zip(runs, settings, strict=True)):
        if not config.get("num_folds"):
            raise BadInput(
                f"{run.path}: held nothing out; finetune it with num_folds=5 fold=0, or choose another --split"
            )
        if any(config[name] != settings[0][name] for name in FOLD_SETTINGS):
            raise BadInput(f"{run.path}: its folds (num_folds, seed) differ from those of {runs[0].path}")
        fold = assign_fold(manifest, config["fold"], config["num_folds"], config["seed"])
        held_out = [case.id for case in fold.in_split("val").with_labels().cases]
        if run_of_case.keys() & set(held_out):
            raise BadInput(f"{run.path}: another run has fold {config['fold']} too; give one run per fold")
        run_of_case |= dict.fromkeys(held_out, number)
    return run_of_case
