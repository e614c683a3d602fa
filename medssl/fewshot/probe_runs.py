"""Probes frozen features of runs on few labelled volumes, against the features of untrained networks."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.metrics.statistics import Interval, mean_interval
from medssl.models.trained_model import TrainedModel, load_trained_encoder
from medssl.run import Run
from medssl.training.callbacks.dense_probe import DenseProbe
from medssl.training.probes.head_features import build_head_features
from medssl.training.probes.linear import dense_probe_dice
from medssl.training.probes.neighbours import dense_knn_accuracy


@dataclass(frozen=True)
class ProbeScore:
    """One score of the features of a run.

    Args:
        trained: The mean score on features of the run, over draws.
        untrained: The same on features of untrained networks.
        difference: Their difference, with its interval over draws of labelled volumes and untrained networks.
    """

    trained: float
    untrained: float
    difference: Interval


@dataclass(frozen=True)
class FeatureScores:
    """The probes of some features of a run.

    Args:
        features: Where the features come from: all levels of the encoder, or the head at a depth.
        linear: The mean Dice of a linear head.
        knn: The accuracy of the k nearest neighbours, as the mean over classes.
    """

    features: str
    linear: ProbeScore
    knn: ProbeScore


def probe_run(run: Run, manifest: Manifest, num_labelled: int, num_draws: int) -> list[FeatureScores]:
    """Fits linear heads and nearest neighbours on frozen features of a run and scores them on other volumes.

    Args:
        run: A finished pretraining or finetuning.
        manifest: Cases of a store; heads are fitted on labelled cases of split train.
        num_labelled: Labelled volumes of a draw.
        num_draws: Draws of labelled volumes, each with an untrained network of its own.

    Returns:
        The scores of the encoder and, for a pretraining with a projection head, before the head and after each layer.

    Raises:
        BadInput: There are too few labelled cases, or those of a draw hold no class.
    """
    model, heads = TrainedModel.from_run(run), build_head_features(run)
    trained = [load_trained_encoder(run), *heads]
    names = ["encoder, all levels", *(_name_depth(depth) for depth in range(len(heads)))]
    draws = []
    for seed in range(num_draws):
        probe = DenseProbe.from_manifest(manifest, model, num_labelled, seed)
        untrained = [probe.untrained_encoder, *build_head_features(run, seed)]
        draws.append([_score_pair(probe, pair) for pair in zip(trained, untrained, strict=True)])
    scores = np.array(draws)  # draws, features, probes, trained and untrained
    if np.isnan(scores).any():
        raise BadInput(
            f"{manifest.folder}: {num_labelled} labelled volumes of a draw hold no class, or none that is scored; give"
            " more labelled volumes with --num-labelled"
        )
    return [
        FeatureScores(name, *(_summarize(scores[:, n, probe, 0], scores[:, n, probe, 1]) for probe in range(2)))
        for n, name in enumerate(names)
    ]


def _name_depth(depth: int) -> str:
    return f"after layer {depth} of the head" if depth else "before the head"


def _score_pair(probe: DenseProbe, pair: tuple[nn.Module, nn.Module]) -> list[list[float]]:
    """Returns the scores of the linear and of the kNN probe on trained and on untrained features."""
    measures = dense_probe_dice, dense_knn_accuracy
    return [[measure(features, probe.train, probe.test) for features in pair] for measure in measures]


def _summarize(trained: np.ndarray, untrained: np.ndarray) -> ProbeScore:
    """Returns the means over draws, and the mean of the differences with its interval."""
    return ProbeScore(float(trained.mean()), float(untrained.mean()), mean_interval((trained - untrained)[None]))
