"""MONAI bundles, also those of earlier versions, name a class that can be imported."""

import json

import pytest
import torch
from monai.bundle import ConfigParser

from medssl import cli
from medssl.models.export_monai_bundle import BundledModel
from tests.helpers.finished_runs import make_finished_run

EARLIER_PATH = "medssl.training.bundled.Bundled"  # in bundles of earlier versions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    run = make_finished_run(folder / "run", cases=["a"])
    assert cli.run("publish", [str(run.path), "--monai", "--out", str(folder / "published")]) == 0
    return folder / "published"


def build_network(bundle, target):
    definition = json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]
    parser = ConfigParser({"network_def": definition | ({"_target_": target} if target else {})})
    parser.update({"bundle_root": str(bundle)})
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("target", [None, EARLIER_PATH])
def test_the_network_of_a_bundle_is_built_from_its_path(bundle, target):
    network = build_network(bundle, target)
    assert type(network) is BundledModel
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
