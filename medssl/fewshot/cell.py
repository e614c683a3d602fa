"""Cell: one arm with one number of labels and one seed, trained, and scored on the split `test`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medssl import config
from medssl.data.ingest.read_source import read_source
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.evaluation.compare import read
from medssl.evaluation.evaluate import detect, measured_in
from medssl.fewshot import lesion_scores as found
from medssl.files import write_text
from medssl.metrics.case_scores import Row, score, table
from medssl.metrics.detection_scores import Detected
from medssl.models.trained_model import Network, fastest, predictor
from medssl.predictions_folder import Label
from medssl.run import Run
from medssl.training.finetune import Finetune, finetune
from medssl.training.pretrain import Pretrain

SCORES = "cases.csv"
PLACES = {"run", "manifest", "pretrained", "start_from", "continue_from", "resume"}


@dataclass(frozen=True)
class Cell:
    """What is trained, and the folder that holds its run and, once it is done, a row for every test case and label.

    `workers` cells train at once on this machine and share its cores; `structures` are what is to be scored.
    """

    arm: str
    labels: int
    seed: int
    folder: Path
    settings: Finetune
    tolerance_mm: float
    workers: int = 0
    lesions: tuple[str, ...] = ()
    structures: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.arm}, {self.labels} labelled, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether its scores are written, of all structures that are scored today."""
        if not (self.folder / SCORES).is_file():
            return False
        return not self.structures or {name for _, name in read(self.folder, "dice")[0]} == self.structures

    def said(self) -> str:
        """Its mean score in a word."""
        return f"Dice {np.mean(list(read(self.folder, 'dice')[0].values())):.3f}"


def work(cell: Cell) -> str:
    """Trains and tests a cell; returns why it could not be, or nothing. A cell killed midway goes on from there."""
    logging.getLogger(Finetune.__module__).setLevel(logging.WARNING)  # which tensors were taken is in each run's report
    if cell.workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // cell.workers))
    place = cell.settings.run
    try:
        run = Run(place) if Run(place).finished else finetune(cell.settings)
        rows, detected = tested(run, Manifest.read(cell.settings.manifest), cell.tolerance_mm, cell.lesions)
        if detected:
            found.write(cell.folder, detected)
        write_text(cell.folder / SCORES, table(rows))
    except (BadInput, OSError, RuntimeError, MemoryError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def stale(now: Finetune, cases: Sequence[str]) -> list[str]:
    """In what a finished run differs from the settings it would have now, and in what and whom it learnt from."""
    run, now = Run(now.run), now.filled(len(cases))
    if not run.finished:
        return []
    changed = altered(now)
    if "task" not in changed and Network.of(run).task != now.task:
        changed.append("task")
    start = _start(now)
    if start != "" and run.card.get("start_sha256", start) != start:
        changed.append("pretrained")
    return changed + ["choice of labelled volumes"] * (sorted(run.card["cases"]) != sorted(cases))


def altered(now: Finetune | Pretrain) -> list[str]:
    """The settings in which a finished run differs from what is asked now; where things lie may have changed.

    Settings that a run of an older version does not have stood as they do by default. A run that is not there or goes
    on is none that differs: resuming it looks at that.
    """
    run = Run(now.run)
    if not run.finished:
        return []
    then = config.check(run.settings(), type(now), str(run.path / "config.yaml"))
    return [name for name in type(now).model_fields if name not in PLACES and getattr(now, name) != getattr(then, name)]


def _start(settings: Finetune) -> str | None:
    """The hash of the weights that a training starts from; "" where they are not there yet."""
    if settings.pretrained is None:
        return None
    there = Run(settings.pretrained)
    return str(there.card["weights_sha256"]) if there.finished else ""


def dead(cell: Cell) -> str:
    """What is said of a cell whose process died."""
    return f"{cell.name}: its process was killed, most often for want of memory; run it again with fewer workers"


def tested(
    run: Run, manifest: Manifest, tolerance_mm: float, lesions: Sequence[str] = ()
) -> tuple[list[Row], dict[str, list[Detected]]]:
    """A row for every labelled test case and every class or region drawn in it, and what was found of `lesions`.

    All on the scanner's grid.
    """
    references, predict = References.read(manifest.folder / "manifest.csv"), predictor(run, fastest())
    names = Network.of(run).labels
    rows: list[Row] = []
    detected: dict[str, list[Detected]] = {kind: [] for kind in lesions}
    for case in manifest.by("test").labelled().cases:
        image = read_source(case, manifest)
        said, reference = predict(image, case.id), references.label(case.id, image)
        drawn = references.classes.present.get(case.id, list(names))
        for name, values in measured_in(drawn, names, references).items():
            rows.append(score(case.id, case.patient, name, values, said.labels, reference, tolerance_mm))
            if name in detected:
                kind = Label(values[0], name, "")
                detected[name].append(detect(case.id, case.patient, kind, said.labels, reference, said.findings))
    return rows, detected
