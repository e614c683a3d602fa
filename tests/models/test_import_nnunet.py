"""A checkpoint of nnU-Net becomes a run that predicts and that finetuning starts from, with its licence."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from torch import nn

from medssl import cli
from medssl.errors import BadInput
from medssl.models.import_weights import ImportConfig, import_weights
from medssl.models.nnunet_plans import TrainingPlan, read_plan
from medssl.models.trained_model import TrainedModel, build_predictor
from medssl.run import Run
from medssl.volume import Volume
from tests.helpers.finished_runs import write_scans
from tests.helpers.toy_training import write_store

CT = {"mean": 50.0, "std": 120.0, "percentile_00_5": -200.0, "percentile_99_5": 300.0}
CONFIGURATION = {"patch_size": [8, 16, 16], "spacing": [2.5, 1.0, 1.2], "normalization_schemes": ["CTNormalization"]}
PLANS = {
    "configurations": {
        "3d_fullres": CONFIGURATION,
        "3d_low": {"inherits_from": "3d_fullres", "spacing": [5.0, 2.0, 2.0]},
    },
    "foreground_intensity_properties_per_channel": {"0": CT},
    "transpose_forward": [0, 1, 2],
}
DATASET = {"labels": {"background": 0, "ball": 1}, "channel_names": {"0": "CT"}}


def make_network(num_classes=2):
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="needs dynamic-network-architectures (the `test` extra)",
    )
    torch.manual_seed(0)
    return unet.PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv3d, 3, ((1, 1, 1), (1, 2, 2), (2, 2, 2)), 2, num_classes, 2, True, nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True},
    ).eval()  # fmt: skip


def write_checkpoint(folder, net, plans=PLANS, dataset=DATASET, **values):
    arguments = {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": dataset}
    content = {"network_weights": net.state_dict(), "init_args": arguments, "trainer_name": "nnUNetTrainer"}
    folder.mkdir(exist_ok=True)
    torch.save(content | values, folder / "checkpoint_final.pth")
    return folder / "checkpoint_final.pth"


def run_import(path, out, **options):
    return import_weights(ImportConfig(file=path, run=out, licence="Apache-2.0", **options))[0]


def test_an_imported_network_predicts_what_nnunet_computes(tmp_path):
    net = make_network()
    run = run_import(write_checkpoint(tmp_path, net), tmp_path / "run")
    model = TrainedModel.from_run(run)
    assert model.labels == {1: "ball"} and model.units == ("HU",)
    assert (model.patch_size, model.spacing_mm) == ((16, 16, 8), (1.2, 1.0, 2.5))
    hu = np.random.default_rng(0).normal(40, 150, (16, 16, 8)).round().astype(np.int16)
    predictor = build_predictor(run)
    prepared = predictor.prepare(Volume(hu, np.diag([1.2, 1.0, 2.5, 1.0]), "HU"))
    probability = predictor.network(prepared.voxels[None, None])
    z_score = (np.clip(hu, -200, 300) - CT["mean"]) / CT["std"]
    upstream = net(torch.from_numpy(z_score.astype(np.float32)).permute(2, 1, 0)[None, None])
    expected = upstream.softmax(1).permute(0, 1, 4, 3, 2)
    assert (probability - expected).abs().max() <= 1e-5


def test_an_imported_network_predicts_finetunes_and_keeps_its_licence(tmp_path, capsys):
    path = write_checkpoint(tmp_path, make_network())
    assert cli.run("import-weights", [str(path), "--out", str(tmp_path / "run"), "--licence", "Apache-2.0"]) == 0
    output = capsys.readouterr().out
    assert "the norm behind it removes it" in output and "--spacing 1.2,1,2.5 --normalization" in output
    next_command = next(line for line in output.splitlines() if "medssl finetune" in line)
    write_scans(tmp_path / "scans", count=1)
    arguments = [str(tmp_path / "run"), str(tmp_path / "scans"), "--modality", "CT", "--out", str(tmp_path / "out")]
    assert cli.run("predict", arguments) == 0
    assert (tmp_path / "out" / "index.json").is_file()

    manifest = write_store(tmp_path / "store")
    words = next_command.partition("finetune ")[2].split()
    words = [word for word in words if not word.startswith(("manifest=", "patch_size="))]
    short = ["train.epochs=1", "train.steps_per_epoch=1", "train.lr=1.0e-9", "patch_size=[16,16,8]"]
    options = [f"manifest={manifest}", f"run={tmp_path / 'fine'}", "allow_normalization_mismatch=true", *short]
    assert cli.run("finetune", [*words, *options]) == 0
    fine = Run.open(tmp_path / "fine")
    assert all(entry["status"] == "loaded" for entry in fine.metadata["transfer"])
    assert fine.metadata["start_licences"][0]["licence"] == "Apache-2.0"
    assert "start_val_dice" in fine.metadata["scores"]

    assert cli.run("publish", [str(fine.path), "--out", str(tmp_path / "given")]) == 0
    assert "checkpoint_final.pth (SHA-256" in (tmp_path / "given" / "README.md").read_text()
    assert "licence: Apache-2.0" in (tmp_path / "given" / "README.md").read_text()
    out = tmp_path / "encoder.safetensors"
    assert cli.run("export-weights", [str(fine.path), "--to", "nnunet", "--out", str(out)]) == 0
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["licences"])[0]["licence"] == "Apache-2.0"
        assert "encoder.stages.0.0.convs.0.conv.weight" in file.keys()  # noqa: SIM118


def test_a_finetuning_that_makes_a_network_worse_keeps_its_start(tmp_path):
    """The start has learnt the classes of the store; a learning rate that is far too high spoils it."""
    manifest = write_store(tmp_path / "store")
    network = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "patch_size": [16, 16, 16]}
    options = {"manifest": str(manifest), "val_every_n_epochs": 1} | network
    train = {"epochs": 1, "steps_per_epoch": 40, "batch_size": 2, "lr": 1e-2}
    for name, changes in (("good", {}), ("spoilt", {"pretrained": str(tmp_path / "good")})):
        lr = {"lr": 30.0, "steps_per_epoch": 3, "gradient_clip": 1e6} if changes else {}
        values = options | changes | {"run": str(tmp_path / name), "train": train | lr}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
        assert cli.run("finetune", [str(tmp_path / f"{name}.yaml")]) == 0
    good, spoilt = Run.open(tmp_path / "good"), Run.open(tmp_path / "spoilt")
    scores = spoilt.metadata["scores"]
    assert scores["start_val_dice"] == pytest.approx(good.metadata["scores"]["best_val_dice"], abs=1e-6)
    assert scores["start_val_dice"] > scores["best_val_dice"]
    assert "the weights of the start are kept" in spoilt.metadata["alarm"]
    assert spoilt.metadata["weights_sha256"] == good.metadata["weights_sha256"]


def test_classes_without_names_are_numbered_or_named_by_the_user(tmp_path, caplog):
    net = make_network(3)
    path = write_checkpoint(tmp_path, net, plans=None, dataset=None)
    assert TrainedModel.from_run(run_import(path, tmp_path / "a")).labels == {1: "class 1", 2: "class 2"}
    assert "--labels names them" in caplog.text
    named = run_import(path, tmp_path / "b", labels=("liver", "spleen"))
    assert TrainedModel.from_run(named).labels == {1: "liver", 2: "spleen"}
    with pytest.raises(BadInput, match=r"has 2 classes, the names are liver; give the names of classes 1, 2"):
        run_import(path, tmp_path / "c", labels=("liver",))


def test_plans_beside_the_checkpoint_are_read(tmp_path):
    path = write_checkpoint(tmp_path / "fold_0", make_network(), plans=None, dataset=None)
    (tmp_path / "plans.json").write_text(json.dumps(PLANS))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    model = TrainedModel.from_run(run_import(path, tmp_path / "run"))
    assert model.labels == {1: "ball"} and model.spacing_mm == (1.2, 1.0, 2.5)


def test_overlapping_regions_leave_encoder_and_decoder(tmp_path):
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}}
    run, report = import_weights(
        ImportConfig(
            file=write_checkpoint(tmp_path, make_network(2), dataset=regions), run=tmp_path / "run", licence="x"
        )
    )
    assert TrainedModel.from_run(run).labels == {}
    assert {e.key.partition(".")[0] for e in report.entries if e.status == "loaded"} == {"encoder", "decoder"}
    assert any("overlapping regions" in e.reason for e in report.entries)


def test_the_adaptation_plan_of_nnssl_is_read(tmp_path):
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL"}, "pretrain_num_input_channels": 1,
        "pretrain_plan": {
            "configurations": {"onemmiso": {"patch_size": [160, 160, 160], "spacing": [1.0, 1.0, 1.0],
                                            "normalization_schemes": ["ZScoreNormalization"]}}
        },
        "recommended_downstream_patchsize": [16, 16, 16],
    }  # fmt: skip
    path = write_checkpoint(tmp_path, make_network(1), plans=None, dataset=None, nnssl_adaptation_plan=plan)
    model = TrainedModel.from_run(run_import(path, tmp_path / "run"))
    assert (model.patch_size, model.spacing_mm, model.labels) == ((16, 16, 16), (1.0, 1.0, 1.0), {})
    assert read_plan({"nnssl_adaptation_plan": plan}, path).schemes == ("ZScoreNormalization",)


def test_plans_inherit_and_may_transpose_axes(tmp_path):
    arguments = {"plans": PLANS | {"transpose_forward": [1, 0, 2]}, "configuration": "3d_low", "dataset_json": DATASET}
    plan = read_plan({"init_args": arguments}, tmp_path / "x.pth")
    # The network runs along y, z, x: its spacing of 5 mm lies along y.
    assert plan.axes == (2, 0, 1) and plan.spacing_mm == (2.0, 5.0, 2.0) and plan.patch_size == (16, 8, 16)
    window = plan.normalization.window_hu
    assert window == (-200, 300) and plan.input_mean_std == ((0.5, 0.24),)
    mixed = {"normalization_schemes": ["CTNormalization", "ZScoreNormalization"]}
    other = PLANS | {"configurations": {"3d_fullres": CONFIGURATION | mixed}}
    plan = read_plan({"init_args": {"plans": other}}, tmp_path / "x.pth")
    assert plan.input_mean_std == () and not plan.is_ct


def test_strange_plans_are_refused_in_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"x\.pth: its plans are not those of nnU-Net 2 or nnssl"):
        read_plan({"init_args": {"plans": {"configurations": {}}}}, tmp_path / "x.pth")
    assert read_plan({}, tmp_path / "x.pth") == TrainingPlan()


def test_a_folder_of_nnunet_names_its_checkpoint(tmp_path):
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(BadInput, match="give one of its checkpoints"):
        run_import(tmp_path, tmp_path / "run")
