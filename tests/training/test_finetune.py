"""Finetuning keeps a plain network for every method, and refuses unusable input with a one-line message."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy import ndimage

from medssl import cli, config
from medssl.data import store
from medssl.data.classes import IGNORE_INDEX
from medssl.data.manifest import Manifest
from medssl.data.registration import parcels
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel, build_predictor
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.training import presets
from medssl.training.finetune import FinetuneData, build_model, finetune, make_loaders
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.label_subset import LabelSubset
from medssl.training.semi_supervised.mean_teacher import MeanTeacher
from medssl.training.semi_supervised.methods import ExtraVolumes
from tests.helpers.toy_training import RunSettings, write_store

SMALL = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "patch_size": [16, 16, 16], "val_every_n_epochs": 1}
TRAIN = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 1, "lr": 1e-2}


def make_config(manifest: Path, run: Path, **changes) -> FinetuneConfig:
    train_options = TRAIN | changes.pop("train", {})
    values = SMALL | changes | {"manifest": manifest, "run": run, "train": train_options}
    return config.check(values, FinetuneConfig, "test")


def change_label(path: Path, number: int, change) -> None:
    """Replaces the label of a case."""
    manifest = Manifest.read(path)
    label_path = manifest.label_path(manifest.cases[number])
    volume = store.read(label_path).volume()
    label_path.unlink()
    store.write(label_path, replace(volume, voxels=change(volume.voxels)), {})


def change_first_case(path: Path, **changes) -> None:
    """Changes the first case of the manifest."""
    manifest = Manifest.read(path)
    replace(manifest, cases=(replace(manifest.cases[0], **changes), *manifest.cases[1:])).write(path)


@pytest.fixture
def pretrained_run(tmp_path) -> Path:
    """A run of an encoder with fresh weights."""
    model = TrainedModel.for_manifest(
        Manifest.read(write_store(tmp_path / "seen", 1)), make_config(tmp_path, tmp_path).encoder, (16, 16, 16)
    )
    run = Run.create(tmp_path / "pre", RunSettings(run=tmp_path), "pretrain", network=model.model_dump(mode="json"))
    torch.manual_seed(1)
    weight_transfer.save_parts({"encoder": model.build_encoder()}, run.path / "weights.safetensors")
    run.close()
    return run.path


def changed_encoder_tensors(run: Path, pretrained_run: Path) -> set[str]:
    """The tensors of the encoder that differ from the pretraining."""
    before, after = load_file(pretrained_run / "weights.safetensors"), load_file(run / "weights.safetensors")
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


@pytest.mark.parametrize("method", ["none", "mean-teacher", "pseudo-label"])
@pytest.mark.parametrize("schedule", ["full", "lora"])
def test_every_way_to_finetune_leaves_a_plain_network(schedule, method, tmp_path, pretrained_run):
    manifest = write_store(tmp_path / "store")
    options = {"schedule": schedule, "semi_supervised": method, "num_labelled": 1, "train": {"ema_decay": 0.5}}
    run = finetune(make_config(manifest, tmp_path / "run", pretrained=pretrained_run, **options))
    tensors = load_file(run.weights)
    plain = TrainedModel.from_run(run).build_task().transferable()
    assert tensors.keys() == {f"{part}.{key}" for part, module in plain.items() for key in module.state_dict()}
    predict = build_predictor(run)
    cases = Store(Manifest.read(manifest))
    assert predict(cases.image(cases.manifest.cases[0]).volume(), "a").labels.voxels.max() <= 1
    assert any(".conv." in name for name in changed_encoder_tensors(run.path, pretrained_run))


def test_a_frozen_encoder_keeps_the_pretrained_weights(tmp_path, pretrained_run):
    options = {"schedule": "frozen_encoder", "pretrained": pretrained_run}
    run = finetune(make_config(write_store(tmp_path / "store"), tmp_path / "run", **options))
    assert not changed_encoder_tensors(run.path, pretrained_run)


def test_pretrained_kernels_can_get_the_norm_of_fresh_ones(tmp_path, pretrained_run):
    train_options = {"epochs": 1, "steps_per_epoch": 1, "lr": 1e-9}
    options = {"train": train_options, "pretrained": pretrained_run, "rescale_kernel_norms": True}
    after = load_file(finetune(make_config(write_store(tmp_path / "store"), tmp_path / "run", **options)).weights)
    before = load_file(pretrained_run / "weights.safetensors")
    for name in (n for n in before if n.endswith("conv.weight")):
        cosine = torch.cosine_similarity(after[name].flatten(), before[name].flatten(), 0)
        assert cosine > 0.9999 and not torch.allclose(after[name].norm(), before[name].norm(), rtol=1e-4), name


def test_two_channels_are_learnt_from(tmp_path):
    run = finetune(make_config(write_store(tmp_path / "store", channels=2), tmp_path / "run"))
    assert TrainedModel.from_run(run).in_channels == 2 and np.isfinite(run.metadata["scores"]["val_dice"])


def test_the_annotated_classes_of_a_case_reach_its_crops(tmp_path):
    manifest = write_store(tmp_path / "store")
    metadata = StoreMetadata(
        labels={1: "ball", 2: "ghost", 3: "ignore"}, present_labels={"c0": [1], "c1": [1, 2], "c2": [1, 2]}
    )
    metadata.write(manifest.parent)
    change_label(manifest, 1, lambda label: np.where(label == 0, 3, label).astype(np.uint8))
    change_label(manifest, 2, lambda label: label * 2)
    options = {"semi_supervised": "pseudo-label", "num_labelled": 2, "foreground_fraction": 1.0}
    settings = make_config(manifest, tmp_path / "run", **options)
    data = FinetuneData.select(settings)
    loaders = make_loaders(settings, data, build_model(settings, data), ExtraVolumes(data.subset.unlabelled))
    annotated = {"c0": [True, True, False], "c1": [True] * 3, "c2": [True] * 3}
    for crops in loaders.train:
        for row, volume in enumerate(crops.volume.tolist()):
            values, name = set(crops.label[row].unique().tolist()), loaders.case_ids[volume]
            if volume < 2:
                assert crops.annotated[row].tolist() == annotated[name]
                assert values & {1, 2} and values <= ({IGNORE_INDEX, 1} if name == "c1" else {0, 1, 2})
            else:
                assert values == {IGNORE_INDEX} and name not in {case.id for case in data.subset.labelled.cases}
    assert np.isfinite(finetune(settings).metadata["scores"]["loss"])


def test_classes_that_are_not_selected_are_learnt_as_background(tmp_path):
    manifest = write_store(tmp_path / "store")
    StoreMetadata(labels={1: "ball", 2: "ghost"}).write(manifest.parent)
    for number in range(4):  # every ball lies in a ring of the other class
        change_label(
            manifest, number, lambda label: ndimage.binary_dilation(label, iterations=3).astype(np.uint8) + label
        )
    settings = make_config(manifest, tmp_path / "run", classes=["ghost"], foreground_fraction=1.0)
    data = FinetuneData.select(settings)
    model = build_model(settings, data)
    values = {
        value for crops in make_loaders(settings, data, model, None).train for value in crops.label.unique().tolist()
    }
    assert values == {0, 2} and model.spec.labels == {2: "ghost"}
    with pytest.raises(BadInput, match="gost is no class of this store; its classes are ball, ghost"):
        FinetuneData.select(make_config(manifest, tmp_path / "run", classes=["gost"]))
    with pytest.raises(BadInput, match="semi_supervised=auto learns all classes; leave `classes` out"):
        make_config(manifest, tmp_path / "run", classes=["ghost"], semi_supervised="auto")


@pytest.fixture
def ingest_real_cases(shared_data, tmp_path):
    """A function that ingests cases of a real data set and returns the manifest and the annotated classes by case."""

    def ingest(name: str, *cases: str) -> tuple[Path, dict[str, list[int]]]:
        whole, part = shared_data(name), tmp_path / name
        description = json.loads((whole / "dataset.json").read_text())
        training = [row for row in description["training"] if Path(row["label"]).name.split(".")[0] in cases]
        for row in training:
            for file in [row["label"], *([row["image"]] if isinstance(row["image"], str) else row["image"])]:
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(whole / file, part / file)
        present = {case: classes for case, classes in description.get("present_labels", {}).items() if case in cases}
        dropped = ("test", "unlabeled", "present_labels", "training")
        description = {key: value for key, value in description.items() if key not in dropped}
        description |= {"training": training, "present_labels": present}
        (part / "dataset.json").write_text(json.dumps(description))
        args = [str(part), "--out", str(tmp_path / "real"), "--split-fractions", "train=1", "--workers", "0"]
        assert cli.run("ingest", args) == 0
        return tmp_path / "real" / "manifest.csv", present

    return ingest


def test_real_volumes_with_different_annotated_organs_train_together(ingest_real_cases, tmp_path):
    manifest, present = ingest_real_cases("headneck_ct", "HN_001", "HN_002", "HN_003")
    assert len({tuple(classes) for classes in present.values()}) == 3
    options = {"augment": {"flip": [True, True, True]}, "allow_missing_classes": True}
    settings = make_config(manifest, tmp_path / "run", **options)
    data = FinetuneData.select(settings)
    loaders = make_loaders(settings, data, build_model(settings, data), None)
    for crops in loaders.train:
        for row, volume in zip(crops.annotated, crops.volume.tolist(), strict=True):
            assert row.nonzero()[1:, 0].tolist() == present[loaders.case_ids[volume]]
    assert presets.add_flip_pairs(settings.augment, data.subset.classes).left_right_pairs == ((3, 4),)
    with pytest.raises(BadInput, match=r"contains .*Larynx"):
        data.subset.check_classes(allow_missing_classes=False)
    assert np.isfinite(finetune(settings).metadata["scores"]["loss"])


def test_real_ct_and_mr_are_learnt_from_as_two_channels(ingest_real_cases, tmp_path):
    manifest, _ = ingest_real_cases("sarcoma", "STS_002", "STS_004")
    run = finetune(make_config(manifest, tmp_path / "run"))
    assert TrainedModel.from_run(run).in_channels == 2 and np.isfinite(run.metadata["scores"]["loss"])


def test_a_killed_training_with_a_teacher_resumes_to_the_same_weights(tmp_path, monkeypatch):
    manifest = write_store(tmp_path / "store")
    options = {"semi_supervised": "mean-teacher", "num_labelled": 1, "resume": True}
    complete = finetune(make_config(manifest, tmp_path / "complete", **options))

    class Killed(Exception):
        pass

    steps: list[int] = []
    after_step = MeanTeacher.after_step

    def fail_at_step_four(teacher) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise Killed
        after_step(teacher)

    resumed = make_config(manifest, tmp_path / "resumed", **options)
    monkeypatch.setattr(MeanTeacher, "after_step", fail_at_step_four)
    with pytest.raises(Killed):
        finetune(resumed)
    a, b = load_file(complete.weights), load_file(finetune(resumed).weights)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_presets_set_only_what_is_not_given():
    values = {"run": "r", "manifest": "m", "pretrained": "p", "schedule": "sawtooth", "few_label_preset": True}
    preset = config.check(values | {"num_labelled": 1}, FinetuneConfig, "test")
    assert (preset.train.schedule, preset.train.freeze_fraction) == ("sawtooth", 0.2)
    for_many = config.check(values | {"num_labelled": 16}, FinetuneConfig, "test")
    assert preset.augment.probability > for_many.augment.probability
    explicit = {"train": {"freeze_fraction": 0.5, "weight_decay": 0.0}, "augment": {"probability": 0.1}}
    merged = config.check(values | {"num_labelled": 1} | explicit, FinetuneConfig, "test")
    assert (merged.train.freeze_fraction, merged.train.weight_decay, merged.augment.probability) == (0.5, 0.0, 0.1)
    assert merged.train.schedule == "sawtooth" and merged.augment.elastic == preset.augment.elastic


@pytest.mark.parametrize("schedule", presets.Schedule.__args__)
@pytest.mark.parametrize("labels", [1, 2, 4, 8, 16, None])
def test_resolved_settings_read_back_the_same_and_steps_do_not_depend_on_the_labels(schedule, labels):
    start = None if schedule == "scratch" else "p"
    values = {"run": "r", "manifest": "m", "pretrained": start, "schedule": schedule, "num_labelled": labels}
    settings = config.check(values | {"few_label_preset": True}, FinetuneConfig, "test")
    assert config.check(settings.model_dump(mode="json"), FinetuneConfig, "again") == settings
    assert settings.train.total_steps == FinetuneConfig(run="r", manifest="m").train.total_steps


def test_the_preset_for_all_labels_is_that_of_their_number():
    values = {"run": "r", "manifest": "m", "few_label_preset": True, "schedule": "warmup"}
    values |= {"train": {"steps_per_epoch": 7}}
    all_labels = config.check(values, FinetuneConfig, "test")
    for number in (3, 16, 40):
        expected = config.check(values | {"num_labelled": number}, FinetuneConfig, "test")
        assert all_labels.with_presets(number) == expected.model_copy(update={"num_labelled": None})
    preset = all_labels.with_presets(3)
    assert preset.augment.elastic == 0.15 and preset.train.steps_per_epoch == 7
    assert all_labels.with_presets(40) == all_labels


def test_a_training_on_all_of_few_labels_uses_the_preset(tmp_path):
    run = finetune(make_config(write_store(tmp_path / "store"), tmp_path / "run", few_label_preset=True))
    assert run.read_settings()["train"]["weight_decay"] == 0.1 and run.read_settings()["num_labelled"] is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("warmup", {"warmup_fraction": 0.2}),
        ("layer-wise", {"layer_decay": 0.65}),
        ("sawtooth", {"schedule": "sawtooth", "freeze_fraction": 0.2, "warmup_fraction": 0.2}),
        ("discriminative", {"head_lr_scale": 5.0, "finest_lr_scale": 0.5, "coarser_lr_scale": 0.05}),
        ("frozen_encoder", {"freeze_fraction": 1.0}),
        ("full", {}),
    ],
)
def test_a_schedule_preset_sets_what_the_guide_states(schedule, expected):
    values = {"run": "r", "manifest": "m", "pretrained": "p"}
    preset = config.check(values | {"schedule": schedule}, FinetuneConfig, "test").train
    assert preset == FinetuneConfig(**values).train.model_copy(update=expected)


def test_fewer_labels_are_never_regularized_less():
    values = {"run": "r", "manifest": "m", "few_label_preset": True}
    configs = [config.check(values | {"num_labelled": k}, FinetuneConfig, "test") for k in (1, 2, 4, 8, 16, 17)]
    strengths = [(c.augment.probability, c.train.weight_decay) for c in configs]
    assert strengths == sorted(strengths, reverse=True) and strengths[0] > strengths[-1]
    plain = {"run": "r", "manifest": "m", "num_labelled": 17}
    assert configs[-1].train == config.check(plain, FinetuneConfig, "test").train
    assert configs[-1].augment == config.check(plain, FinetuneConfig, "test").augment
    assert configs[-1] == config.check(values | {"num_labelled": 17}, FinetuneConfig, "test")


def run_refused(capsys, config_file: Path, *args: object) -> str:
    """Runs `medssl finetune`, which must refuse, and returns the error line."""
    capsys.readouterr()
    assert cli.run("finetune", [str(config_file), *map(str, args)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.fixture
def config_file(tmp_path) -> Path:
    """A small config."""
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"train": TRAIN}))
    return path


def request_too_many_labels(manifest: Path) -> list[str]:
    return ["num_labelled=9"]


def use_undeclared_class(manifest: Path) -> list[str]:
    change_label(manifest, 0, lambda label: label * 7)
    return []


def declare_absent_class(manifest: Path) -> list[str]:
    StoreMetadata(labels={1: "ball", 2: "cube"}).write(manifest.parent)
    return []


def share_patient_with_test(manifest: Path) -> list[str]:
    change_first_case(manifest, split="test", patient=Manifest.read(manifest).cases[1].patient)
    return []


def store_nan_voxels(path: Path) -> list[str]:
    manifest = Manifest.read(path)
    for case in manifest.cases:
        image_path = manifest.path(case)
        volume = store.read(image_path).volume()
        image_path.unlink()
        store.write(image_path, replace(volume, voxels=np.full_like(volume.voxels, np.nan)), {})
    return []


BAD = [
    (request_too_many_labels, "9 labelled cases requested, 3 available"),
    (use_undeclared_class, r"label of c0: has classes [7], the store declares [1]"),
    (
        declare_absent_class,
        "none of the 3 labelled volumes contains cube; use more labelled volumes or another seed, or set"
        " allow_missing_classes=true",
    ),
    (share_patient_with_test, "c1 of train and c0 of test belong to one patient"),
    (store_nan_voxels, "c0: voxels are not finite (NaN or infinity); correct the image and run ingest again"),
    (lambda manifest: ["semi_supervised=pseudo-label"], "split train has no cases besides the labelled ones"),
    (
        lambda manifest: ["semi_supervised=pseudo-label", "task=detect", "num_labelled=1"],
        "only available for task=segment",
    ),
    (lambda manifest: ["semi_supervised=teacher"], "semi_supervised.method"),
    (lambda manifest: ["schedule=lora"], "give pretrained=RUN"),
    (lambda manifest: ["schedule=scratch", "pretrained=x"], "starts from random weights"),
]


@pytest.mark.parametrize("spoil, message", BAD)
def test_bad_input_is_one_line_with_a_remedy(spoil, message, tmp_path, config_file, capsys):
    manifest, run = write_store(tmp_path / "store"), tmp_path / "run"
    overrides = spoil(manifest)
    assert message in run_refused(capsys, config_file, f"manifest={manifest}", f"run={run}", *overrides)
    assert not (run / "weights.safetensors").exists()


def test_absent_classes_and_shared_patients_are_allowed_on_request(tmp_path):
    manifest = write_store(tmp_path / "store")
    declare_absent_class(manifest)
    share_patient_with_test(manifest)
    finetune(make_config(manifest, tmp_path / "run", allow_missing_classes=True, allow_overlap=True))


def test_flips_follow_the_class_names(tmp_path):
    plain = LabelSubset.select(Manifest.read(write_store(tmp_path / "store")), 1, 0).classes
    both = replace(plain, names={1: "left ball", 2: "right ball"})
    one_side = replace(plain, names={1: "left ball"})
    flips = make_config(tmp_path, tmp_path, augment={"flip": [True, True, True]}).augment
    assert presets.add_flip_pairs(flips, both).left_right_pairs == ((1, 2),)
    assert presets.add_flip_pairs(flips, one_side).flip == (False, True, True)
    assert presets.add_flip_pairs(flips, plain) == flips


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([[1, 2]], "class 2 is in the same regions as class 1"),
        ([[1]], r"task\.regions: cube is in none of the regions"),
    ],
)
def test_regions_that_do_not_distinguish_the_classes_are_refused(tmp_path, regions, message):
    manifest = write_store(tmp_path / "store")
    StoreMetadata(labels={1: "ball", 2: "cube"}).write(manifest.parent)
    options = {"allow_missing_classes": True, "task": {"name": "segment", "regions": regions}}
    with pytest.raises(BadInput, match=message):
        finetune(make_config(manifest, tmp_path / "run", **options))


@pytest.mark.parametrize("schedule", ["sawtooth", "layer-wise", "discriminative", "frozen_encoder", "lora"])
def test_a_schedule_for_pretrained_weights_is_refused_without_any(schedule):
    with pytest.raises(BadInput, match=f"schedule={schedule} .*give pretrained=RUN"):
        config.check({"run": "r", "manifest": "m", "schedule": schedule}, FinetuneConfig, "test")


def test_a_decoder_pretrained_on_parcels_transfers_and_the_discriminative_schedule_changes_it_less(tmp_path):
    manifest = write_store(tmp_path / "store")
    parcel_config = parcels.AtlasConfig(num_parcels=5)
    parcel_manifest = parcels.build_atlas(manifest, tmp_path / "parcels", parcel_config, lambda *_: None).manifest
    first = finetune(make_config(parcel_manifest, tmp_path / "first", num_labelled=None))
    before = load_file(first.weights)
    distance = {}
    for schedule in ("discriminative", "full"):
        run = finetune(make_config(manifest, tmp_path / schedule, pretrained=first.path, schedule=schedule))
        statuses = {entry["key"]: entry["status"] for entry in run.metadata["transfer"]}
        for key, status in statuses.items():
            assert status == ("skipped" if key.startswith("heads") else "loaded"), key
        after = load_file(run.weights)
        changes = ((after[key] - before[key]).norm() for key in before if key.startswith(("encoder", "decoder")))
        distance[schedule] = float(sum(changes))
    assert distance["discriminative"] < 0.5 * distance["full"]


def test_neither_training_nor_selection_uses_the_test_cases(tmp_path):
    """The weights are the same with other labels of the test cases, and without their files."""
    path = write_store(tmp_path / "store")
    change_first_case(path, split="test")
    change_label(path, 0, lambda label: 1 - label)
    complete = finetune(make_config(path, tmp_path / "complete"))
    manifest = Manifest.read(path)
    manifest.path(manifest.cases[0]).unlink()
    manifest.label_path(manifest.cases[0]).unlink()
    without = finetune(make_config(path, tmp_path / "without"))
    a, b = load_file(complete.weights), load_file(without.weights)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    report = (without.path / "report.html").read_text()
    assert "<b>val dice ball</b>" in report and "<dt>val dice ball</dt>" in report and "val dice 1" not in report
    scores = [{key: run.metadata["scores"][key] for key in ("best_val_dice", "loss")} for run in (complete, without)]
    assert scores[0] == scores[1]
