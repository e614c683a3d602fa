"""A published run that MONAI's own bundle code builds and asks, and that stays a run."""

import json

import pytest
import torch
from monai.bundle import ConfigParser

from medssl import cli
from medssl.data.checks.integrity import verify
from medssl.inference.sliding_window import slide
from medssl.models.trained_model import predictor
from medssl.run import Run
from tests.helpers.finished_runs import WINDOW, finished, scans


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    place = tmp_path_factory.mktemp("bundle")
    run = finished(place / "run", cases=["a"])
    assert cli.run("export", [str(run.path), "--monai", "--out", str(place / "given")]) == 0
    return run, place / "given"


def parsed(folder, **changes):
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), **changes})
    return parser


def test_monai_builds_the_network_and_slides_it_as_medssl_does(bundle):
    run, folder = bundle
    parser = parsed(folder)
    network, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    x = torch.rand(1, 1, 24, 20, 18, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = inferer(x, network.cpu())[0]
    ours = slide(x[0], predictor(run).network, WINDOW)
    assert torch.allclose(theirs, ours, atol=1e-5)


def test_its_metadata_says_what_goes_in_and_comes_out(bundle):
    _, folder = bundle
    told = json.loads((folder / "configs" / "metadata.json").read_text())
    assert {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description"} <= told.keys()
    assert told["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "organ"}
    assert told["network_data_format"]["inputs"]["image"]["spatial_shape"] == list(WINDOW)


def test_it_is_still_a_run_and_every_file_is_sealed(bundle):
    run, folder = bundle
    assert Run.open(folder).card["weights_sha256"] == run.card["weights_sha256"]
    checked = {str(one.path.relative_to(folder)): one.fault for one in verify(folder, 0, lambda *_: None)}
    assert {"models/model.pt", "configs/inference.json", "weights.safetensors"} <= checked.keys()
    assert set(checked.values()) == {""}


def test_a_detector_by_boxes_alone_is_no_bundle_and_nothing_is_written(tmp_path, capsys):
    run = finished(tmp_path / "run", cases=["a"], task="detect", more={"route": "box"})
    assert cli.run("export", [str(run.path), "--monai", "--out", str(tmp_path / "given")]) == 2
    assert "finds boxes alone" in capsys.readouterr().err and not (tmp_path / "given").exists()
    for route in ("voxel", "both"):
        found = finished(tmp_path / route, cases=["a"], task="detect", more={"route": route})
        assert cli.run("export", [str(found.path), "--monai", "--out", str(tmp_path / f"given-{route}")]) == 0


def test_monais_run_predicts(bundle, tmp_path):
    _, folder = bundle
    place = {"scans": str(scans(tmp_path / "scans", 1)), "output_dir": str(tmp_path / "out"), "modality": "CT"}
    assert parsed(folder, **place).get_parsed_content("run") == [0]
    assert len(list((tmp_path / "out").glob("*/labels.nii.gz"))) == 1
