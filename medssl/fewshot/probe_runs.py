"""Probes frozen features: Dice of linear heads fitted on few labelled volumes, against untrained encoders."""

from dataclasses import dataclass

import numpy as np

from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.metrics.statistics import Interval, mean_interval
from medssl.models.trained_model import TrainedModel, load_trained_encoder
from medssl.run import Run
from medssl.training.callbacks.dense_probe import DenseProbe


@dataclass(frozen=True)
class ProbeScore:
    """The probe of one run.

    Args:
        trained: The mean Dice on features of the run, over draws.
        untrained: The same on features of untrained encoders.
        difference: Their difference, with its interval over draws of labelled volumes and untrained encoders.
    """

    trained: float
    untrained: float
    difference: Interval


def probe_run(run: Run, manifest: Manifest, num_labelled: int, num_draws: int) -> ProbeScore:
    """Fits linear heads on frozen features of a run and scores them on other volumes.

    Args:
        run: A finished pretraining or finetuning.
        manifest: Cases of a store; heads are fitted on labelled cases of split train.
        num_labelled: Labelled volumes of a draw.
        num_draws: Draws of labelled volumes, each with an untrained encoder of its own.

    Raises:
        BadInput: There are too few labelled cases, or those of a draw hold no class.
    """
    model, encoder = TrainedModel.from_run(run), load_trained_encoder(run)
    draws = [DenseProbe.from_manifest(manifest, model, num_labelled, seed).score(encoder) for seed in range(num_draws)]
    trained, untrained = (np.array([draw[name] for draw in draws]) for name in ("probe_dice", "probe_dice_random"))
    if np.isnan(trained).any():
        raise BadInput(
            f"{manifest.folder}: {num_labelled} labelled volumes of a draw hold no class, or none that is scored; give"
            " more labelled volumes with --num-labelled"
        )
    return ProbeScore(float(trained.mean()), float(untrained.mean()), mean_interval((trained - untrained)[None]))
