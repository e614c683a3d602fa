"""Chooses between the labels alone and a semi-supervised method, by cross-validation on the labelled volumes.

With one labelled patient nothing can be left out, and the labels alone are taken. How well the warped volume correlates
with the other scans around its structures decides nothing: on head-and-neck CT it was as high (0.89 to 0.93) as on the
hippocampus (0.87), where propagated labels are right.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.files import write_checksums
from medssl.training.label_subset import LabelSubset
from medssl.training.processes.agreement import call_on_main
from medssl.training.semi_supervised.config import SemiSupervisedConfig

log = logging.getLogger(__name__)
MAX_FOLDS = 4  # patients who are left out, one at a time

# Trains on the manifest of a fold with a method, into a folder, and returns the Dice on split val.
FoldTraining = Callable[[Path, SemiSupervisedConfig, Path], float]


@dataclass(frozen=True)
class MethodChoice:
    """The method that `method=auto` takes, and why.

    Attributes:
        method: The method.
        reason: The figures it was chosen by, as a sentence.
        dice: Dice of each method on each patient who was left out; empty with one labelled patient.
    """

    method: SemiSupervisedConfig
    reason: str
    dice: Mapping[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """Returns the choice as values that JSON can store."""
        return asdict(replace(self, method=SemiSupervisedConfig())) | {"method": self.method.method}


def folds_folder(run: Path) -> Path:
    """Returns the folder of the folds by which a finetuning chooses its method: RUN-auto."""
    return run.with_name(f"{run.name}-auto")


def list_fold_runs(run: Path) -> list[Path]:
    """Returns the runs by which a finetuning chose its method."""
    return sorted(folds_folder(run).glob("fold*-*"))


def choose_method(
    config: SemiSupervisedConfig, subset: LabelSubset, train_fold: FoldTraining, folder: Path
) -> MethodChoice:
    """Chooses the method that `method=auto` stands for.

    A method is taken if its mean gain over the labels alone, minus the standard error over the patients who were left
    out, is above 0; with two patients, this is a gain for both.

    Args:
        config: Settings with method=auto; with an atlas, the candidate is label propagation, else a mean teacher.
        subset: Labelled and unlabelled volumes.
        train_fold: Trains and validates one fold.
        folder: Where folds and their runs are written; finished ones are not trained again.
    """
    alone = config.model_copy(update={"method": "none", "atlas": None})
    candidate = config.model_copy(update={"method": "label-propagation" if config.atlas else "mean-teacher"})
    patients = list(dict.fromkeys(case.patient for case in subset.labelled.cases))
    if len(patients) == 1:
        reason = (
            f"one labelled patient, so that {candidate.method} cannot be checked; label a second one, or name a method"
        )
        choice = MethodChoice(alone, reason, {})
    else:
        dice: dict[str, list[float]] = {alone.method: [], candidate.method: []}
        for number, patient in enumerate(patients[:MAX_FOLDS]):
            manifest = call_on_main(partial(write_fold, subset, patient, folder / f"fold{number}"))
            for method in (alone, candidate):
                dice[method.method].append(train_fold(manifest, method, folder / f"fold{number}-{method.method}"))
        choice = choose_by_gain(alone, candidate, dice)
    log.info("semi_supervised=auto takes %s: %s", choice.method.method, choice.reason)
    return choice


def choose_by_gain(
    alone: SemiSupervisedConfig, candidate: SemiSupervisedConfig, dice: Mapping[str, list[float]]
) -> MethodChoice:
    """Returns the candidate if its gain exceeds its standard error, else the labels alone."""
    gains = np.subtract(dice[candidate.method], dice[alone.method])
    mean, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    reason = f"{candidate.method} gains {mean:+.3f} Dice (standard error {error:.3f}) on {len(gains)} patients left out"
    return MethodChoice(candidate if mean - error > 0 else alone, reason, dice)


def write_fold(subset: LabelSubset, patient: str, out: Path) -> Path:
    """Writes a store that refers to the volumes of a subset, with the labelled ones of a patient as split val.

    Returns:
        The path of its manifest.
    """
    out.mkdir(parents=True, exist_ok=True)

    def move(case: Case, split: str) -> Case:
        source = subset.labelled
        label = os.path.relpath(source.label_path(case), out) if case in source.cases else None
        return replace(case, image=os.path.relpath(source.path(case), out), label=label, split=split)

    labelled = [move(case, "val" if case.patient == patient else "train") for case in subset.labelled.cases]
    unlabelled = [move(case, "train") for case in subset.unlabelled.cases if case.patient != patient]
    StoreMetadata.read(subset.labelled.folder).write(out)
    Manifest((*labelled, *unlabelled), out).write(out / "manifest.csv")
    write_checksums(out, ("store.json", "manifest.csv"))
    return out / "manifest.csv"
