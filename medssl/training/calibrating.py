"""Calibrating: finished runs, measured on labelled cases that they were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.data import leaks
from medssl.data.references import References
from medssl.data.sources import volumes
from medssl.errors import BadInput
from medssl.predict.calibrate import Fitted, Read, compared, rescored, sampled, scored_by, tempered_by, thresholds
from medssl.predict.calibration import weights
from medssl.predict.ensemble import Ensemble
from medssl.predict.evaluation import lesion_labels
from medssl.predict.folder import labels
from medssl.run import Run
from medssl.training.members import agreed, pooled, together


@dataclass(frozen=True)
class Held:
    """Labelled cases of a store that runs are measured on, and how each is read."""

    references: References
    cases: tuple[tuple[str, Read], ...]

    @classmethod
    def of(cls, manifest: Path, split: str, runs: Sequence[Run], allow_overlap: bool) -> "Held":
        """The labelled cases of a split; refused where a run was trained on any of them."""
        references = References.read(manifest)
        read = dict(volumes(manifest, split, ""))
        names = references.measured(list(read))
        if not names:
            raise BadInput(f"{manifest}: no labelled case in split {split!r}; choose another --split")
        for run in () if allow_overlap else runs:
            leaks.refuse_seen(run.path, manifest, names)
        return cls(references, tuple((name, read[name]) for name in names))


def calibrate(runs: Sequence[Run], held: Held, lesions: str, sensitivity: float, mirror: bool, device: str) -> Fitted:
    """What makes voxels or findings mean what they say; then a threshold for the findings of each lesion."""
    known = labels(agreed(runs).labels)
    kinds = lesion_labels(known, lesions, runs[0].path)
    pool = pooled(runs, mirror, device)
    if isinstance(pool, Ensemble):
        fitted = _tempered(pool, held)
        predict = together(runs, mirror, fitted.calibration, device)
        found = list(compared(predict, held.cases, held.references, kinds)) if kinds else []
    else:
        raw = list(compared(pool, held.cases, held.references, known))
        fitted = scored_by(raw)
        found = rescored(raw, fitted.calibration.score)
    facts = {"weights_sha256": weights(runs), "mirror": mirror, "cases": tuple(name for name, _ in held.cases)}
    told = fitted.calibration.model_copy(update=facts | {"thresholds": thresholds(found, kinds, sensitivity)})
    return replace(fitted, calibration=told)


def _tempered(pool: Ensemble, held: Held) -> Fitted:
    """Measured on cases of which every class was drawn: elsewhere, what is background is not known."""
    every = set(pool.members[0].names)
    samples = []
    for name, read in held.cases:
        if every <= set(held.references.classes.present.get(name, every)):
            volume = read()
            samples.append(sampled(pool, volume, held.references.label(name, volume)))
    if not samples:
        raise BadInput(f"{held.references.place}: in none of these cases every class was drawn; calibrate on others")
    return tempered_by(samples)
