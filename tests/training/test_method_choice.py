"""method=auto leaves patients out one at a time, takes what gains more than its error, and says why."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.fewshot.cost import Compute
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.label_subset import LabelSubset
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.method_choice import MAX_FOLDS, choose_by_gain, choose_method, write_fold
from tests.helpers.toy_training import write_store

ALONE, TEACHER = SemiSupervisedConfig(method="none"), SemiSupervisedConfig(method="mean-teacher")
AUTO = SemiSupervisedConfig(method="auto")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A store of seven labelled scans in split train, each of a patient of its own, and one in split val."""
    return write_store(tmp_path_factory.mktemp("choice") / "store", cases=8)


def train_nothing(manifest, method, run) -> float:
    raise AssertionError("one patient cannot be left out")


def select(manifest, count) -> LabelSubset:
    return LabelSubset.select(Manifest.read(manifest), count, 0)


@pytest.mark.parametrize(
    ("gains", "taken"),
    [
        ((0.02, 0.03), "mean-teacher"),
        ((-0.01, 0.20), "none"),
        ((0.01, 0.02, 0.03), "mean-teacher"),
        ((-0.04, 0.05, 0.02), "none"),
        ((0.0, 0.0), "none"),
    ],
)
def test_a_method_is_taken_if_its_gain_exceeds_its_error(gains, taken):
    dice = {"none": [0.5] * len(gains), "mean-teacher": [0.5 + gain for gain in gains]}
    choice = choose_by_gain(ALONE, TEACHER, dice)
    assert choice.method.method == taken
    assert f"{sum(gains) / len(gains):+.3f} Dice" in choice.reason and f"{len(gains)} patients" in choice.reason


@pytest.mark.parametrize("count", [3, 6])
def test_each_fold_trains_without_the_label_of_its_patient(manifest, tmp_path, count):
    subset, trainings = select(manifest, count), []

    def train_fold(path, method, run):
        cases = Manifest.read(path)
        trainings.append((run.name, {case.patient for case in cases.in_split("val").cases}))
        assert not any(case.patient in trainings[-1][1] for case in cases.in_split("train").cases)
        assert len(cases.in_split("train").with_labels().cases) == count - 1
        return 0.9 if method.method == "mean-teacher" else 0.5

    choice = choose_method(AUTO, subset, train_fold, tmp_path)
    folds = min(count, MAX_FOLDS)
    assert choice.method.method == "mean-teacher" and len(trainings) == 2 * folds
    assert len({name for name, _ in trainings}) == 2 * folds
    assert len(set.union(*(patients for _, patients in trainings))) == folds
    assert choice.to_json()["dice"] == {"none": [0.5] * folds, "mean-teacher": [0.9] * folds}


def test_a_fold_shows_the_voxels_of_its_store_and_no_scan_of_the_patient_left_out(manifest, tmp_path):
    subset = select(manifest, 2)
    patient = subset.labelled.cases[0].patient
    other = replace(subset.unlabelled.cases[0], patient=patient)
    subset = replace(subset, unlabelled=replace(subset.unlabelled, cases=(other, *subset.unlabelled.cases[1:])))
    fold = Manifest.read(write_fold(subset, patient, tmp_path / "fold"))
    assert other.id not in {case.id for case in fold.cases} and len(fold.cases) == 6
    for case in fold.cases:
        original = next(c for c in Manifest.read(manifest).cases if c.id == case.id)
        expected = Store(Manifest.read(manifest)).image(original).sha256
        assert Store(fold).image(case).sha256 == expected
    assert {case.id for case in fold.with_labels().cases} == {case.id for case in subset.labelled.cases}


@pytest.mark.parametrize("atlas", [None, Path("atlas")])
def test_one_patient_is_trained_on_alone(manifest, tmp_path, atlas):
    config = AUTO.model_copy(update={"atlas": atlas})
    choice = choose_method(config, select(manifest, 1), train_nothing, tmp_path)
    assert choice.method.method == "none" and "label a second one" in choice.reason


@pytest.mark.slow
def test_a_finetuning_cross_validates_and_trains_each_fold_once(manifest, tmp_path):
    values = {"run": tmp_path / "run", "manifest": manifest, "num_labelled": 2, "semi_supervised": "auto"}
    values |= {"patch_size": (16, 16, 16), "encoder": {"channels": (4, 8), "strides": (1, 2)}, "max_val_cases": 0}
    values |= {"train": {"epochs": 1, "steps_per_epoch": 1, "lr": 1e-2}}
    run = finetune(FinetuneConfig.model_validate(values))
    choice = run.metadata["method_choice"]
    assert {len(scores) for scores in choice["dice"].values()} == {2} and choice["method"] in choice["dice"]
    folds = {path.name for path in (tmp_path / "run-auto").iterdir()}
    assert folds == {f"fold{n}{suffix}" for n in (0, 1) for suffix in ("", "-none", "-mean-teacher")}
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "run-auto").glob("*/weights.safetensors")}
    assert Compute.of_run(run.path).steps == 1 + 4
    shutil.rmtree(run.path)
    again = finetune(FinetuneConfig.model_validate(values))
    assert again.metadata["method_choice"] == choice
    assert len(first) == 4 and first == {path: path.stat().st_mtime_ns for path in first}
    shutil.rmtree(tmp_path / "run-auto")
    assert finetune(FinetuneConfig.model_validate(values | {"resume": True})).is_finished
    assert not (tmp_path / "run-auto").exists(), "a finished run needs no folds again"
