"""Calibrating: finished runs, measured on labelled cases that they were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.data import leaks
from medssl.data.references import References
from medssl.data.sources import volumes
from medssl.errors import BadInput
from medssl.predict.calibrate import Read, sampled, tempered_by, thresholds
from medssl.predict.calibration import Calibration, weights
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


def calibrate(
    runs: Sequence[Run], held: Held, lesions: str, sensitivity: float, mirror: bool, device: str
) -> Calibration:
    """The temperature where the runs give every voxel a class; then a threshold for the findings of each lesion."""
    kinds = lesion_labels(labels(agreed(runs).labels), lesions, runs[0].path)
    pool = pooled(runs, mirror, device)
    found = _tempered(pool, held) if isinstance(pool, Ensemble) else Calibration()
    found = found.model_copy(
        update={"weights_sha256": weights(runs), "mirror": mirror, "cases": tuple(name for name, _ in held.cases)}
    )
    if not kinds:
        return found
    told = thresholds(together(runs, mirror, found, device), held.cases, held.references, kinds, sensitivity)
    return found.model_copy(update={"thresholds": told})


def _tempered(pool: Ensemble, held: Held) -> Calibration:
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
