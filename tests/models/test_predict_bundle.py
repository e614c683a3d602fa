"""Whole networks of MONAI bundles predict volumes as MONAI does with the same bundle."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks import nets
from scipy import ndimage
from torch import nn

from medssl import cli
from medssl.errors import BadInput
from medssl.files import read_checksums
from medssl.io import nifti
from medssl.models.trained_model import TrainedModel, build_predictor
from medssl.nn.interop.monai_networks import describe_network
from medssl.predictions_folder import read_index
from medssl.run import Run
from medssl.volume import Volume
from tests.helpers.finished_runs import make_finished_run, write_scans

CONV = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}
NETWORKS = {
    "UNet": CONV | {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch"},
    "BasicUNet": CONV | {"features": [4, 4, 8, 8, 8, 4], "norm": ["instance", {"affine": True}]},
    "SegResNet": CONV | {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1], "dropout_prob": 0.2},
    "DynUNet": CONV | {
        "kernel_size": [3, 3, 3], "strides": [1, 2, [2, 2, 1]], "upsample_kernel_size": [2, [2, 2, 1]],
        "filters": [4, 8, 8], "deep_supervision": True, "deep_supr_num": 1, "res_block": True,
    },
    "UNETR": {
        "in_channels": 1, "out_channels": 3, "img_size": [16, 16, 16], "feature_size": 4, "hidden_size": 24,
        "mlp_dim": 32, "num_heads": 2,
    },
    "SwinUNETR": {
        "in_channels": 1, "out_channels": 3, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8],
        "use_checkpoint": False,
    },
}  # fmt: skip
CT_STEPS = [
    {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim", "mode": "bilinear"},
    {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": -200,
        "a_max": 300,
        "b_min": -1,
        "b_max": 1,
        "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "image"},
]
MR_STEPS = [
    *CT_STEPS[:2],
    {"_target_": "Orientationd", "keys": ["image"], "axcodes": "PLS"},
    {"_target_": "NormalizeIntensityd", "keys": ["image"], "nonzero": True, "channel_wise": True},
    {"_target_": "Spacingd", "keys": ["image"], "pixdim": "@pixdim", "mode": ["bilinear"], "align_corners": [True]},
    {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
]
POST_STEPS = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    {
        "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
        "nearest_interp": False,
    },
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
]  # fmt: skip


def make_bundle(folder, name, steps=CT_STEPS, inferer=(), post=POST_STEPS, arguments=(), labels=("ball", "rod")):
    """Writes a bundle with random weights and without a line of code."""
    torch.manual_seed(0)
    arguments = NETWORKS[name] | dict(arguments)
    net = getattr(nets, name)(**arguments).eval()
    for key, parameter in net.named_parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1 and key.endswith("weight")), std=0.1)
    side = {"BasicUNet": 32, "SwinUNETR": 64}.get(name, 16)
    config = {
        "imports": ["$import glob"], "bundle_root": ".", "pixdim": [1.5, 1.5, 2.0],
        "network_def": {"_target_": name, **arguments}, "network": "$@network_def.to('cpu')",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [side] * 3, "sw_batch_size": 2} | dict(inferer),
        "postprocessing": {"_target_": "Compose", "transforms": post},
    }  # fmt: skip
    channels = {"0": "background"} | {str(n): label for n, label in enumerate(labels, 1)}
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"modality": "CT" if steps is CT_STEPS else "MR"}},
            "outputs": {"pred": {"channel_def": channels}},
        }
    }
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(config))
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    torch.save(net.state_dict(), folder / "models/model.pt")
    return folder


def write_scan(folder, shape=(41, 36, 23), codes="LPI"):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, shape), 1.5)
    values = (40 + noise / noise.std() * 150).round().astype(np.int16)
    values[:4] = 0
    nifti.write(Volume(values, np.diag([1.2, 1.0, 2.5, 1.0]), "a.u.").reorient(codes), folder / "a.nii.gz")
    return folder / "a.nii.gz"


def predict_with_monai(bundle, scan):
    """Returns the labels that MONAI computes with the transforms, the network and the inferer of a bundle."""
    names = ("preprocessing", "network", "inferer", "postprocessing")
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs/inference.json"))
        preprocessing, network, inferer, postprocessing = (parser.get_parsed_content(name) for name in names)
        network.load_state_dict(torch.load(bundle / "models/model.pt", weights_only=True))
        data = preprocessing({"image": str(scan)})
        data["pred"] = inferer(data["image"][None], network.eval())[0]
        return postprocessing(data)["pred"][0].numpy()


def run_import(bundle, run, *options):
    words = [bundle, "--out", run, "--licence", "Apache-2.0", *options]
    return cli.run("import-weights", [str(word) for word in words])


def predict(run, scan, out, *options, modality="CT"):
    words = [run, scan.parent, "--modality", modality, "--out", out, *options]
    assert cli.run("predict", [str(word) for word in words]) == 0
    return nifti.read(out / "a" / "labels.nii.gz", label=True).voxels


def require_same_labels(labels, expected):
    assert labels.shape == expected.shape and len(np.unique(expected)) > 1
    assert (labels == expected).mean() >= 0.9999


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_are_those_of_monai(tmp_path, name):
    bundle, scan = make_bundle(tmp_path / "bundle", name), write_scan(tmp_path / "scans")
    assert run_import(bundle, tmp_path / "run") == 0
    require_same_labels(predict(tmp_path / "run", scan, tmp_path / "out"), predict_with_monai(bundle, scan))
    assert [label.name for label in read_index(tmp_path / "out").labels] == ["ball", "rod"]


@pytest.mark.parametrize(
    "inferer",
    [
        {"mode": "gaussian", "overlap": 0.5},
        {"overlap": 0.625},
        {"mode": "gaussian", "roi_size": [48, 16, 16], "padding_mode": "replicate"},
        {"roi_size": [16, 16, 48]},
    ],
)
def test_windows_are_weighted_and_padded_as_the_bundle_states(tmp_path, inferer):
    bundle = make_bundle(tmp_path / "bundle", "UNet", MR_STEPS, inferer)
    scan = write_scan(tmp_path / "scans", codes="RAS")
    assert run_import(bundle, tmp_path / "run") == 0
    labels = predict(tmp_path / "run", scan, tmp_path / "out", modality="MR")
    require_same_labels(labels, predict_with_monai(bundle, scan))


def test_several_channels_and_constants_are_normalized_as_in_monai(tmp_path):
    steps = [
        *CT_STEPS[2:4],
        {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 20.0, "divisor": 3.0},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image", "channel_wise": True},
        {"_target_": "monai.transforms.ScaleIntensityRanged", "keys": "image", "a_min": 0.1, "a_max": 0.8},
    ]
    bundle = make_bundle(tmp_path / "bundle", "UNet", steps, arguments={"in_channels": 2})
    assert run_import(bundle, tmp_path / "run") == 0
    scan = nifti.read(write_scan(tmp_path / "scans"))
    voxels = np.stack([scan.voxels, scan.voxels[::-1] * 2 + 7])
    prepared = build_predictor(Run.open(tmp_path / "run")).prepare(replace(scan, voxels=voxels))
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs/inference.json"))
    with warnings.catch_warnings(action="ignore"):
        image = MetaTensor(torch.from_numpy(voxels.astype(np.float32)), affine=torch.from_numpy(scan.affine))
        expected = parser.get_parsed_content("preprocessing")({"image": image})["image"]
    assert np.allclose(prepared.voxels, expected.numpy(), atol=1e-5)
    assert np.allclose(prepared.affine, expected.affine.numpy())


def test_one_output_with_a_sigmoid_is_one_class(tmp_path):
    post = [POST_STEPS[0] | {"softmax": False, "sigmoid": True}, POST_STEPS[1]]
    post += [{"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    bundle = make_bundle(tmp_path / "bundle", "SegResNet", post=post, arguments={"out_channels": 1}, labels=())
    scan = write_scan(tmp_path / "scans")
    assert run_import(bundle, tmp_path / "run", "--labels", "lesion") == 0
    require_same_labels(predict(tmp_path / "run", scan, tmp_path / "out"), predict_with_monai(bundle, scan))
    assert [label.name for label in read_index(tmp_path / "out").labels] == ["lesion"]


def test_options_and_an_ensemble_of_bundles_work_as_for_other_runs(tmp_path, capsys):
    scan = write_scan(tmp_path / "scans")
    for run in ("a", "b"):
        assert run_import(make_bundle(tmp_path / f"bundle-{run}", "UNet"), tmp_path / run) == 0
    labels = predict(tmp_path / "a", scan, tmp_path / "single")
    pooled = [tmp_path / "a", tmp_path / "b", scan.parent, "--modality", "CT", "--out", tmp_path / "pooled"]
    assert cli.run("predict", [str(word) for word in pooled]) == 0
    assert np.array_equal(nifti.read(tmp_path / "pooled/a/labels.nii.gz", label=True).voxels, labels)
    predict(tmp_path / "a", scan, tmp_path / "coarse", "--overlap", "0", "--batch", "4", "--precision", "bf16")
    capsys.readouterr()
    for options, message in {
        ("--tta",): "trained without mirrored crops",
        ("--crop-body", "10"): "--crop-body: only segmentations",
        ("--channels", "0"): "needs all its channels",
        ("--modality", "MR"): "the network was trained on CTs only",
    }.items():
        words = [tmp_path / "a", scan.parent, "--modality", "CT", "--out", tmp_path / "refused", *options]
        assert cli.run("predict", [str(word) for word in words]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "refused").exists()


def test_a_bundle_of_a_known_encoder_is_also_a_start_for_finetuning(tmp_path, capsys):
    assert run_import(make_bundle(tmp_path / "bundle", "SegResNet"), tmp_path / "run") == 0
    assert "encoder.name=segresnet" in capsys.readouterr().out
    model = TrainedModel.from_run(Run.open(tmp_path / "run"))
    assert model.spacing_mm == (1.5, 1.5, 2.0) and model.normalization.window_hu == (-200, 300)
    assert run_import(make_bundle(tmp_path / "other", "UNet"), tmp_path / "unet") == 0
    with pytest.raises(BadInput, match="which only predicts"):
        TrainedModel.from_run(Run.open(tmp_path / "unet"))


def test_a_bundle_published_here_comes_back_as_the_same_model(tmp_path):
    run = make_finished_run(tmp_path / "run", cases=["a"])
    assert cli.run("publish", [str(run.path), "--monai", "--out", str(tmp_path / "bundle")]) == 0
    assert run_import(tmp_path / "bundle", tmp_path / "back") == 0
    write_scans(tmp_path / "scans", 1)
    for name in ("run", "bundle", "back"):
        words = [tmp_path / name, tmp_path / "scans", "--modality", "CT", "--out", tmp_path / f"out-{name}"]
        assert cli.run("predict", [str(word) for word in words]) == 0
    first, *others = (
        read_checksums(tmp_path / f"out-{name}")["scan0/labels.nii.gz"] for name in ("run", "bundle", "back")
    )
    assert others == [first, first]


def change_config(bundle, change):
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message", "options"),
    [
        (lambda c: c.update(pixdim="$[1.5] * 3"), "pixdim is the expression", ["pixdim=[1.5,1.5,2]"]),
        (lambda c: c.pop("pixdim"), "refers to pixdim, which is missing", ["pixdim=1.5"]),
        (
            lambda c: c["preprocessing"]["transforms"].insert(3, {"_target_": "CropForegroundd", "keys": "image"}),
            "preprocessing#transforms#3 is CropForegroundd, which is not computed here",
            ["preprocessing#transforms#3=null"],
        ),
        (
            lambda c: c["preprocessing"]["transforms"][3].update(padding_mode="zeros"),
            "preprocessing#transforms#3: padding_mode",
            ["preprocessing#transforms#3#padding_mode=border"],
        ),
        (
            lambda c: c["preprocessing"].update(transforms="$@a + @b"),
            "preprocessing#transforms is the expression",
            ["preprocessing#transforms=[{_target_: Orientationd, axcodes: RAS}]"],
        ),
        (
            lambda c: c.pop("preprocessing"),
            "states no preprocessing",
            ["preprocessing#transforms=[{_target_: Spacingd, pixdim: 2}]"],
        ),
        (
            lambda c: c["inferer"].update(_target_="SimpleInferer"),
            "inferer is SimpleInferer",
            ["inferer#_target_=SlidingWindowInferer"],
        ),
        (lambda c: c["inferer"].pop("roi_size"), "states no size of windows", ["inferer#roi_size=16"]),
        (lambda c: c["inferer"].update(mode="sine"), "inferer: mode", ["inferer#mode=gaussian"]),
        (
            lambda c: c["postprocessing"]["transforms"].append({"_target_": "FillHolesd", "keys": "pred"}),
            "postprocessing#transforms#3 is FillHolesd",
            ["postprocessing#transforms#3=null"],
        ),
        (
            lambda c: c["postprocessing"]["transforms"][0].update(softmax=False, sigmoid=True),
            "3 outputs with sigmoid are no classes",
            ["postprocessing#transforms#0#sigmoid=false"],
        ),
    ],
)
def test_what_is_not_known_is_refused_with_the_option_that_states_it(tmp_path, capsys, change, message, options):
    bundle = make_bundle(tmp_path / "bundle", "UNet")
    change_config(bundle, change)
    assert run_import(bundle, tmp_path / "run") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    words = [word for option in options for word in ("--set", option)]
    assert run_import(bundle, tmp_path / "run", *words) == 0


def test_an_argument_of_older_versions_changes_no_tensor():
    arguments = NETWORKS["SwinUNETR"]
    old, new = (describe_network("SwinUNETR", a, "here") for a in (arguments | {"img_size": 96}, arguments))
    shapes = [{key: value.shape for key, value in n.build("meta").state_dict().items()} for n in (old, new)]
    assert shapes[0] == shapes[1] and "img_size" in old.arguments


def test_windows_that_the_network_cannot_take_are_bad_input(tmp_path, capsys):
    scan = write_scan(tmp_path / "scans")
    assert run_import(make_bundle(tmp_path / "bundle", "UNet"), tmp_path / "run", "--set", "inferer#roi_size=17") == 0
    words = [tmp_path / "run", scan.parent, "--modality", "CT", "--out", tmp_path / "out"]
    assert cli.run("predict", [str(word) for word in words]) == 2
    assert "cannot take windows of 17x17x17 voxels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "liver"], "the network has 2 classes"),
        (["--set", "roi"], "give ID=VALUE"),
        (["--set", "imports#9#0=1"], "the bundle has no such place"),
        (["--set", "network_def#channels=[4,8,10000000]"], "network_def: arguments: .*channels is"),
        (["--set", "network_def#channels=[4,8,9000]"], "network_def describes"),
        (["--set", "network_def#magic=1"], "UNet takes no magic"),
        (["--set", "network_def#spatial_dims=2"], "spatial_dims is 2"),
        (["--set", "network_def#out_channels=2"], "another shape"),
        (["--set", "network_def#norm=magic"], "MONAI refuses its arguments"),
        (["--set", "network_def#_target_=os.system"], "the network is os.system"),
        (["--strides", "[1,2,2]"], "a MONAI bundle defines its own strides"),
    ],
)
def test_a_wrong_network_is_refused(tmp_path, capsys, words, message):
    assert run_import(make_bundle(tmp_path / "bundle", "UNet"), tmp_path / "run", *words) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "run").exists()
