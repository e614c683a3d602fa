"""Sends the curves and settings of a run to MLflow or Weights & Biases as well."""

import logging
import os
import warnings
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from medssl.errors import BadInput
from medssl.files import write_text
from medssl.run import Run

log = logging.getLogger(__name__)
PROJECT = "medssl"
ID_FILE = "tracker.txt"  # the name of the run in the tracker, under which a resumed training continues


class Tracker(Logger):
    """A logger whose failures are one warning: a training does not end because a tracker is away.

    Args:
        logger: The logger of the tracker.
        path: File for the name of the run in the tracker.
    """

    def __init__(self, logger: Logger, path: Path) -> None:
        super().__init__()
        self.logger, self.path = logger, path
        self.has_failed = False

    @property
    def name(self) -> str:
        """The name of the project in the tracker."""
        return PROJECT

    @property
    def version(self) -> str:
        """The name of the run in the tracker; empty before it is known."""
        return self.path.read_text() if self.path.is_file() else ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Sends settings."""
        self._try(lambda: self.logger.log_hyperparams(params))
        if not self.version:
            self._try(lambda: write_text(self.path, str(self.logger.version)))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Sends the values of a step."""
        self._try(lambda: self.logger.log_metrics(metrics, step))

    def finalize(self, status: str) -> None:
        """Ends the run in the tracker."""
        self._try(lambda: self.logger.finalize(status))
        if isinstance(self.logger, WandbLogger):
            self._try(self.logger.experiment.finish)

    def _try(self, action: Callable[[], object]) -> None:
        """Calls a function of the tracker, but none after the first that failed."""
        if self.has_failed:
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                action()
        except Exception as error:  # of whichever library speaks to the tracker
            self.has_failed = True
            log.warning("the tracker gets no more values: %s", " ".join(str(error).split()) or type(error).__name__)


def build_tracker(name: str, folder: Path) -> Tracker:
    """Returns the logger of a tracker, which gets the settings of a run and goes on where an earlier training stopped.

    MLflow writes to MLFLOW_TRACKING_URI, or else into the folder of the run. Weights & Biases writes into the folder of
    the run, for `wandb sync`, unless WANDB_MODE is "online".

    Args:
        name: "mlflow" or "wandb".
        folder: Folder of the run.

    Raises:
        BadInput: The package of the tracker is not installed.
    """
    if find_spec(name) is None:
        raise BadInput(f"train.tracker={name}: {name} is not installed; pip install 'medssl[{name}]'")
    path = folder / "logs" / ID_FILE
    path.parent.mkdir(exist_ok=True)
    earlier = path.read_text() if path.is_file() else None
    if name == "mlflow":
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(path.parent / 'mlflow.db').absolute()}"
        logger: Logger = MLFlowLogger(PROJECT, folder.name, tracking_uri=address, run_id=earlier)
    else:
        is_offline = os.environ.get("WANDB_MODE") != "online"
        logger = WandbLogger(folder.name, str(path.parent), project=PROJECT, offline=is_offline, id=earlier)
    tracker = Tracker(logger, path)
    tracker.log_hyperparams(Run(folder).read_settings())
    return tracker
