"""A finetuning leaves a plain network however it was trained, and says in one line what cannot be learnt from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from medssl import cli, config
from medssl.data import store
from medssl.data.classes import UNKNOWN
from medssl.data.manifest import Manifest
from medssl.data.registration import parcels
from medssl.data.store import Card, Store
from medssl.errors import BadInput
from medssl.models.trained_model import Network, predictor
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.training import finetune as finetuning
from medssl.training import presets
from medssl.training.finetune import Finetune, finetune
from medssl.training.label_subset import Shown
from tests.helpers.toy_training import Plain, shelf

SMALL = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "crop": [16, 16, 16], "validate_every": 1}
PLAN = {"epochs": 2, "steps": 2, "batch": 1, "lr": 1e-2}


def asked(manifest: Path, run: Path, **changes) -> Finetune:
    plan = PLAN | changes.pop("plan", {})
    return config.check(SMALL | changes | {"manifest": manifest, "run": run, "plan": plan}, Finetune, "test")


def relabelled(manifest: Path, number: int, change) -> None:
    """Writes a case's label anew."""
    shelved = Manifest.read(manifest)
    place = shelved.label_path(shelved.cases[number])
    volume = store.read(place).volume()
    place.unlink()
    store.write(place, replace(volume, voxels=change(volume.voxels)), {})


def resplit(manifest: Path, **changes) -> None:
    """Changes the first case of the manifest."""
    shelved = Manifest.read(manifest)
    replace(shelved, cases=(replace(shelved.cases[0], **changes), *shelved.cases[1:])).write(manifest)


@pytest.fixture
def pretrained(tmp_path) -> Path:
    """A run of an encoder that learnt nothing yet."""
    network = Network.on(Manifest.read(shelf(tmp_path / "seen", 1)), asked(tmp_path, tmp_path).encoder, (16, 16, 16))
    run = Run.create(tmp_path / "pre", Plain(run=tmp_path), "pretrain", network=network.model_dump(mode="json"))
    torch.manual_seed(1)
    transfer.save({"encoder": network.body()}, run.path / "weights.safetensors")
    run.close()
    return run.path


def moved(run: Path, pretrained: Path) -> set[str]:
    """Which kernels and norms of the encoder are no longer the pretraining's."""
    before, now = load_file(pretrained / "weights.safetensors"), load_file(run / "weights.safetensors")
    return {name for name, weight in before.items() if not torch.equal(weight, now[name])}


@pytest.mark.parametrize("unlabelled", ["none", "mean-teacher", "pseudo"])
@pytest.mark.parametrize("schedule", ["full", "lora"])
def test_every_way_to_finetune_leaves_a_plain_network(schedule, unlabelled, tmp_path, pretrained):
    manifest = shelf(tmp_path / "store")
    plan = {"ema": 0.5}
    ask = asked(
        manifest, tmp_path / "run", schedule=schedule, unlabelled=unlabelled, labels=1, plan=plan, pretrained=pretrained
    )
    run = finetune(ask)
    tensors = load_file(run.weights)
    plain = Network.of(run).blank().transferable()
    assert tensors.keys() == {f"{part}.{key}" for part, module in plain.items() for key in module.state_dict()}
    predict = predictor(run)
    shelved = Store(Manifest.read(manifest))
    assert predict(shelved.image(shelved.manifest.cases[0]).volume(), "a").labels.voxels.max() <= 1
    assert any(".conv." in name for name in moved(run.path, pretrained))


def test_a_frozen_encoder_is_the_pretrainings(tmp_path, pretrained):
    run = finetune(asked(shelf(tmp_path / "store"), tmp_path / "run", schedule="frozen", pretrained=pretrained))
    assert not moved(run.path, pretrained)


def test_kernels_of_a_pretraining_may_get_the_length_of_fresh_ones(tmp_path, pretrained):
    plan = {"epochs": 1, "steps": 1, "lr": 1e-9}
    told = {"plan": plan, "pretrained": pretrained, "rescale": True}
    now = load_file(finetune(asked(shelf(tmp_path / "store"), tmp_path / "run", **told)).weights)
    before = load_file(pretrained / "weights.safetensors")
    for name in (n for n in before if n.endswith("conv.weight")):
        turned = torch.cosine_similarity(now[name].flatten(), before[name].flatten(), 0)
        assert turned > 0.9999 and not torch.allclose(now[name].norm(), before[name].norm(), rtol=1e-4), name


def test_two_channels_are_learnt_from(tmp_path):
    run = finetune(asked(shelf(tmp_path / "store", channels=2), tmp_path / "run"))
    assert Network.of(run).in_channels == 2 and np.isfinite(run.card["scores"]["val_dice"])


def test_what_was_drawn_in_a_case_reaches_its_crops(tmp_path):
    manifest = shelf(tmp_path / "store")
    card = Card(labels={1: "ball", 2: "ghost", 3: "ignore"}, present_labels={"c0": [1], "c1": [1, 2], "c2": [1, 2]})
    card.write(manifest.parent)
    relabelled(manifest, 1, lambda label: np.where(label == 0, 3, label).astype(np.uint8))
    relabelled(manifest, 2, lambda label: label * 2)
    ask = asked(manifest, tmp_path / "run", unlabelled="pseudo", labels=2, foreground=1.0)
    shown = Shown.of(Manifest.read(manifest), 2, 0)
    network = Network.on(shown.few, ask.encoder, ask.crop)
    loader, pools = finetuning._fed(shown, network, ask, by_part=False)
    cases = [case for pool in pools for case in pool.cases]
    told = {"c0": [True, True, False], "c1": [True] * 3, "c2": [True] * 3}
    for crops in loader:
        for row, volume in enumerate(crops.volume.tolist()):
            values, name = set(crops.label[row].unique().tolist()), cases[volume].id
            if volume < 2:
                assert crops.drawn[row].tolist() == told[name]
                assert values & {1, 2} and values <= ({UNKNOWN, 1} if name == "c1" else {0, 1, 2})
            else:
                assert values == {UNKNOWN} and name not in {case.id for case in shown.few.cases}
    assert np.isfinite(finetune(ask).card["scores"]["loss"])


@pytest.fixture
def some(shared_data, tmp_path):
    """A function from a real data set and cases of it to the manifest of their store, and what was drawn in each."""

    def ingested(name: str, *cases: str) -> tuple[Path, dict[str, list[int]]]:
        whole, part = shared_data(name), tmp_path / name
        told = json.loads((whole / "dataset.json").read_text())
        told["training"] = [row for row in told["training"] if Path(row["label"]).name.split(".")[0] in cases]
        for row in told["training"]:
            for file in [row["label"], *([row["image"]] if isinstance(row["image"], str) else row["image"])]:
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(whole / file, part / file)
        left = {key: value for key, value in told.items() if key not in ("test", "unlabeled", "present_labels")}
        drawn = {case: classes for case, classes in told.get("present_labels", {}).items() if case in cases}
        (part / "dataset.json").write_text(json.dumps(left | {"present_labels": drawn}))
        words = [str(part), "--out", str(tmp_path / "real"), "--shares", "train=1", "--workers", "1"]
        assert cli.run("ingest", words) == 0
        return tmp_path / "real" / "manifest.csv", drawn

    return ingested


def test_real_volumes_with_different_organs_drawn_train_together(some, tmp_path):
    manifest, drawn = some("headneck_ct", "HN_001", "HN_002", "HN_003")
    assert len({tuple(classes) for classes in drawn.values()}) == 3
    ask = asked(manifest, tmp_path / "run", augment={"flip": [True, True, True]}, allow_absent=True)
    shown = Shown.of(Manifest.read(manifest), None, 0)
    loader, (few,) = finetuning._fed(shown, Network.on(shown.few, ask.encoder, ask.crop), ask, by_part=False)
    for crops in loader:
        for row, volume in zip(crops.drawn, crops.volume.tolist(), strict=True):
            assert row.nonzero()[1:, 0].tolist() == drawn[few.cases[volume].id]
    assert finetuning._sided(ask.augment, shown.classes).swap == ((3, 4),)
    with pytest.raises(BadInput, match="hold no Larynx"):
        shown.check(allow_absent=False)
    assert np.isfinite(finetune(ask).card["scores"]["loss"])


def test_real_ct_and_mr_are_learnt_from_as_two_channels(some, tmp_path):
    manifest, _ = some("sarcoma", "STS_002", "STS_004")
    run = finetune(asked(manifest, tmp_path / "run"))
    assert Network.of(run).in_channels == 2 and np.isfinite(run.card["scores"]["loss"])


def test_a_killed_training_with_a_teacher_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    manifest = shelf(tmp_path / "store")
    whole = finetune(asked(manifest, tmp_path / "whole", unlabelled="mean-teacher", labels=1, resume=True))

    class Killed(Exception):
        pass

    taken: list[int] = []
    after = finetuning.Taught.after_step

    def fails(taught) -> None:
        taken.append(1)
        if len(taken) == 4:
            raise Killed
        after(taught)

    torn = asked(manifest, tmp_path / "torn", unlabelled="mean-teacher", labels=1, resume=True)
    monkeypatch.setattr(finetuning.Taught, "after_step", fails)
    with pytest.raises(Killed):
        finetune(torn)
    a, b = load_file(whole.weights), load_file(finetune(torn).weights)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_schedules_and_few_labels_fill_in_what_is_not_given():
    words = {"run": "r", "manifest": "m", "pretrained": "p"}
    one = config.check(words | {"schedule": "sawtooth", "labels": 1, "regularise": True}, Finetune, "test")
    assert (one.plan.schedule, one.plan.freeze) == ("sawtooth", 0.2)
    assert one.augment.share > config.check(words | {"labels": 16, "regularise": True}, Finetune, "t").augment.share
    own = {"plan": {"freeze": 0.5, "weight_decay": 0.0}, "augment": {"share": 0.1}}
    two = config.check(words | {"schedule": "sawtooth", "labels": 1, "regularise": True} | own, Finetune, "test")
    assert (two.plan.freeze, two.plan.weight_decay, two.augment.share) == (0.5, 0.0, 0.1)
    assert two.plan.schedule == "sawtooth" and two.augment.elastic == one.augment.elastic


@pytest.mark.parametrize("schedule", presets.Schedule.__args__)
@pytest.mark.parametrize("labels", [1, 2, 4, 8, 16, None])
def test_resolved_settings_read_back_the_same_and_steps_do_not_depend_on_the_labels(schedule, labels):
    start = None if schedule == "scratch" else "p"
    words = {"run": "r", "manifest": "m", "pretrained": start, "schedule": schedule, "labels": labels}
    settings = config.check(words | {"regularise": True}, Finetune, "test")
    assert config.check(settings.model_dump(mode="json"), Finetune, "again") == settings
    assert settings.plan.total == Finetune(run="r", manifest="m").plan.total


def test_all_labels_are_regularised_as_so_many_are():
    words = {"run": "r", "manifest": "m", "regularise": True, "schedule": "warm-up", "plan": {"steps": 7}}
    whole = config.check(words, Finetune, "test")
    for labels in (3, 16, 40):
        told = config.check(words | {"labels": labels}, Finetune, "test")
        assert whole.filled(labels) == told.model_copy(update={"labels": None})
    assert whole.filled(3).augment.elastic == 0.15 and whole.filled(3).plan.steps == 7
    assert whole.filled(40) == whole


def test_few_labels_in_all_are_regularised_in_a_training(tmp_path):
    run = finetune(asked(shelf(tmp_path / "store"), tmp_path / "run", regularise=True))
    assert run.settings()["plan"]["weight_decay"] == 0.1 and run.settings()["labels"] is None


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("warm-up", {"warmup": 0.2}),
        ("layer-wise", {"layer_decay": 0.65}),
        ("sawtooth", {"schedule": "sawtooth", "freeze": 0.2, "warmup": 0.2}),
        ("gentle", {"heads_lr": 5.0, "finest_lr": 0.5, "coarser_lr": 0.05}),
        ("frozen", {"freeze": 1.0}),
        ("full", {}),
    ],
)
def test_a_schedule_by_name_is_the_plan_that_the_guide_tells(schedule, wanted):
    words = {"run": "r", "manifest": "m", "pretrained": "p"}
    plan = config.check(words | {"schedule": schedule}, Finetune, "test").plan
    assert plan == Finetune(**words).plan.model_copy(update=wanted)


def test_fewer_labels_never_regularise_less():
    words = {"run": "r", "manifest": "m", "regularise": True}
    asks = [config.check(words | {"labels": k}, Finetune, "test") for k in (1, 2, 4, 8, 16, 17)]
    strengths = [(a.augment.share, a.plan.weight_decay) for a in asks]
    assert strengths == sorted(strengths, reverse=True) and strengths[0] > strengths[-1]
    assert asks[-1] == config.check(words | {"labels": 17, "regularise": True}, Finetune, "test")


def refused(capsys, config_file: Path, *words: object) -> str:
    """The one line of a refused `medssl finetune`."""
    capsys.readouterr()
    assert cli.run("finetune", [str(config_file), *map(str, words)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in said)
    return said[-1]


@pytest.fixture
def config_file(tmp_path) -> Path:
    """A small recipe."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"plan": PLAN}))
    return path


def too_many(manifest: Path) -> list[str]:
    return ["labels=9"]


def undeclared(manifest: Path) -> list[str]:
    relabelled(manifest, 0, lambda label: label * 7)
    return []


def absent(manifest: Path) -> list[str]:
    Card(labels={1: "ball", 2: "cube"}).write(manifest.parent)
    return []


def both_sides(manifest: Path) -> list[str]:
    shelved = Manifest.read(manifest)
    resplit(manifest, split="test", patient=shelved.cases[1].patient)
    return []


def no_number(manifest: Path) -> list[str]:
    shelved = Manifest.read(manifest)
    for case in shelved.cases:
        place = shelved.path(case)
        volume = store.read(place).volume()
        place.unlink()
        store.write(place, replace(volume, voxels=np.full_like(volume.voxels, np.nan)), {})
    return []


BAD = [
    (too_many, "9 labelled cases asked for, 3 are there"),
    (undeclared, r"label of c0: holds classes [7], the store declares [1]"),
    (absent, "3 labelled volumes hold no cube; give more labels, another seed, or allow_absent=true"),
    (both_sides, "c1 of train and c0 of test are one patient"),
    (no_number, "c1: voxels are no numbers (NaN or infinity); ingest anew"),
    (lambda manifest: ["unlabelled=pseudo"], "split train has no case beside the labelled ones"),
    (lambda manifest: ["unlabelled=pseudo", "task=detect", "labels=1"], "is there for task=segment only"),
    (lambda manifest: ["unlabelled=teacher"], "unlabelled.name"),
    (lambda manifest: ["schedule=lora"], "give pretrained=RUN"),
    (lambda manifest: ["schedule=scratch", "pretrained=x"], "starts from nothing"),
]


@pytest.mark.parametrize("spoil, said", BAD)
def test_bad_input_is_one_line_with_a_remedy(spoil, said, tmp_path, config_file, capsys):
    manifest, run = shelf(tmp_path / "store"), tmp_path / "run"
    words = spoil(manifest)
    assert said in refused(capsys, config_file, f"manifest={manifest}", f"run={run}", *words)
    assert not (run / "weights.safetensors").exists()


def test_absent_classes_and_shared_patients_are_allowed_on_request(tmp_path):
    manifest = shelf(tmp_path / "store")
    absent(manifest)
    both_sides(manifest)
    finetune(asked(manifest, tmp_path / "run", allow_absent=True, allow_overlap=True))


def test_a_mirror_follows_the_names(tmp_path):
    sided = Shown.of(Manifest.read(shelf(tmp_path / "store")), 1, 0).classes
    both = replace(sided, names={1: "left ball", 2: "right ball"})
    alone = replace(sided, names={1: "left ball"})
    flips = asked(tmp_path, tmp_path, augment={"flip": [True, True, True]}).augment
    assert finetuning._sided(flips, both).swap == ((1, 2),)
    assert finetuning._sided(flips, alone).flip == (False, True, True)
    assert finetuning._sided(flips, sided) == flips


@pytest.mark.parametrize(
    ("regions", "said"), [([[1, 2]], "nothing tells class 2"), ([[1]], r"task\.regions: cube lies in none of them")]
)
def test_regions_that_cannot_be_told_apart_are_refused(tmp_path, regions, said):
    manifest = shelf(tmp_path / "store")
    Card(labels={1: "ball", 2: "cube"}).write(manifest.parent)
    with pytest.raises(BadInput, match=said):
        finetune(asked(manifest, tmp_path / "run", allow_absent=True, task={"name": "segment", "regions": regions}))


@pytest.mark.parametrize("schedule", ["sawtooth", "layer-wise", "gentle", "frozen", "lora"])
def test_a_schedule_for_pretrained_weights_is_refused_without_any(schedule):
    with pytest.raises(BadInput, match=f"schedule={schedule} .*give pretrained=RUN"):
        config.check({"run": "r", "manifest": "m", "schedule": schedule}, Finetune, "test")


def test_a_network_that_learnt_parcels_hands_on_its_decoder_and_a_gentle_finetuning_keeps_to_it(tmp_path):
    manifest = shelf(tmp_path / "store")
    made = parcels.make(manifest, tmp_path / "parcels", parcels.Options(parcels=5), lambda *told: None).manifest
    first = finetune(asked(made, tmp_path / "first", labels=None))
    before = load_file(first.weights)
    far = {}
    for schedule in ("gentle", "full"):
        run = finetune(asked(manifest, tmp_path / schedule, pretrained=first.path, schedule=schedule))
        fates = {entry["key"]: entry["fate"] for entry in run.card["transfer"]}
        assert all(fate == ("skipped" if key.startswith("heads") else "loaded") for key, fate in fates.items())
        after = load_file(run.weights)
        far[schedule] = sum(
            float((after[key] - before[key]).norm()) for key in before if key.startswith(("encoder", "decoder"))
        )
    assert far["gentle"] < 0.5 * far["full"]


def test_neither_training_nor_selection_looks_at_the_test_cases(tmp_path):
    """Their files are not even there; without them, and with them labelled otherwise, the weights are the same."""
    manifest = shelf(tmp_path / "store")
    resplit(manifest, split="test")
    relabelled(manifest, 0, lambda label: 1 - label)
    whole = finetune(asked(manifest, tmp_path / "whole"))
    shelved = Manifest.read(manifest)
    shelved.path(shelved.cases[0]).unlink()
    shelved.label_path(shelved.cases[0]).unlink()
    without = finetune(asked(manifest, tmp_path / "without"))
    a, b = load_file(whole.weights), load_file(without.weights)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    report = (without.path / "report.html").read_text()
    assert "<b>val dice ball</b>" in report and "<dt>val dice ball</dt>" in report and "val dice 1" not in report
    same = [{key: run.card["scores"][key] for key in ("best_val_dice", "loss")} for run in (whole, without)]
    assert same[0] == same[1]
