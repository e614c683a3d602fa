"""A run records where it was made, and is made again to the same bits."""

import json
import shutil

import pytest
import torch

from medssl import cli, config
from medssl.files import sha256, write_checksums, write_json
from medssl.nn.interop.weight_transfer import read_tensors, write_tensors
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.training.run_records.environment import describe_environment, find_differences
from tests.helpers.toy_training import write_store

SETTINGS = {
    "objective": {"name": "vicreg"},
    "encoder": {"name": "residual", "channels": [4, 8], "strides": [1, 2]},
    "patch_size": [8, 8, 8],
    "train": {"epochs": 1, "steps_per_epoch": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    values = SETTINGS | {"manifest": write_store(folder / "store", side=16), "run": folder / "run"}
    return pretrain(config.check(values, PretrainConfig, "test"))


def test_a_run_records_its_environment(finished):
    (environment,) = finished.metadata["environments"]
    release, _, _ = torch.__version__.partition("+")  # the build after it is not in the metadata of every package
    assert environment["threads"] == torch.get_num_threads()
    assert environment["packages"]["torch"].partition("+")[0] == release
    assert environment["host"] and environment["cpu"] and environment["python"]
    git = finished.metadata["git"]
    assert git is None or ("diff" in git) == git["changed"]


def test_differences_of_environments_are_named():
    first = describe_environment()
    assert find_differences(first, first) == []
    second = first | {"threads": 99, "packages": first["packages"] | {"torch": "0.1"}}
    texts = find_differences(first, second)
    assert texts == [f"threads {first['threads']} and 99", f"torch {first['packages']['torch']} and 0.1"]


def test_a_run_is_made_again_bit_for_bit(finished, tmp_path, capsys):
    assert cli.run("reproduce", [str(finished.path), "--out", str(tmp_path / "again")]) == 0
    assert "the weights are equal, bit for bit" in capsys.readouterr().out
    assert sha256(tmp_path / "again" / "weights.safetensors") == finished.metadata["weights_sha256"]


@pytest.mark.parametrize(("threads", "code"), [(None, 2), (99, 0)])
def test_other_weights_are_refused_unless_something_explains_them(finished, tmp_path, capsys, threads, code):
    """The planted fault: one weight of the first run is changed a little."""
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    tensors = read_tensors(copy / "weights.safetensors")
    tensors[next(iter(tensors))].view(-1)[0] += 1e-3
    write_tensors(tensors, copy / "weights.safetensors")
    metadata = json.loads((copy / "run.json").read_text())
    if threads:
        metadata["environments"].append(metadata["environments"][0] | {"threads": threads})
    write_json(copy / "run.json", metadata | {"weights_sha256": sha256(copy / "weights.safetensors")})
    write_checksums(copy, ("run.json", "weights.safetensors"))
    assert cli.run("reproduce", [str(copy)]) == code
    captured = capsys.readouterr()
    assert "the weights differ by" in captured.out + captured.err
    assert ("nothing explains a difference" in captured.err) == (code == 2)
