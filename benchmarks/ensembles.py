"""Folds, ensembles, calibration: four networks from 8 labelled MR, alone and pooled, and what their numbers promise.

usage: python -m benchmarks.ensembles [WORK], after benchmarks.fewshot and benchmarks.nodules, whose hippocampus and
nodules it takes; what lies in WORK already is not done again.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.stats import spearmanr

from benchmarks import nodules
from benchmarks._commands import make
from benchmarks.fewshot import provenance
from benchmarks.suggest import only
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.selection.splits import assign_splits, select_labelled
from medssl.errors import BadInput
from medssl.evaluation.compare import case_means, compare, read_scores
from medssl.evaluation.evaluate import voxel_reliability
from medssl.io import nifti
from medssl.metrics.calibration import NEAR_MM, Reliability, fit_conformal_threshold
from medssl.metrics.lesions import MatchResult
from medssl.metrics.statistics import bootstrap_interval, mean_interval
from medssl.predictions_folder import LABELS, PROBABILITY, UNCERTAINTY, read_index

STORE, NODULES, WORK = "runs/fewshot/hippocampus-store", "runs/nodules", "runs/ensembles"
RECIPE = "configs/finetune/hippocampus.yaml"
SHORT = "encoder.channels=[8,16,32,64] train.steps_per_epoch=40 train.lr=4.0e-3 train.ema_decay=0.95 max_val_cases=0"
FOLDS, RUN, KEEP, DRAWS = 4, "voxel-80", 0.8, 1000
NAMES = {f"fold{n}": f"fold {n}" for n in range(FOLDS)} | {"one": "one", "long": "one, four times the steps"}


def main(work: str = WORK) -> None:
    """Runs the commands it prints, then prints what came of the folds, of their doubts and of both calibrations."""
    eight, halves = _eight(Path(STORE)), _halves(Path(NODULES, "store"))
    steps = [*_segment(work, eight), *_detect(work, halves)]
    for path, words in steps:
        make(Path(path), words)
    print("\n".join(["```sh", *(f"medssl {words}" for _, words in steps), "```\n"]))
    print(f"Of `{eight.name}` the 8 volumes that `num_labelled=8 seed=0` draws have labels, and those of test;")
    print(f"`{halves.name}` makes one half of the nodules' held volumes val, the other test.\n")
    predicted = Path(work, "predicted")
    _print_networks(predicted)
    _print_disagreement(predicted / "together")
    _print_calibration(predicted, json.loads(Path(work, "together.json").read_text()))
    _print_thresholds(predicted, json.loads(Path(work, "nodules.json").read_text()))
    provenance(Path(work))


def _eight(store: Path) -> Path:
    """A manifest in which 8 volumes to train on have labels, those that `num_labelled=8 seed=0` draws."""
    manifest = Manifest.read(store / "manifest.csv")
    labelled = select_labelled(manifest.in_split("train").with_labels(), 8, seed=0)
    return only(manifest, frozenset(case.id for case in labelled.cases))


def _halves(store: Path) -> Path:
    """A manifest in which one half of the held volumes is val and the other test."""
    manifest = Manifest.read(store / "manifest.csv")
    dealt = {
        case.id: case.split for case in assign_splits(manifest.in_split("val"), {"val": 0.5, "test": 0.5}, seed=0).cases
    }
    path = store / "halves.csv"
    replace(manifest, cases=tuple(replace(c, split=dealt.get(c.id, c.split)) for c in manifest.cases)).write(path)
    return path


def _segment(work: str, eight: Path) -> list[tuple[str, str]]:
    """Four folds, one network of all 8 volumes and one of four times its steps; and what the four say together."""
    store, folds = f"{STORE}/manifest.csv", [f"{work}/fold{n}" for n in range(FOLDS)]
    how = {f"{work}/fold{n}": f"num_labelled=null num_folds={FOLDS} fold={n} train.epochs=6" for n in range(FOLDS)}
    how |= {
        f"{work}/one": "num_labelled=null train.epochs=6",
        f"{work}/long": f"num_labelled=null train.epochs={6 * FOLDS}",
    }
    steps = [(run, f"finetune {RECIPE} manifest={eight} {SHORT} {words} run={run}") for run, words in how.items()]
    together, predicted = " ".join(folds), f"{work}/predicted"
    file = f"{work}/together.json"
    steps += [(file, f"calibrate {together} --manifest {store} --out {file}")]
    predictions = {Path(run).name: f"{run} {store}" for run in how}
    predictions |= {"together": f"{together} {store}", "calibrated": f"{together} {store} --calibration {file}"}
    predictions |= {"held-out": f"{together} {eight} --split held-out"}
    for name, words in predictions.items():
        steps += _list_steps(f"{predicted}/{name}", words, f"--labels {store}")
    return steps


def _detect(work: str, halves: Path) -> list[tuple[str, str]]:
    """A threshold from one half of the held volumes, and what it keeps in the other."""
    run, file = f"{NODULES}/{RUN}", f"{work}/nodules.json"
    options = f"--labels {halves} --lesions nodule"
    return [
        (file, f"calibrate {run} --manifest {halves} --lesions nodule --sensitivity {KEEP} --out {file}"),
        *_list_steps(f"{work}/predicted/nodules", f"{run} {halves}", options),
        *_list_steps(f"{work}/predicted/nodules-calibrated", f"{run} {halves} --calibration {file}", options),
    ]


def _list_steps(predicted: str, words: str, labels: str) -> list[tuple[str, str]]:
    return [
        (predicted, f"predict {words} --out {predicted}"),
        (f"{predicted}/evaluation", f"evaluate {predicted} {labels}"),
    ]


def _print_networks(predicted: Path) -> None:
    """Each network alone and the four together, on the same test volumes."""
    print("| network | volumes | steps | Dice on test [95 %] | difference of the ensemble [95 %] | p |")
    print("|---|---|---|---|---|---|")
    for folder, name in NAMES.items():
        row = compare(predicted / "together" / "evaluation", predicted / folder / "evaluation")[-1]
        num_volumes = len(json.loads((predicted.parent / folder / "run.json").read_text())["cases"])
        steps = 240 * (FOLDS if folder == "long" else 1)
        dice, difference = _dice(predicted / folder)[1], row.difference.format("+.3f")
        print(f"| {name} | {num_volumes} | {steps} | {dice} | {difference} | {row.p:.4f} |")
    print(f"| ensemble | 8 | {240 * FOLDS} | {_dice(predicted / 'together')[1]} | | |")
    held_out = _dice(predicted / "held-out")[1]
    print(f"\nOf the 8 volumes, dealt by patient, each predicted by the fold that held it out: Dice {held_out}.")


def _dice(predicted: Path) -> tuple[dict[str, float], str]:
    """The mean Dice of each case over the structures, and that of all cases with its interval."""
    scores, patients = read_scores(predicted / "evaluation", "dice")
    cases = sorted({case for case, _ in scores})
    values = case_means(scores, cases, list(dict.fromkeys(label for _, label in scores)))
    spread = mean_interval(values[None], [patients[case] for case in cases])
    return dict(zip(cases, values.tolist(), strict=True)), spread.format()


def _print_disagreement(predicted: Path) -> None:
    """Whether the networks disagree more where they are wrong: the mean over what they drew, against the Dice."""
    index, (dice, _), (_, patients) = (
        read_index(predicted),
        _dice(predicted),
        read_scores(predicted / "evaluation", "dice"),
    )
    doubt = {}
    for case in index.cases:
        labels, disagreement = (
            nifti.read(index.case_folder(case) / name, label=True).voxels for name in (LABELS, UNCERTAINTY)
        )
        doubt[case] = float(disagreement[labels > 0].mean()) / 255
    a, b = (np.array([values[case] for case in dice]) for values in (doubt, dice))
    rank = bootstrap_interval(
        [patients[case] for case in dice], lambda indices: float(spearmanr(a[indices], b[indices]).statistic)
    )
    most = np.argsort(-a)[: len(a) // 4]
    print(f"\nA case's mean disagreement where they draw, against its Dice: Spearman {rank.format('+.2f')}; the")
    print(f"{len(most)} most uncertain have Dice {b[most].mean():.3f}, the others {np.delete(b, most).mean():.3f}.")


def _print_calibration(predicted: Path, calibration_file: dict[str, Any]) -> None:
    """The calibration error on test of each network and of the four, as they come and with the temperature of val."""
    references, cases = References.read(Path(STORE, "manifest.csv")), read_index(predicted / "together").cases
    patients = [references.sources[case].patient for case in cases]
    names = NAMES | {"together": "ensemble", "calibrated": "ensemble, calibrated"}
    bins = [_bins(predicted / name, cases, references) for name in names]
    four = bins[list(names).index("together")]
    print("\n| network | ECE of voxels on test [95 %] | difference from the ensemble [95 %] |")
    print("|---|---|---|")
    for reliability, name in zip(bins, names.values(), strict=True):
        ece = bootstrap_interval(patients, partial(_ece, reliability), DRAWS)
        difference = (
            ""
            if reliability is four
            else bootstrap_interval(patients, partial(_ece_difference, reliability, four), DRAWS).format("+.4f")
        )
        print(f"| {name} | {ece.format('.4f')} | {difference} |")
    on = len(calibration_file["cases"])
    sure, wrong = (" -> ".join(f"{value:.4f}" for value in calibration_file[key]) for key in ("nll", "ece"))
    print(f"\nOf the voxels within {NEAR_MM:g} mm of what is drawn or predicted. Calibrated on the {on} cases of val:")
    print(f"temperature {calibration_file['temperature']:.2f}; there, negative log-likelihood {sure}, ECE {wrong}.")


def _bins(predicted: Path, cases: Sequence[str], references: References) -> list[Reliability]:
    """The reliability of each case of a predictions folder."""
    read = partial(nifti.read, label=True)
    maps = [read(read_index(predicted).case_folder(case) / PROBABILITY) for case in cases]
    return [
        voxel_reliability(probability, references.read_label(case, probability))
        for case, probability in zip(cases, maps, strict=True)
    ]


def _ece(bins: Sequence[Reliability], indices: Int[np.ndarray, "n"]) -> float:
    first, *others = (bins[n] for n in indices)
    return sum(others, start=first).ece()


def _ece_difference(
    bins: Sequence[Reliability], other_bins: Sequence[Reliability], indices: Int[np.ndarray, "n"]
) -> float:
    return _ece(bins, indices) - _ece(other_bins, indices)


def _print_thresholds(predicted: Path, calibration_file: dict[str, Any]) -> None:
    """What a calibration on one half of the held volumes came to in the other half."""
    raw, calibrated = (_summary(predicted / name)["lesions"]["nodule"] for name in ("nodules", "nodules-calibrated"))
    at_threshold, rests = calibrated["calibrated"], calibration_file["thresholds"]["nodule"]["patients"]
    print(f"\nNodules by `{RUN}`, calibrated on one half of the held volumes, which overlap, {rests} of them with")
    volumes, ill = calibrated["cases"], calibrated["cases_with_lesions"]
    print(f"nodules; in the other half, {volumes} volumes, {ill} of them with nodules:\n")
    print("| | uncalibrated | calibrated |\n|---|---|---|")
    print(f"| ECE of findings | {raw['ece']:.3f} | {calibrated['ece']:.3f} |")
    noisy = (f"{scores['auroc_noisy_or']['estimate']:.2f}" for scores in (raw, calibrated))
    print(f"| AUROC of volumes by noisy-or | {' | '.join(noisy)} |")
    print(f"| sensitivity a volume, {KEEP:.0%} promised | | {at_threshold['sensitivity']:.1%} |")
    print(f"| false positives per volume at this threshold | | {at_threshold['false_per_scan']:.2f} |")
    _print_draws(nodules.match_run(Path(NODULES), RUN).outcomes["picai"])


def _print_draws(results: Sequence[MatchResult]) -> None:
    """What the thresholds of many halves keep in the other half: the promise is one about their mean."""
    print(f"\nThe same by {DRAWS} draws of the half to calibrate on:\n")
    print("| stated sensitivity | measured mean | 5 to 95 % of draws | false positives per volume | rejected |")
    print("|---|---|---|---|---|")
    for promised in (0.7, 0.8, 0.9):
        halves = [_measure_half(results, promised, seed) for seed in range(DRAWS)]
        sensitivities, alarms = np.array([half for half in halves if half]).T
        low, high = np.quantile(sensitivities, (0.05, 0.95))
        row = f"{sensitivities.mean():.1%} | {low:.0%} to {high:.0%} | {alarms.mean():.2f}"
        print(f"| {promised:.0%} | {row} | {halves.count(None) / DRAWS:.0%} |")


def _summary(predicted: Path) -> dict[str, Any]:
    calibration_file: dict[str, Any] = json.loads((predicted / "evaluation" / "summary.json").read_text())
    return calibration_file


def _measure_half(results: Sequence[MatchResult], promised: float, seed: int) -> tuple[float, float] | None:
    """The sensitivity and the false alarms in one half by the threshold of the other; None where it is refused."""
    order = np.random.default_rng(seed).permutation(len(results))
    calibration, others = ([results[n] for n in some] for some in np.array_split(order, 2))
    try:
        threshold = fit_conformal_threshold(calibration, promised).threshold
    except BadInput:
        return None
    sensitivity = float(np.mean([(result.hit_scores >= threshold).mean() for result in others if result.has_lesion]))
    return sensitivity, float(np.mean([(result.false_positive_scores >= threshold).sum() for result in others]))


if __name__ == "__main__":
    main(*sys.argv[1:])
