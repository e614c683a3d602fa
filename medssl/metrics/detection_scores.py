"""The detection scores of a set of cases, each with its interval."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from medssl.metrics import lesions
from medssl.metrics.calibration import Reliability, reliability
from medssl.metrics.lesions import CPM_RATES, Outcome, Scan
from medssl.metrics.statistics import interval

T = TypeVar("T")
SIZES_MM = (0.0, 6.0, 10.0, 20.0, float("inf"))


@dataclass(frozen=True)
class Detected:
    """One case: its candidates and lesions compared by overlap of masks, and by distance of centres."""

    case: str
    patient: str
    by_overlap: Scan
    by_centre: Scan

    @property
    def picai(self) -> Outcome:
        """Matched as PI-CAI does."""
        return lesions.hungarian(self.by_overlap)

    @property
    def luna(self) -> Outcome:
        """Matched as LUNA16 does."""
        return lesions.luna(self.by_centre)


@dataclass(frozen=True)
class Lesion:
    """One lesion of the reference, and the score of the candidate that found it by PI-CAI's rule, if any."""

    kind: str
    case: str
    diameter_mm: float
    score: float | None


@dataclass(frozen=True)
class Patient:
    """What one patient has of a kind of lesion, and what is said of all of the patient's scans together.

    `surest` is the highest score of a candidate, 0 without any, as in PI-CAI. `noisy_or` is the chance that at least
    one is real, if each is with the chance of its score and none tells of another (Pearl, "Probabilistic Reasoning in
    Intelligent Systems", 1988); it means little before scores are calibrated.
    """

    kind: str
    patient: str
    scans: int
    lesions: int
    surest: float
    noisy_or: float


def patients(kind: str, cases: Sequence[Detected]) -> list[Patient]:
    """One row a patient, in the order of their first scans."""
    told = []
    for name in dict.fromkeys(case.patient for case in cases):
        mine = [case.by_overlap for case in cases if case.patient == name]
        scores, count = np.concatenate([scan.scores for scan in mine]), sum(scan.diameters_mm.size for scan in mine)
        told.append(Patient(kind, name, len(mine), count, *overall(scores)))
    return told


def overall(scores: Float[np.ndarray, "p"]) -> tuple[float, float]:
    """What the scores of a patient's candidates come to: the surest and the noisy-or; 0 without any."""
    return float(scores.max(initial=0.0)), float(1 - (1 - scores).prod())


def judged(cases: Sequence[Detected]) -> tuple[Float[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """The scores of all candidates that PI-CAI's rule counts, and whether each found a lesion."""
    picai = [case.picai for case in cases]
    found, false = (np.concatenate([np.zeros(0), *(getattr(o, name) for o in picai)]) for name in ("found", "false"))
    hits = found[np.isfinite(found)]
    return np.concatenate([hits, false]), np.arange(len(hits) + len(false)) < len(hits)


def trusted(cases: Sequence[Detected]) -> Reliability:
    """How far the scores of candidates are the chance that there is a lesion."""
    return reliability(*judged(cases))


def rows(kind: str, cases: Sequence[Detected]) -> list[Lesion]:
    """One row a lesion."""
    pairs = [(c.case, *pair) for c in cases for pair in zip(c.picai.diameters_mm, c.picai.found, strict=True)]
    return [Lesion(kind, case, float(mm), float(score) if np.isfinite(score) else None) for case, mm, score in pairs]


def summary(cases: Sequence[Detected], rate: float = 1.0, draws: int = 500) -> dict[str, Any]:
    """PI-CAI's AP and AUROC, LUNA16's CPM, mAP, sensitivities, and an operating point at `rate` false alarms a scan.

    The AUROC is of patients by their surest candidate, or by all of them (`auroc_noisy_or`).
    """
    picai, luna = [c.picai for c in cases], [c.luna for c in cases]
    coco = [lesions.at_ious(c.by_overlap) for c in cases]
    threshold = lesions.threshold_at(picai, rate)
    sizes = lesions.sensitivity_by_size(picai, threshold, SIZES_MM)
    keys = ("low_mm", "high_mm", "lesions", "sensitivity")

    def told(statistic: Callable[[list[T]], float], of: Sequence[T]) -> dict[str, Any]:
        said = interval([one.patient for one in cases], lambda at: statistic([of[n] for n in at]), draws)
        return _plain(asdict(said))

    return _of_patients(patients("", cases), draws) | {
        "cases": len(cases),
        "cases_with_lesions": sum(o.ill for o in picai),
        "lesions": sum(o.found.size for o in picai),
        "average_precision": told(lesions.average_precision, picai),
        "cpm": told(lesions.cpm, luna),
        "map_iou_10_50": told(lesions.mean_average_precision, coco),
        "sensitivity": {f"{r:g}": told(partial(_sensitivity, rate=r), picai) for r in CPM_RATES},
        "ece": trusted(cases).ece(),
        "operating_point": _plain({"false_per_scan": rate, "threshold": threshold}),
        "sensitivity_by_size": [_plain(dict(zip(keys, row, strict=True))) for row in sizes],
    }


def _of_patients(told: Sequence[Patient], draws: int) -> dict[str, Any]:
    """How well patients with and without lesions are told apart, by either score."""
    ill = np.array([one.lesions > 0 for one in told], bool)

    def auroc(name: str) -> dict[str, Any]:
        score = np.array([getattr(one, name) for one in told], float)
        return _plain(asdict(interval(range(len(told)), lambda at: lesions.auroc(ill[at], score[at]), draws)))

    counts = {"patients": len(told), "patients_with_lesions": int(ill.sum())}
    return counts | {"auroc": auroc("surest"), "auroc_noisy_or": auroc("noisy_or")}


def _sensitivity(outcomes: Sequence[Outcome], rate: float) -> float:
    return float(lesions.sensitivity_at(outcomes, [rate])[0])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is no finite number, which JSON cannot hold."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
