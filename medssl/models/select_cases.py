"""Selects the unlabelled cases of a store to annotate next, from the features of a trained model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store
from medssl.errors import BadInput
from medssl.inference.case_selection import SelectedCase, case_embedding, case_uncertainty, rank_cases
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.models.trained_model import TrainedModel, build_predictor, load_trained_encoder
from medssl.run import Run


def select_cases(run: Run, manifest: Manifest, count: int, device: str = "cpu") -> list[SelectedCase]:
    """Returns the cases to annotate next, the most useful first.

    Args:
        run: A pretraining run, for the similarity of cases, or a finetuning run, for its uncertainty too.
        manifest: The cases to choose from. Labelled cases and cases that the run was trained on count as covered.
        count: The number of cases to select.
        device: The torch device that computes features.

    Raises:
        BadInput: Fewer than `count` cases are left, or `count` is below 1.
    """
    if count < 1:
        raise BadInput(f"{count} cases were requested; select at least one case")
    training_ids = set(run.metadata.get("cases", ()))
    covered = [case for case in manifest.cases if case.label or case.id in training_ids]
    unlabelled = [case for case in manifest.cases if case not in covered]
    if not unlabelled:
        raise BadInput(f"{manifest.folder}: all {len(covered)} cases have a label; ingest unlabelled ones")
    cases = [*covered, *unlabelled]
    features, uncertainty = _embed_cases(run, manifest, cases, device)
    return rank_cases(features, uncertainty, [case.id for case in cases], len(covered), count)


def _embed_cases(
    run: Run, manifest: Manifest, cases: Sequence[Case], device: str
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m"] | None]:
    """Returns the features of each case and, if the run predicts classes with voxel probabilities, its uncertainty."""
    network, store = TrainedModel.from_run(run), Store(manifest)
    trained = load_trained_encoder(run, device)
    encoder = TorchNetwork(lambda windows: trained(windows)[-1], device)
    predictor = build_predictor(run, device) if network.labels else None
    rows, uncertainties = [], []
    for case in cases:
        image = store.image(case)
        x = image.network_input(network.normalization).reshape(-1, *image.shape)
        rows.append(case_embedding(x, encoder, network.patch_size))
        if isinstance(predictor, Predictor):
            uncertainties.append(case_uncertainty(x, predictor.network, network.patch_size))
    return np.stack(rows), np.array(uncertainties) if uncertainties else None
