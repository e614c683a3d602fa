"""Computes the detection scores of a set of cases with their intervals."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from medssl.metrics import lesions
from medssl.metrics.calibration import Reliability, compute_reliability
from medssl.metrics.lesions import CPM_RATES, MatchResult, ScanMatches
from medssl.metrics.statistics import bootstrap_interval

T = TypeVar("T")
SIZES_MM = (0.0, 6.0, 10.0, 20.0, float("inf"))


@dataclass(frozen=True)
class CaseDetections:
    """The candidates and lesions of one case, compared by the overlap of masks and by the distance of centres."""

    case: str
    patient: str
    by_overlap: ScanMatches
    by_centre: ScanMatches

    @property
    def picai(self) -> MatchResult:
        """The match by the rule of PI-CAI."""
        return lesions.match_hungarian(self.by_overlap)

    @property
    def luna(self) -> MatchResult:
        """The match by the rule of LUNA16."""
        return lesions.match_luna(self.by_centre)

    def reduce_to_case(self) -> "CaseDetections":
        """Returns the case as one question: one candidate with the highest score, which hits if there is any lesion."""
        scores, diameters_mm = self.by_overlap.scores, self.by_overlap.diameters_mm
        largest = diameters_mm.max(keepdims=True) if diameters_mm.size else diameters_mm
        case = ScanMatches(np.array([scores.max(initial=0.0)]), largest, np.ones((1, largest.size)))
        return CaseDetections(self.case, self.patient, case, case)


@dataclass(frozen=True)
class Lesion:
    """One lesion of the reference, and the score of the candidate that hit it by PI-CAI's rule, if any."""

    kind: str
    case: str
    diameter_mm: float
    score: float | None


@dataclass(frozen=True)
class PatientDetections:
    """The lesions of one kind and the scores of one patient, over all scans.

    Args:
        kind: The kind of lesion.
        patient: The id of the patient.
        scans: The number of scans.
        lesions: The number of lesions in the reference.
        max_score: The highest score of a candidate, as in PI-CAI; 0 without candidates.
        noisy_or: The probability that at least one candidate is a lesion, if the scores are calibrated and independent
            probabilities (Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988).
    """

    kind: str
    patient: str
    scans: int
    lesions: int
    max_score: float
    noisy_or: float


def summarize_patients(kind: str, cases: Sequence[CaseDetections]) -> list[PatientDetections]:
    """Returns one row per patient, in the order of their first scans."""
    rows = []
    for name in dict.fromkeys(case.patient for case in cases):
        scans = [case.by_overlap for case in cases if case.patient == name]
        scores, count = np.concatenate([scan.scores for scan in scans]), sum(scan.diameters_mm.size for scan in scans)
        rows.append(PatientDetections(kind, name, len(scans), count, *combine_scores(scores)))
    return rows


def combine_scores(scores: Float[np.ndarray, "p"]) -> tuple[float, float]:
    """Returns the maximum and the noisy-or of the scores of a patient's candidates; 0 without candidates."""
    return float(scores.max(initial=0.0)), float(1 - (1 - scores).prod())


def collect_scores_and_hits(cases: Sequence[CaseDetections]) -> tuple[Float[np.ndarray, "m"], Bool[np.ndarray, "m"]]:
    """Returns the scores of all candidates that PI-CAI's rule counts, and whether each is a hit."""
    picai = [case.picai for case in cases]
    hit_scores, false = (
        np.concatenate([np.zeros(0), *(getattr(o, name) for o in picai)])
        for name in ("hit_scores", "false_positive_scores")
    )
    hits = hit_scores[np.isfinite(hit_scores)]
    return np.concatenate([hits, false]), np.arange(len(hits) + len(false)) < len(hits)


def compute_finding_reliability(cases: Sequence[CaseDetections]) -> Reliability:
    """Returns the reliability diagram of the candidates' scores as probabilities of a lesion."""
    return compute_reliability(*collect_scores_and_hits(cases))


def list_lesions(kind: str, cases: Sequence[CaseDetections]) -> list[Lesion]:
    """Returns one row per lesion."""
    pairs = [(c.case, *pair) for c in cases for pair in zip(c.picai.diameters_mm, c.picai.hit_scores, strict=True)]
    return [Lesion(kind, case, float(mm), float(score) if np.isfinite(score) else None) for case, mm, score in pairs]


def summarize(cases: Sequence[CaseDetections], rate: float = 1.0, draws: int = 500) -> dict[str, Any]:
    """Returns the detection scores with their intervals, as values for JSON.

    They are the AP and AUROC of PI-CAI, the CPM of LUNA16, mAP, the calibration error, and sensitivities. The AUROC is
    over patients, by their highest score (`auroc`) or by the noisy-or of all scores (`auroc_noisy_or`).

    Args:
        cases: The cases.
        rate: The false positives per scan of the operating point.
        draws: The number of bootstrap resamples.
    """
    picai, luna = [c.picai for c in cases], [c.luna for c in cases]
    coco = [lesions.match_at_ious(c.by_overlap) for c in cases]
    threshold = lesions.threshold_at(picai, rate)
    sizes = lesions.sensitivity_by_size(picai, threshold, SIZES_MM)
    keys = ("low_mm", "high_mm", "lesions", "sensitivity")

    def score(statistic: Callable[[list[T]], float], results: Sequence[T]) -> dict[str, Any]:
        owners = [case.patient for case in cases]
        interval = bootstrap_interval(owners, lambda index: statistic([results[n] for n in index]), draws)
        return _replace_nan(asdict(interval))

    return _summarize_auroc(summarize_patients("", cases), draws) | {
        "cases": len(cases),
        "cases_with_lesions": sum(o.has_lesion for o in picai),
        "lesions": sum(o.hit_scores.size for o in picai),
        "average_precision": score(lesions.average_precision, picai),
        "cpm": score(lesions.cpm, luna),
        "map_iou_10_50": score(lesions.mean_average_precision, coco),
        "sensitivity": {f"{r:g}": score(partial(_sensitivity, rate=r), picai) for r in CPM_RATES},
        "ece": compute_finding_reliability(cases).ece(),
        "operating_point": _replace_nan({"false_per_scan": rate, "threshold": threshold}),
        "sensitivity_by_size": [_replace_nan(dict(zip(keys, row, strict=True))) for row in sizes],
    }


def _summarize_auroc(patients: Sequence[PatientDetections], draws: int) -> dict[str, Any]:
    """Returns the AUROC of patients with lesions against patients without, by either score."""
    has_lesion = np.array([patient.lesions > 0 for patient in patients], bool)

    def auroc(name: str) -> dict[str, Any]:
        score = np.array([getattr(patient, name) for patient in patients], float)
        interval = bootstrap_interval(range(len(patients)), lambda n: lesions.auroc(has_lesion[n], score[n]), draws)
        return _replace_nan(asdict(interval))

    counts = {"patients": len(patients), "patients_with_lesions": int(has_lesion.sum())}
    return counts | {"auroc": auroc("max_score"), "auroc_noisy_or": auroc("noisy_or")}


def _sensitivity(outcomes: Sequence[MatchResult], rate: float) -> float:
    return float(lesions.sensitivity_at(outcomes, [rate])[0])


def _replace_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with None in place of NaN and infinity, which JSON cannot represent."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
