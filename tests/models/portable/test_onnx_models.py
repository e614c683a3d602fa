"""A published ONNX file predicts what its run predicts, and a file that is not one of ours is refused in one line."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from medssl import cli
from medssl.errors import InputWarning
from medssl.inference.calibration import Calibration, read_weight_digests
from medssl.inference.networks.onnx_network import OnnxNetwork
from medssl.io import nifti
from medssl.models.portable.portable_model import METADATA_KEY, PortableModel
from medssl.models.trained_model import build_predictor
from medssl.predictions_folder import read_findings, read_index
from tests.helpers.finished_runs import make_finished_run, write_scans
from tests.helpers.source_trees import ROOT

HEADS = {
    "segment": {},
    "regions": {"names": {1: "core", 2: "edema"}, "task_settings": {"regions": [[1, 2], [1]]}},
    "voxel": {"task": "detect", "names": {1: "nodule"}},
    "box": {"task": "detect", "names": {1: "nodule"}, "task_settings": {"head": "box", "min_score": 0.012}},
    "both": {"task": "detect", "names": {1: "nodule"}, "task_settings": {"head": "both"}},
}
ENCODERS = {
    "plainconv": {"channels": (4, 8), "strides": (1, 2), "kernels": (3, 3)},
    "convnext": {"channels": (4, 8), "strides": (1, 2)},
    "dynunet": {"channels": (4, 8, 8), "strides": (1, 2, 2), "kernels": (3, 3, 3)},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 1)},
    "primus": {"depth": 1},
    "primus-outlook": {"depth": 1, "reach": "outlook"},
    "swinunetr": {"feature_size": 12, "depths": (1, 1, 1, 1)},
    "resenc": {"size": "S"},
    "fusion": {"channels": (4, 8), "strides": (1, 2)},
    "wavelet": {"channels": (4, 8), "strides": (2, 2)},
}


def publish(run, *options):
    out = run.with_name(f"{run.name}_published")
    assert cli.run("publish", [str(run), "--out", str(out), "--onnx", *options]) == 0
    return out / "model.onnx"


def predict(model, scans, out, *options):
    words = [model, *([] if isinstance(scans, list) else [scans]), "--modality", "CT", "--out", out, *options]
    return cli.run("predict", [str(word) for word in words])


def compare_predictions(expected, result):
    """The voxels of the labels are equal but for 1 in 10,000, the findings but for rounding."""
    index = read_index(expected)
    assert read_index(result).cases == index.cases and len(index.cases)
    for case in index.cases:
        labels, others = (nifti.read(f / case / "labels.nii.gz", label=True).voxels for f in (expected, result))
        assert (labels == others).mean() >= 0.9999
        probability, other = (
            nifti.read(f / case / "probability.nii.gz").voxels.astype(int) for f in (expected, result)
        )
        assert np.abs(probability - other).max() <= 1
        findings, others = read_findings(expected / case), read_findings(result / case)
        assert [f.id for f in findings] == [f.id for f in others]
        assert np.allclose([f.score for f in findings], [f.score for f in others], atol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_predicts_the_same_as_its_run(tmp_path, head):
    make_finished_run(tmp_path / "a", **HEADS[head])
    scans = write_scans(tmp_path / "scans")
    assert predict(tmp_path / "a", scans, tmp_path / "torch") == 0
    assert predict(publish(tmp_path / "a"), scans, tmp_path / "onnx") == 0
    compare_predictions(tmp_path / "torch", tmp_path / "onnx")
    assert any(read_findings(tmp_path / "torch" / case) for case in ("scan0", "scan1"))


def test_an_ensemble_of_folds_with_mirrors_predicts_the_same(tmp_path):
    runs = [tmp_path / name for name in "ab"]
    for seed, run in enumerate(runs):
        make_finished_run(run, seed=seed)
    scans = write_scans(tmp_path / "scans", 1)
    models = [publish(run) for run in runs]
    for name, paths in (("torch", runs), ("onnx", models)):
        words = [*paths, scans, "--modality", "CT", "--tta", "--out", tmp_path / name]
        assert cli.run("predict", [str(word) for word in words]) == 0
    compare_predictions(tmp_path / "torch", tmp_path / "onnx")
    indices = [read_index(tmp_path / name) for name in ("torch", "onnx")]
    assert indices[0].uncertainty == indices[1].uncertainty == "disagreement of runs and mirrored views"
    assert len(indices[1].model["runs"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_exports_to_both_formats_with_any_batch(tmp_path, name):
    window = (64 if name == "swinunetr" else 32,) * 3
    encoder = {"name": name.partition("-")[0]} | ENCODERS[name]
    run = make_finished_run(tmp_path / "a", names={1: "a", 2: "b"}, encoder=encoder, window=window)
    path = publish(run.path, "--pt2")
    model = PortableModel.read(path)
    network = OnnxNetwork.open(path, 1, model.patch_size, "cpu")
    program = torch.export.load(path.with_name("model.pt2")).module()
    for batch in (1, 3):
        x = np.random.default_rng(batch).random((batch, 1, *model.patch_size)).astype(np.float32)
        expected = build_predictor(run).network(x).numpy()
        with torch.no_grad():
            results = network(x), program(torch.from_numpy(x))[0].numpy()
        for result in results:
            assert np.abs(result - expected).max() < 1e-4
            assert (result.argmax(1) == expected.argmax(1)).mean() >= 0.9999


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published ONNX file and a scan."""
    folder = tmp_path_factory.mktemp("published")
    make_finished_run(folder / "a")
    return publish(folder / "a", "--pt2"), write_scans(folder / "scans", 1)


def unpack(path):
    """Returns the bytes of a file; those of the members if it is an archive."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_no_format_holds_a_path_of_this_machine(published):
    for path in published[0].parent.glob("model.*"):
        content = unpack(path)
        assert not any(secret in content for secret in (b"/private", b"/published0", str(ROOT).encode()))


def test_metadata_describe_input_and_classes(published):
    portable = PortableModel.read(published[0])
    assert portable.labels == {1: "organ"} and portable.mirror_axes == (1, 2)
    assert portable.spacing_mm == (1.2, 1.2, 1.2)


def refer_to_file(proto):
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def refer_to_file_in_a_subgraph(proto):
    graph = onnx.helper.make_graph([], "inner", [], [])
    tensor = graph.initializer.add(name="w", data_type=1, dims=[1])
    tensor.external_data.add(key="location", value="/etc/passwd")
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("body", graph))


def claim_a_huge_tensor(proto):
    proto.graph.initializer[0].dims[0] = 2**40


def compute_a_huge_tensor(proto):
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "huge_shape"))
    (last,) = [node for node in proto.graph.node if "probability" in node.output]
    last.output[0] = "before"
    proto.graph.node.extend(
        [
            onnx.helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"]),
            onnx.helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
            onnx.helper.make_node("Add", ["before", "total"], ["probability"]),
        ]
    )


def change_metadata(proto, **fields):
    (entry,) = [e for e in proto.metadata_props if e.key == METADATA_KEY]
    entry.value = json.dumps(json.loads(entry.value) | fields)


def remove_metadata(proto):
    del proto.metadata_props[:]


FAULTS = {
    "external": (refer_to_file, "keeps its weights in other files"),
    "external in a subgraph": (refer_to_file_in_a_subgraph, "keeps its weights in other files"),
    "huge tensor": (claim_a_huge_tensor, "onnxruntime cannot open it"),
    "huge result": (compute_a_huge_tensor, "onnxruntime cannot"),
    "not ours": (remove_metadata, "was not written by `medssl publish RUN --onnx`"),
    "huge windows": (lambda p: change_metadata(p, patch_size=[10**5] * 3), "are impossible"),
    "other windows": (lambda p: change_metadata(p, patch_size=[8, 8, 8]), "its metadata state"),
    "other classes": (lambda p: change_metadata(p, labels={"7": "organ"}), "metadata state 8"),
    "negative class": (lambda p: change_metadata(p, labels={"-1": "organ"}), "label values"),
    "other head": (lambda p: change_metadata(p, head="box"), "has no output box_corners"),
    "unknown key": (lambda p: change_metadata(p, command="rm"), "command"),
    "newer format": (lambda p: change_metadata(p, format_version=2), "format_version"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hostile_file_is_refused_in_one_line(published, tmp_path, capsys, fault):
    model, scans = published
    change, message = FAULTS[fault]
    proto = onnx.load(model)
    change(proto)
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    assert predict(tmp_path / "bad.onnx", scans, tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line and "bad.onnx" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff" * 100, b"PK\3\4 zip", b"\x3a\xff\xff\xff\xff\x0f", "cut"])
def test_garbage_is_refused_in_one_line(published, tmp_path, capsys, content):
    model, scans = published
    whole = model.read_bytes()
    (tmp_path / "bad.onnx").write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    assert predict(tmp_path / "bad.onnx", scans, tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "bad.onnx" in line and "publish" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precision", "bf16"), "need the run itself"),
        (("--channels", "0"), "need the run itself"),
        (("--device", "cuda"), "uses no GPU"),
        (("--device", "tpu"), "is not cpu, cuda or cuda:NUMBER"),
        (("--split", "held-out"), "does not know which cases"),
        (("--batch", "0"), "a batch of at least 1"),
    ],
)
def test_impossible_options_are_refused(published, tmp_path, capsys, options, message):
    model, scans = published
    assert predict(model, scans, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err


def test_missing_files_and_mixtures_are_refused(published, tmp_path, capsys):
    model, scans = published
    assert predict(tmp_path / "none.onnx", scans, tmp_path / "out") == 2
    assert "no such file" in capsys.readouterr().err
    words = [model, model.parent, scans, "--out", tmp_path / "out"]
    assert cli.run("predict", [str(word) for word in words]) == 2
    assert "cannot predict together" in capsys.readouterr().err


def test_a_calibration_travels_with_the_file(tmp_path):
    run = make_finished_run(tmp_path / "a")
    Calibration(temperature=3.0, weights_sha256=read_weight_digests([run]), cases=("secret",)).write([run])
    scans = write_scans(tmp_path / "scans", 1)
    model = publish(run.path)
    assert predict(run.path, scans, tmp_path / "torch") == predict(model, scans, tmp_path / "onnx") == 0
    compare_predictions(tmp_path / "torch", tmp_path / "onnx")
    assert read_index(tmp_path / "onnx").temperature == 3.0 and b"secret" not in model.read_bytes()
    with pytest.warns(InputWarning, match="calibrated without test-time augmentation"):
        assert predict(model, scans, tmp_path / "mirrored", "--tta") == 0


@pytest.mark.slow
def test_workers_predict_with_onnx_files(published, tmp_path):
    model, scans = published
    assert predict(model, scans, tmp_path / "one") == predict(model, scans, tmp_path / "out", "--workers", "1") == 0
    compare_predictions(tmp_path / "one", tmp_path / "out")


def test_a_run_that_predicts_no_classes_is_not_exported(tmp_path, capsys):
    run = make_finished_run(tmp_path / "a")
    metadata = json.loads((run.path / "run.json").read_text())
    metadata["network"]["labels"] = {}
    Path(run.path / "run.json").chmod(0o644)
    (run.path / "run.json").write_text(json.dumps(metadata))
    assert cli.run("publish", [str(run.path), "--out", str(tmp_path / "out"), "--onnx"]) == 2
    assert "predicts no classes" in capsys.readouterr().err and not (tmp_path / "out").exists()
