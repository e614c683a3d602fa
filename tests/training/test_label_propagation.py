"""Propagated labels match the contents of a scan; unusable input is refused with a one-line message."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli, config
from medssl.data import store
from medssl.data.checks import leakage
from medssl.data.classes import IGNORE_INDEX
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.registration import atlas, parcels
from medssl.data.registration.atlas import Atlas
from medssl.data.registration.grids import grid_coordinates, interpolate, splat
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.metrics.overlap import dice
from medssl.run import Run
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import train_loader
from medssl.training.label_subset import LabelSubset
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.training.semi_supervised.label_propagation import LabelPropagation, vote_fractions
from medssl.volume import Volume
from tests.helpers.registered_scenes import OFFSETS, SHAPE, draw_classes, write_scans

FINE = np.diag((0.5, 0.5, 0.5, 1.0))
NETWORK = ["encoder.channels=[4,8]", "encoder.strides=[1,2]", "patch_size=[16,16,16]", "max_val_cases=0"]
SHORT = [
    *NETWORK,
    "train={epochs: 2, steps_per_epoch: 2, batch_size: 2, lr: 1e-2}",
    "num_labelled=2",
    "augment.flip=[false,false,false]",
]


@pytest.fixture(scope="module")
def store_manifest(tmp_path_factory):
    """The manifest of a labelled store; its atlas is in the folder `atlas` next to the store."""
    folder = tmp_path_factory.mktemp("propagation")
    manifest = write_scans(folder / "store", labelled=True)
    parcels.build_atlas(manifest, folder / "atlas", parcels.AtlasConfig(num_parcels=8), lambda *_: None)
    return manifest


def atlas_of(manifest):
    return manifest.parent.parent / "atlas"


def split_cases(path, labelled=("c0",)):
    """The labelled cases of a store, and the others."""
    manifest = Manifest.read(path)
    sides = ([case for case in manifest.cases if (case.id in labelled) == is_in] for is_in in (True, False))
    return [replace(manifest, cases=tuple(side)) for side in sides]


def change_label(path, case_id, change):
    """Replaces the label of a case."""
    manifest = Manifest.read(path)
    label_path = manifest.label_path(next(case for case in manifest.cases if case.id == case_id))
    volume = store.read(label_path).volume()
    label_path.unlink()
    store.write(label_path, replace(volume, voxels=change(volume.voxels)), {})


def copy_store(path, folder):
    """A copy of the store that a test may change, and the atlas of the original."""
    return write_scans(folder / "store", labelled=True), atlas_of(path)


def mean_dice(propagated) -> float:
    """The mean Dice of propagated labels and the contents of each scan."""
    cases, offsets = Store(propagated.manifest), {f"c{n}": offset for n, offset in enumerate(OFFSETS)}
    pairs = [(cases.label(case).volume().voxels, draw_classes(offsets[case.id])) for case in propagated.manifest.cases]
    return float(np.mean([dice(a == n, b == n) for a, b in pairs for n in (1, 2)]))


def test_labels_follow_the_contents_of_scans_and_not_their_position(store_manifest, tmp_path):
    propagated = LabelPropagation(atlas_of(store_manifest), *split_cases(store_manifest)).write(tmp_path / "out")
    assert [case.id for case in propagated.manifest.cases] == ["c1", "c2", "c3", "c4"]
    pairs = [(draw_classes(), draw_classes(offset)) for offset in OFFSETS[1:]]
    unmoved = np.mean([dice(a == n, b == n) for a, b in pairs for n in (1, 2)])
    assert mean_dice(propagated) > 0.85 and mean_dice(propagated) > unmoved + 0.1
    assert propagated.classes.names == {1: "rod", 2: "ball"} and propagated.agreement is None
    manifest = Manifest.read(tmp_path / "out" / "manifest.csv")
    assert all(manifest.path(case).is_file() and manifest.label_path(case).is_file() for case in manifest.cases)


def test_swapped_axes_of_a_displacement_are_noticed(store_manifest, tmp_path, monkeypatch):
    load_deformation = Atlas.load_deformation
    identity = np.indices(SHAPE, np.float32)

    def load_swapped(self, case):
        return identity + (load_deformation(self, case) - identity)[::-1]

    monkeypatch.setattr(Atlas, "load_deformation", load_swapped)
    propagated = LabelPropagation(atlas_of(store_manifest), *split_cases(store_manifest)).write(tmp_path / "out")
    assert mean_dice(propagated) < 0.85


def test_the_agreement_compares_each_volume_with_the_votes_of_the_others(store_manifest, tmp_path):
    propagation = LabelPropagation(atlas_of(store_manifest), *split_cases(store_manifest, ("c0", "c1", "c2")))
    assert 0.85 < propagation.measure_agreement() <= 1
    (case, *_), votes = propagation.labelled.cases, propagation.votes
    others = LabelPropagation(atlas_of(store_manifest), *split_cases(store_manifest, ("c1", "c2")))
    label = others.label_case(case, vote_fractions(others.votes))
    expected = np.mean([dice(label == n, draw_classes() == n) for n in (1, 2)])
    assert np.mean(propagation._score_agreement(case)) == pytest.approx(expected)
    assert np.allclose(votes, sum(propagation._warp_label(labelled) for labelled in propagation.labelled.cases))


def test_a_wrong_label_is_outvoted_and_lowers_the_agreement(store_manifest, tmp_path):
    changed, folder = copy_store(store_manifest, tmp_path)
    change_label(changed, "c1", lambda label: np.roll(label, 9, 1))
    good, bad = (LabelPropagation(folder, *split_cases(path, ("c0", "c1", "c2"))) for path in (store_manifest, changed))
    assert bad.measure_agreement() < good.measure_agreement() - 0.15
    assert mean_dice(bad.write(tmp_path / "out")) > 0.8


def test_voxels_without_votes_are_ignored(store_manifest, tmp_path):
    """The upper half of the one label is not annotated, so the upper half of all scans gets the ignore class."""
    half, folder = copy_store(store_manifest, tmp_path)
    StoreMetadata(labels={1: "rod", 2: "ball", 7: "ignore"}).write(half.parent)
    change_label(half, "c0", lambda label: np.where(np.indices(SHAPE)[1] > 14, 7, label).astype(np.uint8))
    propagated = LabelPropagation(folder, *split_cases(half)).write(tmp_path / "out")
    cases = Store(propagated.manifest)
    for case in propagated.manifest.cases:
        voted = propagated.classes.to_target(cases.label(case).volume().voxels) != IGNORE_INDEX
        assert voted[:, :11].mean() > 0.99 and voted[:, 19:].mean() < 0.01


def test_only_volumes_that_are_annotated_for_a_class_vote_on_it(store_manifest, tmp_path):
    """The ball is not annotated in two of three volumes, so the third decides alone; without it, no volume does."""
    partly, folder = copy_store(store_manifest, tmp_path)
    cases = split_cases(partly, ("c0", "c1", "c2"))
    for name in ("c1", "c2"):
        change_label(partly, name, lambda label: np.where(label == 2, 0, label))
    outvoted = mean_dice(LabelPropagation(folder, *cases).write(tmp_path / "outvoted"))
    StoreMetadata(labels={1: "rod", 2: "ball"}, present_labels={"c1": [1], "c2": [1]}).write(partly.parent)
    propagated = LabelPropagation(folder, *cases).write(tmp_path / "out")
    assert mean_dice(propagated) > 0.85 > outvoted + 0.2
    assert all(propagated.classes.annotation_mask(case.id).all() for case in propagated.manifest.cases)
    alone = LabelPropagation(folder, *split_cases(partly, ("c1", "c2"))).write(tmp_path / "alone")
    assert all(alone.classes.annotation_mask(case.id).tolist() == [True, True, False] for case in alone.manifest.cases)


def test_a_scan_finer_than_the_atlas_keeps_its_own_grid(store_manifest, tmp_path):
    labelled, unlabelled = split_cases(store_manifest)
    fine = tmp_path / "fine"
    cases = []
    shape = tuple(2 * n for n in SHAPE)
    for case in labelled.cases:
        voxels = Store(labelled).image(case).volume().voxels.repeat(2, 1).repeat(2, 2).repeat(2, 3)
        store.write(fine / case.image, Volume(voxels, FINE, "a.u."), {})
        label = draw_classes().repeat(2, 0).repeat(2, 1).repeat(2, 2)
        store.write(fine / case.label, Volume(label, FINE, "label"), {})
        cases.append(replace(case, shape=shape))
    StoreMetadata(labels={1: "rod", 2: "ball"}).write(fine)
    labelled = replace(labelled, cases=tuple(cases), folder=fine)
    propagation = LabelPropagation(atlas_of(store_manifest), labelled, unlabelled)
    propagated = propagation.label_case(cases[0], vote_fractions(propagation.votes))
    assert propagated.shape == shape
    assert min(dice(propagated == n, label == n) for n in (1, 2)) > 0.9


def test_splatting_keeps_what_is_inside_the_atlas_and_a_grid_maps_to_itself(store_manifest):
    x = np.random.default_rng(0).random((2, *SHAPE))
    assert np.allclose(splat(x, np.indices(SHAPE, np.float32)), x)
    shifted = np.indices(SHAPE, np.float32) + np.array([3.0, 0, 0], np.float32)[:, None, None, None]
    assert np.allclose(splat(x, shifted)[:, 3:], x[:, :-3]) and not splat(x, shifted)[:, :3].any()
    assert np.allclose(interpolate(x[0].astype(np.float32), grid_coordinates(SHAPE, SHAPE)), x[0], atol=1e-6)


def test_every_second_crop_is_one_with_propagated_labels(store_manifest, tmp_path):
    labelled, unlabelled = split_cases(store_manifest)
    propagated = LabelPropagation(atlas_of(store_manifest), labelled, unlabelled).write(tmp_path / "out")
    labelled_crops, propagated_crops = (
        CropDataset(
            manifest,
            IntensityNormalization(),
            (16, 16, 16),
            labelled=True,
            foreground_fraction=1.0,
            classes=propagated.classes,
        )
        for manifest in (labelled, propagated.manifest)
    )
    config = TrainConfig(epochs=1, steps_per_epoch=4, batch_size=2)
    batches = list(train_loader(labelled_crops, config, propagated_crops))
    assert len(batches) == 4
    for crops in batches:
        assert crops.volume[0] == 0 and crops.volume[1] > 0 and (crops.require_label() > 0).flatten(1).any(1).all()


def test_a_finetuning_learns_from_propagated_labels_and_keeps_them(store_manifest, tmp_path, capsys):
    run = tmp_path / "run"
    args = [
        f"manifest={store_manifest}",
        f"run={run}",
        f"semi_supervised={{method: label-propagation, atlas: {store_manifest.parent.parent}/atlas}}",
    ]
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    assert cli.run("finetune", [str(config), *SHORT, *args]) == 0
    metadata = Run.open(run).metadata["propagated"]
    assert metadata["cases"] == 3 and metadata["agreement"] > 0.85 and metadata["similarity"] > 0.85
    assert len(Manifest.read(run / "propagated" / "manifest.csv").cases) == 3
    assert cli.run("verify", [str(run / "propagated")]) == 0


def run_refused(capsys, tmp_path, *args) -> str:
    """Runs a finetuning, which must refuse and leave no run, and returns the error line."""
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    assert cli.run("finetune", [str(config), *SHORT, f"run={tmp_path}/run", *args]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not (tmp_path / "run").exists()
    return line


def test_unusable_input_is_refused_in_one_line(store_manifest, tmp_path, capsys):
    manifest, folder = copy_store(store_manifest, tmp_path)
    override = f"semi_supervised={{method: label-propagation, atlas: {folder}}}"
    assert "needs an atlas" in run_refused(
        capsys, tmp_path, f"manifest={manifest}", "semi_supervised=label-propagation"
    )
    no_atlas = f"semi_supervised={{method: label-propagation, atlas: {tmp_path}}}"
    assert "no atlas (displacements/ is missing)" in run_refused(capsys, tmp_path, f"manifest={manifest}", no_atlas)
    message = run_refused(capsys, tmp_path, f"manifest={manifest}", override, "task=detect")
    assert "only available for task=segment" in message
    original = Manifest.read(manifest)
    replace(original, cases=(*original.cases[:4], replace(original.cases[4], split="test"))).write(manifest)
    assert "overlaps between" in run_refused(capsys, tmp_path, f"manifest={manifest}", override)
    replace(original, cases=tuple(replace(case, sha256="other") for case in original.cases)).write(manifest)
    assert "is not in this atlas (2 such cases)" in run_refused(capsys, tmp_path, f"manifest={manifest}", override)
    labelled, unlabelled = split_cases(store_manifest)
    unlabelled = replace(unlabelled, cases=tuple(replace(case, sha256="other") for case in unlabelled.cases))
    with pytest.raises(BadInput, match=r"no unlabelled case of .* is in this atlas"):
        LabelPropagation(folder, labelled, unlabelled)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:200])])
def test_a_damaged_atlas_is_reported_by_file(store_manifest, tmp_path, spoil):
    folder = tmp_path / "atlas"
    shutil.copytree(atlas_of(store_manifest), folder)
    labelled, unlabelled = split_cases(store_manifest)
    manifest = Manifest.read(folder / "manifest.csv")
    assert all(Atlas(folder).load_deformation(case).shape == (3, *SHAPE) for case in manifest.cases)
    spoil(folder / "displacements" / "c0.npy")
    with pytest.raises(BadInput, match=r"c0\.npy: is missing or damaged .*run `medssl atlas` again"):
        LabelPropagation(folder, labelled, unlabelled)


def test_propagated_labels_that_hardly_agree_cause_a_warning(store_manifest, tmp_path, capsys, caplog):
    manifest, folder = copy_store(store_manifest, tmp_path)
    for n in range(5):
        change_label(manifest, f"c{n}", lambda label, n=n: np.roll(label, 5 * n, 0))
    config = tmp_path / "finetune.yaml"
    config.write_text("task: segment\n")
    args = [
        f"manifest={manifest}",
        f"run={tmp_path}/run",
        f"semi_supervised={{method: label-propagation, atlas: {folder}}}",
    ]
    assert cli.run("finetune", [str(config), *SHORT, *args]) == 0
    assert f"{tmp_path}/run/propagated: labels that are propagated between the labelled volumes agree" in caplog.text


def pretrain_on(manifest, run, labels):
    """Pretrains on painted labels for a step, and returns the run with the cases it has seen."""
    values = {"run": run, "manifest": manifest, "objective": "synthetic", "labels": labels, "patch_size": [16, 16, 16]}
    values |= {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "train": {"epochs": 1, "steps_per_epoch": 1}}
    finished = pretrain(config.check(values, PretrainConfig, "test"))
    return finished, {trace.id for trace in leakage.read_traces(finished.path)}


def test_a_pretraining_on_propagated_labels_keeps_them_and_has_seen_the_whole_atlas(store_manifest, tmp_path):
    labels = {"source": "propagated", "num_labelled": 1, "atlas": str(atlas_of(store_manifest))}
    run, traced_cases = pretrain_on(store_manifest, tmp_path / "run", labels)
    propagated = Manifest.read(run.path / "propagated" / "manifest.csv")
    assert len(propagated.cases) == 4 and all(case.label for case in propagated.cases)
    assert traced_cases == {case.id for case in Manifest.read(store_manifest).cases}


def test_parcels_of_an_atlas_are_labels_to_pretrain_on(store_manifest, tmp_path):
    _, traced_cases = pretrain_on(atlas_of(store_manifest) / "manifest.csv", tmp_path / "run", "labelled")
    assert len(traced_cases) == 5


def test_the_similarity_falls_where_a_volume_is_warped_to_other_places(store_manifest, tmp_path):
    subset = LabelSubset.select(Manifest.read(store_manifest), 1, 0)
    volumes = subset.labelled, subset.unlabelled
    assert LabelPropagation(atlas_of(store_manifest), *volumes).measure_similarity() > 0.9
    copy = shutil.copytree(atlas_of(store_manifest), tmp_path / "atlas")
    for path in (copy / atlas.DISPLACEMENTS_FOLDER).glob("*.npy"):
        shift = np.random.default_rng(int(path.stem[1:])).uniform(-9, 9, (3, 1, 1, 1))
        np.save(path, (np.load(path) + shift).astype(np.float16))
    assert LabelPropagation(copy, *volumes).measure_similarity() < 0.5
