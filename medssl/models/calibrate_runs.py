"""Calibrating: finished runs, measured on labelled cases that they were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medssl.data.checks import leakage as leaks
from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.calibration_fit import (
    Fitted,
    Read,
    compared,
    rescored,
    sampled,
    scored_by,
    tempered_by,
    thresholds,
)
from medssl.evaluation.evaluate import lesion_labels
from medssl.inference.calibration import Threshold, weights
from medssl.inference.ensemble import Ensemble
from medssl.inference.prediction_writer import labels
from medssl.models.fold_assignment import Panel
from medssl.models.model_pool import agreed, pooled, together
from medssl.run import Run


@dataclass(frozen=True)
class Held:
    """Labelled cases of a store, how each is read, and the runs that are measured on it."""

    panel: Panel
    references: References
    cases: tuple[tuple[str, Read], ...]

    @classmethod
    def of(cls, manifest: Path, split: str, runs: Sequence[Run], allow_overlap: bool) -> "Held":
        """The labelled cases of a split; refused where a run was trained on what it is measured on."""
        if split == "test" and not allow_overlap:
            raise BadInput(f"{manifest}: what split 'test' sets cannot be tested on it; choose another --split")
        references, panel = References.read(manifest), Panel.of(runs, manifest, split)
        read = {scan.case: scan.read for scan in panel.scans(manifest, split)}
        names = references.measured(list(read))
        if not names:
            raise BadInput(f"{manifest}: no labelled case in split {split!r}; choose another --split")
        for number, run in enumerate(() if allow_overlap else runs):
            leaks.refuse_seen(run.path, manifest, panel.answers(names, number))
        return cls(panel, references, tuple((name, read[name]) for name in names))


def calibrate(held: Held, lesions: str, sensitivity: float, mirror: bool, device: str) -> Fitted:
    """What makes voxels or findings mean what they say; then a threshold for the findings of each lesion."""
    runs = held.panel.runs
    known = labels(agreed(runs).labels)
    kinds = lesion_labels(known, lesions, runs[0].path)
    pools = [pooled(group, mirror, device) for group in held.panel.groups()]
    dense = [pool for pool in pools if isinstance(pool, Ensemble)]
    if dense:
        fitted = _tempered(dense, held)
        ways = [together(group, mirror, fitted.calibration, device) for group in held.panel.groups()]
        ask = partial(held.panel.predict, ways=ways)
        found = list(compared(ask, held.cases, held.references, kinds)) if kinds else []
    else:
        ask = partial(held.panel.predict, ways=pools)
        raw = list(compared(ask, held.cases, held.references, known))
        fitted = scored_by(raw)
        found = rescored(raw, fitted.calibration.score)
    facts = {"weights_sha256": weights(runs), "mirror": mirror, "cases": tuple(name for name, _ in held.cases)}
    told = {name: _estimate(one, held.panel) for name, one in thresholds(found, kinds, sensitivity).items()}
    return replace(fitted, calibration=fitted.calibration.model_copy(update=facts | {"thresholds": told}))


def _estimate(told: Threshold, panel: Panel) -> Threshold:
    """Of runs that each answered for what it held out, no promise can be made about what they say together."""
    if len(panel.groups()) == 1:
        return told
    said = f"at least {told.sensitivity:.0%} of their lesions scored {told.threshold:.3g} or more"
    each = f"Of the {told.patients} patients with lesions, each asked of the run that held them out, {said}"
    return told.model_copy(update={"promise": f"{each}: an estimate, and no promise, for the runs together."})


def _tempered(pools: Sequence[Ensemble], held: Held) -> Fitted:
    """Measured on cases of which every class was drawn: elsewhere, what is background is not known."""
    every = set(pools[0].members[0].names)
    samples = []
    for name, read in held.cases:
        if every <= set(held.references.classes.present.get(name, every)):
            volume = read()
            samples.append(sampled(held.panel.pick(pools, name), volume, held.references.label(name, volume)))
    if not samples:
        raise BadInput(f"{held.references.place}: in none of these cases every class was drawn; calibrate on others")
    return tempered_by(samples)
