"""Logs: the curves of a run, which go on where it stopped."""

import csv
import io
import warnings
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from medssl.files import write_text

FOLDER = "logs"
CURVES = "metrics.csv"


def loggers(folder: Path, last: Path) -> list[Logger]:
    """What logs into a run's folder; of a run that goes on from the checkpoint `last`, curves keep the steps before.

    Lightning's own logger would begin the file anew.
    """
    path = folder / FOLDER / CURVES
    kept = _before(path, last) if path.is_file() and last.is_file() else ""
    path.unlink(missing_ok=True)
    curves = CSVLogger(folder, name="", version=FOLDER)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Experiment logs directory", UserWarning)
        writer = curves.experiment
    if kept:
        write_text(path, kept)
        writer.metrics_keys = kept.partition("\n")[0].split(",")
    return [curves, TensorBoardLogger(folder, name="", version=FOLDER)]


def _before(path: Path, last: Path) -> str:
    """The table up to the steps that the checkpoint has taken; those after it are taken again.

    A row that was not written to its end is left out; of a table without its head nothing is kept.
    """
    taken, text = torch.load(last, weights_only=True, mmap=True)["global_step"], io.StringIO()
    rows = csv.DictReader(path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].splitlines())
    if "step" not in (rows.fieldnames or ()):
        return ""
    kept = csv.DictWriter(text, rows.fieldnames or (), lineterminator="\n")
    kept.writeheader()
    whole = (row for row in rows if None not in row and (row["step"] or "").isdecimal())
    kept.writerows(row for row in whole if int(row["step"]) < taken)
    return text.getvalue()
