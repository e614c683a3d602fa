"""Loggers: training curves in the folder of a run, continued when the run resumes."""

import csv
import io
import warnings
from pathlib import Path

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from medssl.files import write_text

FOLDER = "logs"
CURVES = "metrics.csv"


def build_loggers(folder: Path, checkpoint: Path) -> list[Logger]:
    """Returns the CSV and TensorBoard loggers of a run.

    Lightning's CSV logger would start the file again. When the run resumes, this function therefore keeps the rows of
    the steps that the checkpoint contains.

    Args:
        folder: Folder of the run; curves go to its subfolder `logs`.
        checkpoint: Checkpoint to resume from, if the file exists.
    """
    path = folder / FOLDER / CURVES
    earlier_rows = _read_rows_before(path, checkpoint) if path.is_file() and checkpoint.is_file() else ""
    path.unlink(missing_ok=True)
    curves = CSVLogger(folder, name="", version=FOLDER)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Experiment logs directory", UserWarning)
        writer = curves.experiment
    if earlier_rows:
        write_text(path, earlier_rows)
        writer.metrics_keys = earlier_rows.partition("\n")[0].split(",")
    return [curves, TensorBoardLogger(folder, name="", version=FOLDER)]


def _read_rows_before(path: Path, checkpoint: Path) -> str:
    """Returns the CSV text up to the steps of the checkpoint, without incomplete rows; "" for a damaged header."""
    num_steps = torch.load(checkpoint, weights_only=True, mmap=True)["global_step"]
    rows = csv.DictReader(path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].splitlines())
    if "step" not in (rows.fieldnames or ()):
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows.fieldnames or (), lineterminator="\n")
    writer.writeheader()
    complete = (row for row in rows if None not in row and (row["step"] or "").isdecimal())
    writer.writerows(row for row in complete if int(row["step"]) < num_steps)
    return text.getvalue()
