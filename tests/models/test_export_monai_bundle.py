"""MONAI's own bundle code builds and runs the network of a published run, which remains a run."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medssl import cli
from medssl.data.checks.integrity import verify
from medssl.inference.sliding_window import sliding_window_inference
from medssl.models.trained_model import build_predictor
from medssl.run import Run
from tests.helpers.finished_runs import WINDOW, make_finished_run, write_scans


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    run = make_finished_run(folder / "run", cases=["a"])
    assert cli.run("publish", [str(run.path), "--monai", "--out", str(folder / "given")]) == 0
    return run, folder / "given"


def parse_config(folder, **changes):
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), **changes})
    return parser


def test_monai_builds_the_network_and_predicts_the_same(bundle):
    run, folder = bundle
    parser = parse_config(folder)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    x = torch.rand(1, 1, 24, 20, 18, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        monai_result = inferer(x, network.cpu())[0]
    result = sliding_window_inference(x[0].numpy(), build_predictor(run).network, WINDOW)
    assert np.allclose(monai_result.numpy(), result, atol=1e-5)


def test_metadata_describes_input_and_output(bundle):
    _, folder = bundle
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description"} <= metadata.keys()
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "organ"}
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == list(WINDOW)


def test_bundle_is_still_a_run_with_checksums(bundle):
    run, folder = bundle
    assert Run.open(folder).metadata["weights_sha256"] == run.metadata["weights_sha256"]
    faults = {str(file.path.relative_to(folder)): file.fault for file in verify(folder, 0, lambda *_: None)}
    assert {"models/model.pt", "configs/inference.json", "weights.safetensors"} <= faults.keys()
    assert set(faults.values()) == {""}


def test_box_detector_is_refused_and_nothing_is_written(tmp_path, capsys):
    run = make_finished_run(tmp_path / "run", cases=["a"], task="detect", task_settings={"head": "box"})
    assert cli.run("publish", [str(run.path), "--monai", "--out", str(tmp_path / "given")]) == 2
    assert "gives boxes only" in capsys.readouterr().err and not (tmp_path / "given").exists()
    for head in ("voxel", "both"):
        detector = make_finished_run(tmp_path / head, cases=["a"], task="detect", task_settings={"head": head})
        assert cli.run("publish", [str(detector.path), "--monai", "--out", str(tmp_path / f"given-{head}")]) == 0


def test_monai_run_predicts(bundle, tmp_path):
    _, folder = bundle
    settings = {"scans": str(write_scans(tmp_path / "scans", 1)), "output_dir": str(tmp_path / "out"), "modality": "CT"}
    assert parse_config(folder, **settings).get_parsed_content("run") == [0]
    assert len(list((tmp_path / "out").glob("*/labels.nii.gz"))) == 1
