"""A plan is a config that its command reads, and says why each key has its value."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from docs.write_reference import evidence_table
from medssl import cli, config
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.planning import evidence, settings_check
from medssl.planning.choose_settings import Budget, plan_training
from medssl.planning.dataset_fingerprint import ClassSize, DatasetFingerprint
from medssl.planning.evidence import EvidenceRow
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig
from tests.helpers.toy_training import write_store

FAST, SLOW = 1e12, 1e8


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("plan") / "store", 6, side=32)


@pytest.fixture
def fingerprint(manifest) -> DatasetFingerprint:
    return DatasetFingerprint.measure(Manifest.read(manifest))


def with_grid(fingerprint: DatasetFingerprint, spacing, shape) -> DatasetFingerprint:
    """The fingerprint of a store with other spacing and shapes."""
    cases = tuple(replace(case, shape=shape, spacing_mm=spacing) for case in fingerprint.manifest.cases)
    manifest = replace(fingerprint.manifest, cases=cases)
    grids = {"scan_spacings_mm": (spacing,) * 3, "scan_shapes": (shape,) * 3}
    return replace(fingerprint, manifest=manifest, spacing_mm=spacing, **grids)


def test_a_fingerprint_counts_labels_by_split(fingerprint):
    assert sum(n for n, _ in fingerprint.labels_by_split().values()) == 6
    assert 0 < fingerprint.body_fraction <= 1
    assert "voxels in the median" in "\n".join(fingerprint.describe())


@pytest.mark.parametrize(("purpose", "schema"), [("finetune", FinetuneConfig), ("pretrain", PretrainConfig)])
def test_a_plan_is_a_config_with_a_reason_for_each_key(fingerprint, manifest, purpose, schema, tmp_path):
    plan = plan_training(fingerprint, purpose, Budget(1.0, 4.0, FAST))
    path = tmp_path / "plan.yaml"
    path.write_text(plan.to_yaml())
    settings = config.read(path, [f"manifest={manifest}", "run=r"], schema)
    assert settings.train.total_steps == plan.steps
    lines = plan.to_yaml().splitlines()
    for before, line in pairwise(lines):
        if not line.endswith(":") and "#" not in line:
            assert before.strip().startswith("#"), line


def test_a_slow_machine_gets_a_narrower_network_and_less_memory_a_smaller_crop(fingerprint):
    large = with_grid(fingerprint, (1.0, 1.0, 1.0), (160, 160, 120))
    fast, slow = (plan_training(large, "finetune", Budget(2.0, 8.0, speed)).settings() for speed in (FAST * 20, 3e10))
    assert slow["encoder"]["channels"][0] < fast["encoder"]["channels"][0]
    tight = plan_training(large, "finetune", Budget(2.0, 2.0, FAST * 20))
    assert tight.cost.memory_gb(tight.batch_size) <= 2.0
    assert tight.cost.saved_bytes < plan_training(large, "finetune", Budget(2.0, 8.0, FAST * 20)).cost.saved_bytes


def test_thick_slices_get_flat_kernels_and_turn_in_their_plane(fingerprint):
    thick = with_grid(fingerprint, (1.25, 1.25, 8.0), (160, 160, 12))
    text = plan_training(thick, "finetune", Budget(2.0, 8.0, FAST)).to_yaml()
    assert yaml.safe_load(text)["encoder"]["kernels"][0] == [3, 3, 1]
    assert "about the axis across thick slices only" in text and "the crop is short across them" in text


def test_only_lesions_are_mirrored_along_all_axes(fingerprint):
    lesion, organ = (ClassSize("a", kind, 3, 1.0, 10.0) for kind in ("lesion", "organ"))
    flips = [
        plan_training(
            replace(fingerprint, classes=classes, has_left_right_pairs=pairs), "finetune", Budget(1, 4, FAST)
        ).settings()["augment"]["flip"]
        for classes, pairs in (((lesion,), False), ((lesion, organ), False), ((organ,), True))
    ]
    assert flips == [[True] * 3, [False] * 3, [True, False, False]]


def test_too_little_time_is_a_warning(fingerprint):
    plan = plan_training(fingerprint, "finetune", Budget(0.01, 4.0, SLOW))
    assert any("give more --hours" in warning for warning in plan.warnings)
    assert not plan_training(fingerprint, "finetune", Budget(10.0, 4.0, FAST)).warnings


def test_slabs_and_different_parts_of_the_body_are_a_warning(fingerprint):
    slab = with_grid(fingerprint, (1.0, 1.0, 3.0), (410, 112, 1))
    assert "localizers" in " ".join(plan_training(slab, "pretrain", Budget(1.0, 4.0, FAST)).warnings)
    shapes = fingerprint.shapes.repeat(4, axis=0)
    shapes[::2] *= 6
    assert "part of the body" in " ".join(settings_check.describe_mixed_grids(shapes, (1.0, 1.0, 1.0)))
    assert not settings_check.describe_mixed_grids(fingerprint.shapes, (1.0, 1.0, 1.0))


def row(arm: str, difference: float, low: float, labels: int = 4) -> EvidenceRow:
    return EvidenceRow("toy", "MR", labels, arm, difference, low, difference + 0.01, 8)


def test_an_objective_is_advised_only_where_it_beats_longer_training():
    longer = row("long scratch", 0.01, 0.005)
    assert evidence.advise([longer, row("spark", 0.02, 0.01)], "MR", 4).objective == "spark"
    assert evidence.advise([longer, row("spark", 0.02, -0.01)], "MR", 4).objective == ""
    assert evidence.advise([longer, row("spark", 0.008, 0.002)], "MR", 4).objective == ""


def test_the_nearest_number_of_labels_decides():
    rows = [row("spark", 0.03, 0.01, labels=1), row("spark", -0.02, -0.03, labels=100), row("long scratch", 0.0, 0.0)]
    assert evidence.advise(rows, "MR", 2).objective == "spark"
    assert evidence.advise(rows, "MR", 60).objective == ""


def test_the_evidence_is_that_of_the_benchmarks():
    assert evidence.TABLE.read_text() == evidence_table(), "run `make reference`"
    assert {row.modality for row in evidence.read_table()} == {"MR", "CT", "CT+MR"}


def test_the_command_writes_a_config_that_trains(manifest, tmp_path, capsys):
    out = tmp_path / "plan.yaml"
    words = [str(manifest.parent), "--for", "finetune", "--hours", "0.01", "--device", "cpu", "--out", str(out)]
    assert cli.run("plan", words, debug=True) == 0
    printed = capsys.readouterr().out
    assert re.search(r"timed on this machine's CPU: .* s a step and .* GB", printed)
    assert f"next: medssl finetune {out} run=" in printed
    short = ["run=" + str(tmp_path / "run"), "train.epochs=1", "train.steps_per_epoch=1"]
    assert cli.run("finetune", [str(out), *short], debug=True) == 0
    assert cli.run("plan", words) == 2 and "exists already" in capsys.readouterr().err


def test_a_store_that_cannot_be_trained_on_is_refused(manifest, tmp_path, capsys):
    unlabelled = tmp_path / "manifest.csv"
    cases = Manifest.read(manifest)
    replace(cases, cases=tuple(replace(case, label=None) for case in cases.cases)).write(manifest.parent / "none.csv")
    words = ["--out", str(unlabelled), "--device", "cpu"]
    assert cli.run("plan", [str(manifest.parent / "none.csv"), *words]) == 2
    assert "no labelled volume to finetune on" in capsys.readouterr().err
    replace(cases, cases=tuple(replace(case, split="test") for case in cases.cases)).write(manifest.parent / "none.csv")
    with pytest.raises(BadInput, match="no case in split 'train'"):
        DatasetFingerprint.measure(Manifest.read(manifest.parent / "none.csv"))


def test_auto_keys_are_filled_from_the_store(manifest, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("objective: auto\npatch_size: auto\nencoder: auto\ntrain: {lr: auto, epochs: 3}\n")
    settings = config.read(path, [f"manifest={manifest}", "run=r"], PretrainConfig)
    assert settings.objective.name == "spark" and settings.train.epochs == 3
    assert settings.patch_size == (32, 32, 32) and len(settings.encoder.channels) == 4
    assert settings.train.accelerator == "auto"
    with pytest.raises(BadInput, match=r"give manifest=STORE/manifest\.csv"):
        config.read(path, ["run=r"], PretrainConfig)


def test_crops_larger_than_the_scans_are_refused_or_warned_of(manifest, tmp_path, capsys, caplog):
    run = tmp_path / "run"
    words = ["configs/finetune/segment.yaml", f"manifest={manifest}", f"run={run}"]
    assert cli.run("finetune", [*words, "patch_size=[64,64,64]"]) == 2
    message = capsys.readouterr().err
    assert "88% of a crop lies outside the scans" in message and "patch_size=auto" in message
    assert not run.exists()
    short = ["train.epochs=1", "train.steps_per_epoch=1", "encoder.channels=[4,8,8,8]"]
    assert cli.run("finetune", [*words, *short, "patch_size=[32,32,64]"], debug=True) == 0
    assert "50% of a crop lies outside the scans" in caplog.text
    assert "2 crops of 5 volumes are less than one of each, fewer than 50" in caplog.text


@pytest.mark.parametrize(("volume_ml", "text"), [(1840.2, "1,840 ml"), (12.4, "12 ml"), (0.314, "0.31 ml")])
def test_volumes_of_classes_are_plain_numbers(fingerprint, volume_ml, text):
    size = replace(fingerprint.classes[0], volume_ml=volume_ml)
    assert any(text in line for line in replace(fingerprint, classes=(size,)).describe())
