"""Selects the unlabelled cases of a store to annotate next, from the features of a trained model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medssl.data.ingest.read_source import read_source
from medssl.data.manifest import Case, Manifest
from medssl.data.selection.label_slices import find_slice_axis
from medssl.data.store import Store
from medssl.errors import BadInput
from medssl.inference.case_selection import SelectedCase, case_embedding, case_uncertainty, rank_cases, select_slices
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


def locate_slices(
    run: Run, manifest: Manifest, case_ids: Sequence[str], count: int, device: str = "cpu"
) -> dict[str, list[int]]:
    """Returns the slices of each case to annotate: those that represent all of its slices best.

    Slices are numbered from 1 along the axis of the scanner's grid with the longest voxel edge.

    Args:
        run: A run, for the similarity of slices.
        manifest: The cases, with their sources.
        case_ids: The cases to choose slices of.
        count: The number of slices of each case.
        device: The torch device that computes features.

    Raises:
        BadInput: A case has fewer slices, or its source is not at its place.
    """
    network, store, encoder = TrainedModel.from_run(run), Store(manifest), _load_coarsest(run, device)
    case_by_id = {case.id: case for case in manifest.cases}
    slices = {}
    for case_id in case_ids:
        case = case_by_id[case_id]
        image, source, axis = store.image(case), read_source(case, manifest), find_slice_axis(case.spacing_mm)
        x = image.network_input(network.normalization).reshape(-1, *image.shape)
        middles = np.tile((np.array(image.shape) - 1) / 2, (count, 1))
        middles[:, axis] = select_slices(x, encoder, network.patch_size, axis, count)
        source_axis = find_slice_axis(source.spacing_mm())
        places = source.to_index(middles @ image.affine[:3, :3].T + image.affine[:3, 3])[:, source_axis]
        numbers = places.round().clip(0, source.shape[source_axis] - 1).astype(int) + 1
        slices[case_id] = sorted(set(numbers.tolist()))
    return slices


def _load_coarsest(run: Run, device: str) -> TorchNetwork:
    """Returns a network that computes the coarsest feature map of windows."""
    trained = load_trained_encoder(run, device)
    return TorchNetwork(lambda windows: trained(windows)[-1], device)


def _embed_cases(
    run: Run, manifest: Manifest, cases: Sequence[Case], device: str
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m"] | None]:
    """Returns the features of each case and, if the run predicts classes with voxel probabilities, its uncertainty."""
    network, store, encoder = TrainedModel.from_run(run), Store(manifest), _load_coarsest(run, device)
    predictor = build_predictor(run, device) if network.labels else None
    rows, uncertainties = [], []
    for case in cases:
        image = store.image(case)
        x = image.network_input(network.normalization).reshape(-1, *image.shape)
        rows.append(case_embedding(x, encoder, network.patch_size))
        if isinstance(predictor, Predictor):
            uncertainties.append(case_uncertainty(x, predictor.network, network.patch_size))
    return np.stack(rows), np.array(uncertainties) if uncertainties else None
