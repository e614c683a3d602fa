"""Loggers: training curves in the folder of a run, continued when the run resumes, and means of their values."""

import csv
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor

from medssl.files import write_text
from medssl.nn.collectives import is_distributed
from medssl.training.processes.agreement import gather_values, is_main_process
from medssl.training.run_records.tracker import build_tracker

FOLDER = "logs"
CURVES = "metrics.csv"


def build_loggers(folder: Path, checkpoint: Path | None, tracker: str | None = None) -> list[Logger]:
    """Returns the CSV and TensorBoard loggers of a run, and its tracker; only the main process of a training logs.

    Lightning's CSV logger would start the file again. When the run resumes, this function therefore keeps the rows of
    the steps that the checkpoint contains.

    Args:
        folder: Folder of the run; curves go to its subfolder `logs`.
        checkpoint: Checkpoint to resume from, if there is one.
        tracker: Name of a tracker that `build_tracker` knows, if there is one.

    Raises:
        BadInput: The package of the tracker is not installed.
    """
    if not is_main_process():
        return []
    path = folder / FOLDER / CURVES
    earlier_rows = _read_rows_before(path, checkpoint) if path.is_file() and checkpoint else ""
    path.unlink(missing_ok=True)
    curves = CSVLogger(folder, name="", version=FOLDER)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Experiment logs directory", UserWarning)
        writer = curves.experiment
    if earlier_rows:
        write_text(path, earlier_rows)
        writer.metrics_keys = earlier_rows.partition("\n")[0].split(",")
    trackers = [build_tracker(tracker, folder)] if tracker else []
    return [curves, TensorBoardLogger(folder, name="", version=FOLDER), *trackers]


class EpochMeans:
    """Means of values over the batches of an epoch in all processes, which a checkpoint within the epoch contains.

    Values are weighted by the number of volumes in their batch; a name may be absent from a batch.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Float[Tensor, ""]], count: int) -> None:
        """Adds the values of a batch of `count` volumes."""
        for name, value in values.items():
            wide = value if value.dtype in (torch.float32, torch.float64) else value.float()
            self.totals[name] = self.totals.get(name, 0.0) + wide.detach() * count
            self.counts[name] = self.counts.get(name, 0) + count

    def pop(self) -> dict[str, Tensor]:
        """Returns the means over all processes, in all of them, and begins again."""
        state = self.state_dict()
        self.totals, self.counts = {}, {}
        return {name: total / state["counts"][name] for name, total in state["totals"].items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums and counts over all processes; called in all of them."""
        if not is_distributed():
            return {"totals": dict(self.totals), "counts": dict(self.counts)}
        merged = EpochMeans()
        for totals, counts in gather_values(({name: x.cpu() for name, x in self.totals.items()}, self.counts)):
            for name, total in totals.items():
                merged.totals[name] = merged.totals.get(name, 0.0) + total
                merged.counts[name] = merged.counts.get(name, 0) + counts[name]
        return {"totals": merged.totals, "counts": merged.counts}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores the state of `state_dict` in the main process; the others begin with nothing."""
        if is_main_process():
            self.totals, self.counts = dict(state_dict["totals"]), dict(state_dict["counts"])


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
