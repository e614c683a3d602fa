"""Trains one cell of a sweep (arm, number of labels, seed) and evaluates it on the split `test`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from medssl import config
from medssl.data.ingest.read_source import read_source
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.evaluation.compare import read_scores
from medssl.evaluation.evaluate import match_lesions, select_evaluated_labels
from medssl.fewshot.lesion_scores import write_lesion_scores
from medssl.files import atomic_file, write_json, write_text
from medssl.metrics.case_scores import CaseScore, score_case, to_csv
from medssl.metrics.detection_scores import CaseDetections
from medssl.models.trained_model import TrainedModel, build_predictor, default_device
from medssl.predictions_folder import LabelDef
from medssl.render.figures import compare_labels, encode_png
from medssl.run import Run
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig

SCORES_FILE = "cases.csv"
CELL_FILE = "cell.json"
PICTURES = ("median", "worst")  # case by mean Dice; FOLDER/median.png and FOLDER/worst.png
IGNORED_KEYS = {"run", "manifest", "pretrained", "start_from", "continue_from", "resume", "limits"}

Structures = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class SweepCell:
    """One training of a sweep and the folder with its run and its scores.

    Args:
        arm: The name of the arm.
        num_labelled: The number of labelled volumes, without the factor of the arm.
        seed: The seed of the label subset and of the training.
        folder: The folder of the run, and of a row of scores for each test case and label once the cell is done.
        settings: The finetuning.
        tolerance_mm: The tolerance of the surface score NSD.
        workers: The number of cells that train at once on this machine and share its cores.
        lesions: The labels whose detection is evaluated too.
        structures: The classes of each class and region to score; a network that learns some classes lacks the others.
    """

    arm: str
    num_labelled: int
    seed: int
    folder: Path
    settings: FinetuneConfig
    tolerance_mm: float
    workers: int = 0
    lesions: tuple[str, ...] = ()
    structures: Structures = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in messages and reports."""
        return f"{self.arm}, {self.num_labelled} labelled, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether the scores of all structures that the network learns are written."""
        if not (self.folder / SCORES_FILE).is_file():
            return False
        learnt = self.settings.classes
        expected = {name for name, classes in self.structures.items() if not learnt or classes.issubset(learnt)}
        return not expected or {name for _, name in read_scores(self.folder, "dice")[0]} == expected

    def describe_score(self) -> str:
        """Returns the mean Dice as text."""
        return f"Dice {np.mean(list(read_scores(self.folder, 'dice')[0].values())):.3f}"


def run_cell(cell: SweepCell) -> str:
    """Trains and tests a cell, or resumes it; returns the error message, or an empty string on success."""
    logger = logging.getLogger("medssl.training")
    level = logger.level
    logger.setLevel(logging.WARNING)  # the report of each run holds these messages
    try:
        return _train_and_test(cell)
    finally:
        logger.setLevel(level)


def _train_and_test(cell: SweepCell) -> str:
    if cell.workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // cell.workers))
    run = Run(cell.settings.run)
    try:
        run = run if run.is_finished else finetune(cell.settings)
        rows, detected, pictures = evaluate_run(
            run, Manifest.read(cell.settings.manifest), cell.tolerance_mm, cell.lesions
        )
        if detected:
            write_lesion_scores(cell.folder, detected)
        for name, picture in select_pictures(rows, pictures).items():
            with atomic_file(cell.folder / f"{name}.png") as part:
                part.write_bytes(picture)
        count = None if cell.settings.num_labelled is None else cell.num_labelled
        facts = {"arm": cell.arm, "num_labelled": count, "seed": cell.seed}
        write_json(cell.folder / CELL_FILE, facts)
        write_text(cell.folder / SCORES_FILE, to_csv(rows))
    except (BadInput, OSError, RuntimeError, MemoryError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def find_outdated_settings(settings: FinetuneConfig, cases: Sequence[str]) -> list[str]:
    """Returns what differs between a finished run and the current settings, initial weights or labelled cases."""
    run, settings = Run(settings.run), settings.with_presets(len(cases))
    if not run.is_finished:
        return []
    changed = find_changed_settings(settings)
    if "task" not in changed and TrainedModel.from_run(run).task != settings.task:
        changed.append("task")
    start = _hash_of_start(settings)
    if start != "" and run.metadata.get("start_sha256", start) != start:
        changed.append("pretrained")
    return changed + ["choice of labelled volumes"] * (sorted(run.metadata["cases"]) != sorted(cases))


def find_changed_settings(settings: FinetuneConfig | PretrainConfig) -> list[str]:
    """Returns the keys in which a finished run differs from the current settings; paths and limits are not compared.

    Keys that an older run does not have count as their defaults. A run that is missing or unfinished has no
    differences here: resuming it compares its settings.
    """
    run = Run(settings.run)
    if not run.is_finished:
        return []
    previous = config.check(run.read_settings(), type(settings), str(run.path / "config.yaml"))
    return [
        name
        for name in type(settings).model_fields
        if name not in IGNORED_KEYS and getattr(settings, name) != getattr(previous, name)
    ]


def _hash_of_start(settings: FinetuneConfig) -> str | None:
    """Returns the hash of the initial weights; None without pretraining, "" if they do not exist yet."""
    if settings.pretrained is None:
        return None
    run = Run(settings.pretrained)
    return str(run.metadata["weights_sha256"]) if run.is_finished else ""


def describe_killed(cell: SweepCell) -> str:
    """Returns the message for a cell whose process was killed."""
    return (
        f"{cell.name}: its process was killed, most often for lack of memory; run it again with a smaller num_workers"
    )


def evaluate_run(
    run: Run, manifest: Manifest, tolerance_mm: float, lesions: Sequence[str] = ()
) -> tuple[list[CaseScore], dict[str, list[CaseDetections]], dict[str, bytes]]:
    """Evaluates a run on the labelled cases of the split `test`, on the grid of the scanner.

    Returns:
        A row for each case and each class or region annotated in it, for each label in `lesions` the detections of
        each case, and a picture of each case with its reference and its prediction.
    """
    references, predict = References.read(manifest.folder / "manifest.csv"), build_predictor(run, default_device())
    names = TrainedModel.from_run(run).labels
    rows: list[CaseScore] = []
    detected: dict[str, list[CaseDetections]] = {kind: [] for kind in lesions}
    pictures = {}
    for case in manifest.in_split("test").with_labels().cases:
        image = read_source(case, manifest)
        prediction, reference = predict(image, case.id), references.read_label(case.id, image)
        annotated = references.classes.present.get(case.id, list(names))
        pictures[case.id] = encode_png(compare_labels(image, reference, prediction.labels))
        for name, values in select_evaluated_labels(annotated, names, references).items():
            rows.append(score_case(case.id, case.patient, name, values, prediction.labels, reference, tolerance_mm))
            if name in detected:
                label = LabelDef(values[0], name, "")
                detected[name].append(
                    match_lesions(case.id, case.patient, label, prediction.labels, reference, prediction.findings)
                )
    return rows, detected, pictures


def select_pictures(rows: Sequence[CaseScore], pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the pictures of the median and of the worst case by the mean Dice over its labels."""
    by_case: dict[str, list[float]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row.dice)
    ranked = sorted(by_case, key=lambda case: (float(np.mean(by_case[case])), case))
    if not ranked:
        return {}
    return dict(zip(PICTURES, (pictures[ranked[(len(ranked) - 1) // 2]], pictures[ranked[0]]), strict=True))
