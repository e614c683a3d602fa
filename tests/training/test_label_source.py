"""A pretraining learns from the labels it is given, records the cases it saw, and refuses what cannot work."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from medssl import cli, config
from medssl.data.checks import leakage
from medssl.data.label_maps import write_label_map_store
from medssl.data.manifest import Manifest
from medssl.data.selection.splits import select_labelled
from medssl.data.store import Store
from medssl.errors import BadInput, Stopped
from medssl.io import nifti
from medssl.run import Run
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.volume import Volume
from tests.helpers.registered_scenes import write_scans

NETWORK = {"patch_size": [16, 16, 16], "encoder": {"channels": [4, 8, 8], "strides": [1, 2, 2]}}
TRAIN = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A store of five labelled scans."""
    return write_scans(tmp_path_factory.mktemp("labels") / "store", labelled=True)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Two label maps of 2 mm in the orientation LIA, without images: a box 17 beside a box 53 within a shell 3."""
    folder = tmp_path_factory.mktemp("maps")
    for n in range(2):
        voxels = np.zeros((24, 26, 28), np.uint8)
        voxels[2:22, 2:24, 2:26] = 3
        voxels[4:9, 8 + n : 14, 10:16], voxels[13:18, 8 + n : 14, 10:16] = 17, 53
        nifti.write(
            Volume(voxels, np.eye(4), "label").resample((2.0, 2.0, 2.0), 0).reorient("LIA"), folder / f"m{n}.nii.gz"
        )
    return folder


def make_config(run, manifest, labels, **changes) -> PretrainConfig:
    values = {"run": run, "manifest": manifest, "objective": "synthetic", "labels": labels, "train": TRAIN}
    return config.check(values | NETWORK | changes, PretrainConfig, "test")


def seen_cases(run) -> set[str]:
    return {trace.id for trace in leakage.read_traces(run.path)}


def test_the_labelled_volumes_are_those_of_the_finetuning(manifest, tmp_path):
    run = pretrain(make_config(tmp_path / "run", manifest, {"source": "labelled", "num_labelled": 1}, seed=3))
    labelled = Manifest.read(manifest).in_split("train").with_labels()
    assert seen_cases(run) == {case.id for case in select_labelled(labelled, 1, 3).cases}
    tensors = load_file(run.weights)
    assert {name.partition(".")[0] for name in tensors} == {"encoder", "decoder"}
    values = {"run": tmp_path / "tuned", "manifest": manifest, "pretrained": run.path, "num_labelled": 1, "seed": 3}
    values |= {"max_val_cases": 0, "train": TRAIN, "allow_missing_classes": True} | NETWORK
    entries = finetune(config.check(values, FinetuneConfig, "test")).metadata["transfer"]
    assert {e["status"] for e in entries if not e["key"].startswith("heads")} == {"loaded"}


def test_maps_are_cropped_around_their_structures_in_the_spacing_of_the_scans(maps, tmp_path):
    stored = write_label_map_store(maps, ((17, 53),), (1.0, 1.0, 1.0), (3.0, 3.0, 3.0), 2, tmp_path / "store")
    first = stored.cases[0]
    label, image = Store(stored).label(first), Store(stored).image(first)
    # The structures extend over 14 x 6 x 6 mm, with 3 mm (4 mm in voxels of 2 mm) around them.
    assert [case.id for case in stored.cases] == ["m0", "m1"] and first.channels == 2
    assert label.shape == image.shape and all(n <= m + 8 for n, m in zip(label.shape, (14, 6, 6), strict=True))
    voxels = label.volume().voxels
    assert set(np.unique(voxels)) == {0, 1, 2} and not image.volume().voxels.any()
    centre_mm = label.volume().to_mm(np.argwhere(voxels == 1).astype(float)).mean(0)
    assert np.allclose(centre_mm, (10.5, 10.5, 12.5), atol=1.01)


def test_a_pretraining_on_maps_sees_no_scan(manifest, maps, tmp_path):
    labels = {"source": "maps", "folder": str(maps), "structures": [[17], [53]]}
    run = pretrain(make_config(tmp_path / "run", manifest, labels))
    assert not seen_cases(run)
    assert load_file(run.weights) and json.loads((run.path / "label_maps" / "store.json").read_text())["labels"] == {
        "0": "background", "1": "17", "2": "53"
    }  # fmt: skip


@pytest.mark.parametrize("labels", [{"source": "labelled", "num_labelled": 2}, "none"])
def test_a_stopped_training_resumes_to_the_same_weights(labels, manifest, tmp_path):
    whole = pretrain(make_config(tmp_path / "whole", manifest, labels, train=TRAIN | {"epochs": 2}))
    limits = {"max_hours": 1e-9}
    with pytest.raises(Stopped, match="resume=true"):
        pretrain(make_config(tmp_path / "run", manifest, labels, train=TRAIN | {"epochs": 2}, limits=limits))
    resumed = pretrain(make_config(tmp_path / "run", manifest, labels, train=TRAIN | {"epochs": 2}, resume=True))
    assert whole.metadata["weights_sha256"] == resumed.metadata["weights_sha256"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"source": "propagated"}, r"source=propagated needs atlas; give labels\.atlas"),
        ({"source": "maps", "folder": "maps"}, r"source=maps needs structures"),
        ({"source": "labelled", "folder": "maps"}, r"folder has no use with source=labelled"),
        ({"num_labelled": 2}, r"num_labelled has no use with source=none"),
        ({"domain": {"by": "site"}}, r"domain has no use with source=none"),
        ({"source": "maps", "folder": "maps", "structures": [[1, 2], [2]]}, r"no value may stand in two groups"),
        ({"source": "maps", "folder": "maps", "structures": [[]]}, r"every group needs a value"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(labels, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        make_config(tmp_path / "run", "manifest.csv", labels)


def test_labels_of_another_split_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"uses labels of split train; leave out split"):
        make_config(tmp_path / "run", "manifest.csv", "labelled", split="val")


def test_an_objective_that_learns_from_no_labels_refuses_them(manifest, tmp_path):
    with pytest.raises(BadInput, match=r"objective mae learns from no labels; leave out labels"):
        pretrain(make_config(tmp_path / "run", manifest, "labelled", objective="mae"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("structures", "files", "message"),
    [
        ([[99]], "maps", r"m0\.nii\.gz: has none of the structures \[99\]; it has 0, 3, 17, 53; correct labels"),
        ([[17]], "none", r"no label map \(\*\.nii, \*\.nii\.gz\); give labels\.folder"),
        ([[17]], "broken", r"broken\.nii\.gz: "),
    ],
)
def test_unusable_maps_are_refused_in_one_line(structures, files, message, manifest, maps, tmp_path, capsys):
    folder = maps if files == "maps" else tmp_path / "folder"
    if files != "maps":
        folder.mkdir()
    if files == "broken":
        (folder / "broken.nii.gz").write_bytes(b"no image")
    source = f"labels={{source: maps, folder: {folder}, structures: {structures}}}"
    words = [f"manifest={manifest}", f"run={tmp_path / 'run'}", "patch_size=[16,16,16]", "train.epochs=1", source]
    words += ["encoder.channels=[4,8,8]", "encoder.strides=[1,2,2]"]
    assert cli.run("pretrain", ["configs/pretrain/synthetic.yaml", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    with pytest.raises(BadInput, match=message):
        raise BadInput(error)
    assert not Run(tmp_path / "run").is_finished
