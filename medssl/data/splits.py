"""Newcomers: the split of patients who join a store, however few at a time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil

from medssl.data.manifest import Case, shuffled


def joined(kept: Iterable[Case], new: Sequence[Case], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Each new patient's split: of those that may still grow at the patient's site, the one that lacks most of all.

    A split may hold its share of a site's patients, rounded up. Nobody who is there already moves, and shares are met
    to within about a patient whether patients come one by one or all at once.
    """
    parts = {name: share / sum(shares.values()) for name, share in shares.items()}
    there = {case.patient: (case.site, case.split) for case in kept if case.split in parts}
    at, overall = Counter(there.values()), Counter(split for _, split in there.values())
    site = {case.patient: case.site for case in sorted(new, key=lambda case: case.site, reverse=True)}
    chosen: dict[str, str] = {}
    for patient in shuffled(site, seed):
        here = site[patient]
        of_site = 1 + sum(at[here, name] for name in parts)
        room = [name for name in parts if at[here, name] < ceil(parts[name] * of_site - 1e-9)]
        lacking = {name: parts[name] * (overall.total() + 1) - overall[name] for name in room}
        chosen[patient] = max(room, key=lambda name: round(lacking[name], 9))
        at[here, chosen[patient]] += 1
        overall[chosen[patient]] += 1
    return chosen
