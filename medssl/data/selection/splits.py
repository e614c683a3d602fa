"""Assigns patients to splits and cross-validation folds, and selects nested subsets of labelled cases.

Every assignment follows from the content of the scans and a seed alone, so that the same scans are split in the same
way under any pseudonyms. No patient is ever in two splits.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput

DEFAULT_SPLIT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def assign_splits(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Assigns every patient to one split, stratified by site.

    Each split receives its fraction of the patients of every site, to within one patient. A patient with cases of
    several sites counts for the site of the case with the smallest content hash.

    Args:
        manifest: Cases to assign; their current `split` has no influence.
        fractions: Split name -> weight; weights are normalized to sum to 1.
        seed: The same seed gives the same splits.
    """
    patients_by_site = _group_by_site(manifest.cases, seed)
    counts = allocate_counts([len(patients) for patients in patients_by_site], list(fractions.values()))
    patients = [patient for site_patients in patients_by_site for patient in site_patients]
    splits = [name for row in counts for name, count in zip(fractions, row, strict=True) for _ in range(count)]
    split_by_patient = dict(zip(patients, splits, strict=True))
    return replace(manifest, cases=tuple(replace(c, split=split_by_patient[c.patient]) for c in manifest.cases))


def assign_new_patients(
    existing: Iterable[Case], new: Sequence[Case], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Assigns the patients of `new` cases to splits without moving any existing patient.

    A split may hold its fraction of a site's patients, rounded up. Among the splits with room at the patient's site,
    a patient goes to the one furthest below its overall target, so that the fractions are met to within about one
    patient whether patients arrive one by one or all at once.

    Returns:
        Patient -> split, for new patients only.
    """
    targets = {name: fraction / sum(fractions.values()) for name, fraction in fractions.items()}
    current = {case.patient: (case.site, case.split) for case in existing if case.split in targets}
    site_counts, totals = Counter(current.values()), Counter(split for _, split in current.values())
    sites = _site_by_patient(new)
    assigned: dict[str, str] = {}
    for patient in shuffle_patients(new, seed):
        site = sites[patient]
        site_size = 1 + sum(site_counts[site, name] for name in targets)
        open_splits = [name for name in targets if site_counts[site, name] < ceil(targets[name] * site_size - 1e-9)]
        deficits = {name: targets[name] * (totals.total() + 1) - totals[name] for name in open_splits}
        assigned[patient] = max(open_splits, key=lambda name: round(deficits[name], 9))
        site_counts[site, assigned[patient]] += 1
        totals[assigned[patient]] += 1
    return assigned


def assign_fold(manifest: Manifest, fold: int, num_folds: int, seed: int) -> Manifest:
    """Assigns the labelled patients of one cross-validation fold to split val and all other labelled ones to train.

    Cases in split test stay there. For one seed every labelled patient is in val in exactly one fold, and each fold
    is stratified by site.

    Args:
        manifest: Cases to assign, with labels and with split test where it is set.
        fold: Index of the fold, from 0.
        num_folds: At least 2, and at most the number of labelled patients outside split test.
        seed: The same seed gives the same folds.
    """
    candidates = tuple(case for case in manifest.with_labels().cases if case.split != "test")
    num_patients = len({case.patient for case in candidates})
    if not (0 <= fold < num_folds and 2 <= num_folds <= num_patients):
        raise BadInput(
            f"fold {fold} of {num_folds}: {num_patients} labelled patients are outside split test; choose at least two "
            "folds, at most one per patient, and count them from 0"
        )
    folds = assign_splits(replace(manifest, cases=candidates), {str(n): 1.0 for n in range(num_folds)}, seed)
    splits = {case.patient: "val" if case.split == str(fold) else "train" for case in folds.cases}
    cases = (c if c.split == "test" else replace(c, split=splits.get(c.patient, c.split)) for c in manifest.cases)
    return replace(manifest, cases=tuple(cases))


def select_labelled(manifest: Manifest, count: int, seed: int) -> Manifest:
    """Selects `count` labelled cases, completing one patient before the next one begins.

    For one seed the selections are nested: a smaller one is part of every larger one.
    """
    candidates = manifest.with_labels().cases
    if count > len(candidates):
        raise BadInput(
            f"{count} labelled cases requested, {len(candidates)} available; lower `num_labelled` or label more cases"
        )
    rank = {patient: n for n, patient in enumerate(shuffle_patients(candidates, seed))}
    ordered = sorted(candidates, key=lambda case: (rank[case.patient], content_order(case)))
    selected = {case.id for case in ordered[:count]}
    return replace(manifest, cases=tuple(case for case in candidates if case.id in selected))


def allocate_counts(sizes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Divides groups of the given sizes among splits, rounding each exact count down or up so that totals fit too.

    Returns:
        A row for each group with one count for each split.
    """
    weights = np.array(fractions) / sum(fractions)
    owed, counts = np.zeros(len(weights)), []
    for size in sizes:
        exact = weights * size
        floor = np.floor(exact + 1e-9)
        owed = owed + exact - floor
        has_remainder = exact - floor > 1e-9
        order = sorted(np.flatnonzero(has_remainder), key=lambda n: (-round(float(owed[n]), 9), -n))
        extra = np.isin(np.arange(len(weights)), order[: size - int(floor.sum())])
        owed = owed - extra
        counts.append([int(v) for v in floor + extra])
    return counts


def content_order(case: Case) -> tuple[str, str]:
    """Returns a sort key of cases by the content of their scans; only equal scans are ordered by their names."""
    return case.sha256, case.id


def shuffle_patients(cases: Iterable[Case], seed: int) -> list[str]:
    """Shuffles the patients of some cases into an order that depends on their scans and the seed alone.

    The place of a patient relative to another does not depend on which further patients are present. Patients are
    ordered by their scan with the smallest content hash, then by all their scans; names only separate equal ones.
    """
    hashes: dict[str, list[str]] = {}
    for case in cases:
        hashes.setdefault(case.patient, []).append(case.sha256)

    def order(patient: str) -> list[str]:
        contents = sorted(hashes[patient])
        return [hashlib.sha256(f"{seed}:{text}".encode()).hexdigest() for text in (*contents, patient)]

    return sorted(hashes, key=order)


def _group_by_site(cases: Sequence[Case], seed: int) -> list[list[str]]:
    """Returns the shuffled patients of every site; the sites are ordered by their first patients."""
    sites, groups = _site_by_patient(cases), dict[str, list[str]]()
    for patient in shuffle_patients(cases, seed):
        groups.setdefault(sites[patient], []).append(patient)
    return list(groups.values())


def _site_by_patient(cases: Iterable[Case]) -> dict[str, str]:
    """Maps each patient to the site of the case with the smallest content hash."""
    return {case.patient: case.site for case in sorted(cases, key=content_order, reverse=True)}
