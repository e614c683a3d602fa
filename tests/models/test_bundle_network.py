"""MONAI bundles name a class that can be imported, and that takes their weights."""

import json

import torch
from monai.bundle import ConfigParser

from medssl import cli
from medssl.models.export_monai_bundle import BundledModel
from tests.helpers.finished_runs import make_finished_run


def test_the_network_of_a_bundle_is_built_from_its_path_and_takes_its_weights(tmp_path):
    run = make_finished_run(tmp_path / "run", cases=["a"])
    bundle = tmp_path / "published"
    assert cli.run("publish", [str(run.path), "--monai", "--out", str(bundle)]) == 0
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    parser.update({"bundle_root": str(bundle)})
    network = parser.get_parsed_content("network_def")
    assert type(network) is BundledModel
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
