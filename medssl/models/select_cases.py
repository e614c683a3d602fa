"""Suggesting: the cases of a store as a run sees them, and those it would have annotated next."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from medssl.data.manifest import Case, Manifest
from medssl.data.store import Store
from medssl.errors import BadInput
from medssl.inference.case_selection import Suggested, doubted, embedded, suggest
from medssl.inference.predictor import Predictor
from medssl.models.trained_model import Network, predictor
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run


def suggested(run: Run, manifest: Manifest, n: int, device: str = "cpu") -> list[Suggested]:
    """The next cases to annotate; labelled ones count as done, and so do those the run learnt from."""
    if n < 1:
        raise BadInput(f"--n {n}: at least one case")
    learnt = set(run.card.get("cases", ()))
    done = [case for case in manifest.cases if case.label or case.id in learnt]
    left = [case for case in manifest.cases if case not in done]
    if not left:
        raise BadInput(f"{manifest.folder}: every one of its {len(done)} cases has a label; ingest unlabelled ones")
    features, doubt = _seen(run, manifest, [*done, *left], device)
    return suggest(features, doubt, [case.id for case in [*done, *left]], len(done), n)


def _seen(
    run: Run, manifest: Manifest, cases: Sequence[Case], device: str
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m"] | None]:
    """Of every case its features, and the network's doubt where the run names classes."""
    network, store = Network.of(run), Store(manifest)
    body = network.body()
    transfer.load(run.weights, {"encoder": body})
    body = body.eval().to(device)
    tell = predictor(run, device) if network.labels else None
    rows, doubts = [], []
    for case in cases:
        image = store.image(case)
        x = image.input(network.recipe).reshape(-1, *image.shape)
        rows.append(embedded(x, lambda window: body(window)[-1], network.crop, device))
        if isinstance(tell, Predictor):
            doubts.append(doubted(x, tell.network, network.crop, device))
    return np.stack(rows), np.array(doubts) if doubts else None
