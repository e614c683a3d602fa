"""An in-context segmentation that is shown other examples is a run of its own, which predicts their classes."""

import json
from dataclasses import replace

import pytest
import torch

from medssl import cli
from medssl.data.checks import leakage
from medssl.data.manifest import Manifest
from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.predictions_folder import read_index
from medssl.run import Run
from tests.helpers.finished_runs import make_finished_run, write_scans
from tests.helpers.toy_training import write_store

TASK = {"num_examples": 3, "width": 8}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("data") / "store", 4, side=20)


@pytest.fixture
def source(tmp_path):
    return make_finished_run(
        tmp_path / "source", task="in_context", task_settings=TASK, spacing_mm=None, names={1: "other", 2: "second"}
    )


def show(source, manifest, out, *words):
    return cli.run("show-examples", [str(source), str(manifest), "--out", str(out), *words])


def test_the_classes_of_the_examples_are_predicted(source, manifest, tmp_path, capsys):
    out = tmp_path / "shown"
    assert show(source.path, manifest, out, "--num-labelled", "2") == 0
    assert "3 crops of 2 volumes" in capsys.readouterr().out
    names = TrainedModel.from_run(Run.open(out)).labels
    assert names != TrainedModel.from_run(source).labels
    task = TrainedModel.from_run(Run.open(out)).build_task()
    assert weight_transfer.load_parts(out / "weights.safetensors", task.transferable()).count("skipped") == 0
    assert int(task.examples.pushed) == 3
    before = TrainedModel.from_run(source).build_task()
    weight_transfer.load_parts(source.weights, before.transferable())
    for name, weight in before.encoder.state_dict().items():
        assert torch.equal(weight, task.encoder.state_dict()[name])

    write_scans(tmp_path / "scans", 1)
    words = [str(out), str(tmp_path / "scans"), "--modality", "MR", "--out", str(tmp_path / "predictions")]
    assert cli.run("predict", words) == 0
    index = read_index(tmp_path / "predictions")
    assert len(index.cases) == 1 and {label.name for label in index.labels} == set(names.values())


def test_the_volumes_of_the_examples_count_as_seen(source, manifest, tmp_path):
    assert show(source.path, manifest, tmp_path / "shown") == 0
    run = Run.open(tmp_path / "shown")
    assert {trace.id for trace in leakage.read_traces(run.path)} == set(run.metadata["cases"])
    assert run.metadata["start_sha256"] == source.metadata["weights_sha256"]


def test_a_seed_repeats_the_examples(source, manifest, tmp_path):
    hashes = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert show(source.path, manifest, tmp_path / name, "--seed", seed) == 0
        hashes.append(Run.open(tmp_path / name).metadata["weights_sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_runs_and_stores_that_do_not_fit_are_refused(source, manifest, tmp_path, capsys):
    segmentation = make_finished_run(tmp_path / "segmentation", spacing_mm=None)
    assert show(segmentation.path, manifest, tmp_path / "out") == 2
    assert "follows no examples; give a run of task=in_context" in capsys.readouterr().err
    elsewhere = make_finished_run(tmp_path / "elsewhere", task="in_context", task_settings=TASK, spacing_mm=(9, 9, 9))
    assert show(elsewhere.path, manifest, tmp_path / "out") == 2
    assert "ingest the examples again with --spacing 9,9,9" in capsys.readouterr().err
    store = Manifest.read(manifest)
    replace(store, cases=tuple(replace(case, label="") for case in store.cases)).write(manifest.with_name("bare.csv"))
    assert show(source.path, manifest.with_name("bare.csv"), tmp_path / "out") == 2
    assert "no labelled case" in capsys.readouterr().err
    assert show(source.path, manifest, source.path) == 2
    assert "exists already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert json.loads((source.path / "run.json").read_text())["state"] == "closed"
