"""A sweep trains each cell once, resumes where it stopped, reports what failed, and refuses to mix settings."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from medssl import cli, config
from medssl.data.checks import leakage as leaks
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.reference_labels import References
from medssl.data.manifest import Manifest
from medssl.data.selection.case_groups import LabelDomain, group_cases
from medssl.data.selection.splits import select_labelled
from medssl.errors import BadInput
from medssl.fewshot import cell
from medssl.fewshot import sweep as sweep_module
from medssl.fewshot.sweep import Arm, Sweep, run_sweep
from medssl.files import exclusive_lock, write_json
from medssl.io import nifti
from medssl.run import Run
from medssl.training.estimates.step_cost import StepCost
from medssl.training.finetune_config import FinetuneConfig
from medssl.volume import Volume

SIZE = {"encoder.channels": [4, 8], "encoder.strides": [1, 2], "encoder.blocks": [1, 1], "patch_size": [16, 16, 16]}
LENGTH = {"train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 2}
SMALL = SIZE | LENGTH | {"max_val_cases": 0}
OPTIONS = {
    "changes": SMALL,
    "pretraining": SIZE | LENGTH,
    "arms": {"scratch": Arm(), "mae": Arm(pretrain="configs/pretrain/mae.yaml")},
    "num_labelled": (1, 2),
    "seeds": (0, 1),
}
ONE_CELL = {"arms": {"scratch": Arm()}, "num_labelled": (1,), "seeds": (0,)}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    out = tmp_path_factory.mktemp("fewshot")
    draw = np.random.default_rng(0)
    for n in range(10):
        label = np.zeros((18, 18, 18), np.uint8)
        label[4:10, 4 + n % 3 : 10, 5:12], label[10:14, 5:12, 5:12] = 1, 2
        values = (draw.normal(100, 20, label.shape) + 80 * label).astype(np.float32)
        nifti.write(Volume(values, np.eye(4), "a.u."), out / "scans" / "imagesTr" / f"case{n}.nii.gz")
        nifti.write(Volume(label, np.eye(4), "label"), out / "scans" / "labelsTr" / f"case{n}.nii.gz")
    description = {"labels": {"0": "background", "1": "head", "2": "tail"}, "modality": {"0": "MRI"}}
    write_json(out / "scans" / "dataset.json", description)
    ingest(
        out / "scans",
        out / "store",
        IngestConfig(split_fractions={"train": 0.6, "test": 0.4}, num_workers=0),
        lambda done, of: None,
    )
    return out / "store" / "manifest.csv"


@pytest.fixture
def sweep(manifest, tmp_path):
    return Sweep(out=tmp_path / "sweep", manifest=manifest, **OPTIONS)


@pytest.fixture(scope="module")
def finished_sweep(manifest, tmp_path_factory):
    """A sweep that is finished, and its result; do not change its folder."""
    sweep = Sweep(out=tmp_path_factory.mktemp("finished") / "sweep", manifest=manifest, **OPTIONS)
    return sweep, run_sweep(sweep, lambda message: None)


@pytest.fixture
def finished_copy(finished_sweep, sweep):
    """A copy of the finished sweep that may be changed."""
    shutil.copytree(finished_sweep[0].out, sweep.out)
    return sweep


def test_a_cell_that_learns_some_classes_is_done_without_the_others(manifest, sweep):
    only_head = sweep.model_copy(update=ONE_CELL | {"changes": SMALL | {"classes": ["head"]}})
    messages = []
    for _ in range(2):
        rows, failures = run_sweep(only_head, messages.append)
        assert [row.structure for row in rows] == ["head"] and not failures
    assert "1 cells, 1 done already" in messages


def test_every_cell_is_trained_tested_and_reported(finished_sweep):
    sweep, result = finished_sweep
    rows = result.rows
    overall = [line for line in rows if line.structure == rows[0].structure]
    assert [(line.arm, line.num_labelled) for line in overall] == [
        ("scratch", 1),
        ("mae", 1),
        ("scratch", 2),
        ("mae", 2),
    ]
    assert all(line.seeds == 2 for line in rows)
    scratch, pretrained = overall[:2]
    assert scratch.difference is None and pretrained.difference.estimate == pytest.approx(
        pretrained.score.estimate - scratch.score.estimate
    )
    with (sweep.out / "table.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert len(table) == len(rows) and float(table[0]["score"]) == pytest.approx(scratch.score.estimate, abs=1e-4)
    assert [int(row["steps"]) for row in table] == [2] * len(table)
    assert {row["arm"]: int(row["pretraining_steps"]) for row in table} == {"scratch": 0, "mae": 2}
    used = [Run(sweep.out / "cells" / f"scratch-k1-s{s}" / "run").metadata["resource_usage"] for s in (0, 1)]
    assert float(table[0]["minutes"]) == pytest.approx(30 * sum(usage["cpu_hours"] for usage in used), abs=1e-3)
    page = (sweep.out / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2 * 8 and "mae: all seeds share one pretraining" in page
    assert "finished" in page and "mae" in page and not re.search(r'(src|href)="http', page)
    assert (sweep.out / "curve.png").stat().st_size > 1000
    again = []
    assert [line.score for line in run_sweep(sweep, again.append).rows] == [line.score for line in rows]
    assert again == ["8 cells, 8 done already"]


def test_labels_of_one_domain_are_tested_on_each(manifest, tmp_path):
    cases = Manifest.read(manifest).cases
    table = tmp_path / "scanners.csv"
    table.write_text(
        "case,scanner\n" + "".join(f"{case.id},{'GE' if n % 2 else 'UIH'}\n" for n, case in enumerate(cases))
    )
    domain = {"by": f"{table}:scanner", "values": ["GE"]}
    sweep = Sweep(out=tmp_path / "sweep", manifest=manifest, **OPTIONS | ONE_CELL | {"domain": domain})
    rows = run_sweep(sweep, lambda message: None).rows
    groups = group_cases(cases, domain["by"])
    assert {groups[case] for case in Run(sweep.out / "cells/scratch-k1-s0/run").metadata["cases"]} == {"GE"}
    overall, ge, uih = rows[:3]
    assert [row.structure for row in (overall, ge, uih)] == [
        "all labels",
        "all labels, scanner GE (with labels)",
        "all labels, scanner UIH",
    ]
    assert ge.cases + uih.cases == overall.cases
    mean = (ge.score.estimate * ge.cases + uih.score.estimate * uih.cases) / overall.cases
    assert mean == pytest.approx(overall.score.estimate)
    with pytest.raises(BadInput, match="was begun with another domain"):
        run_sweep(sweep.model_copy(update={"domain": LabelDomain()}), lambda message: None)
    with pytest.raises(BadInput, match=r"Canon: no group of these cases by .*; these are GE \(\d\), UIH \(\d\)"):
        run_sweep(sweep.model_copy(update={"domain": LabelDomain(by=domain["by"], values=("Canon",))}), print)


def test_an_arm_may_have_more_volumes_with_fewer_slices(sweep):
    arms = {"scratch": Arm(), "slices": Arm(labelled_scale=2, changes={"num_label_slices": 3})}
    sweep = sweep.model_copy(update={"arms": arms, "seeds": (0,)})
    rows = [row for row in run_sweep(sweep, lambda message: None).rows if row.structure == "all labels"]
    assert [(row.arm, row.num_labelled) for row in rows] == [
        ("scratch", 1), ("slices", 1), ("scratch", 2), ("slices", 2),
    ]  # fmt: skip
    runs = {name: Run(sweep.out / f"cells/{name}-s0/run") for name in ("slices-k1", "slices-k2", "scratch-k2")}
    assert [len(run.metadata["cases"]) for run in runs.values()] == [2, 4, 2]
    assert set(runs["slices-k1"].metadata["cases"]) == set(runs["scratch-k2"].metadata["cases"])
    assert rows[1].difference is not None
    again: list[str] = []
    assert len(run_sweep(sweep.model_copy(update={"num_labelled": (1,)}), again.append).rows) == 4 * 3
    assert again[-1] == "2 cells, 2 done already"
    with pytest.raises(BadInput, match=r"8 labelled cases requested, 6 available"):
        run_sweep(sweep.model_copy(update={"num_labelled": (4,)}), lambda message: None)


def test_a_stopped_sweep_continues_with_the_remaining_cells(sweep, monkeypatch):
    work, started = cell.run_cell, []

    def stops(one):
        started.append(one.name)
        if len(started) == 3:
            raise KeyboardInterrupt
        return work(one)

    monkeypatch.setattr(cell, "run_cell", stops)
    sweep = sweep.model_copy(update={"seeds": (0,)})
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, lambda message: None)
    assert "2 of 4 cells done" in (sweep.out / "report.html").read_text()
    messages = []
    run_sweep(sweep, messages.append)
    assert messages[1] == "4 cells, 2 done already" and len(started) == 3 + 2
    assert started[2] == started[3]


def test_a_cell_whose_run_is_finished_is_only_tested(finished_copy, monkeypatch):
    sweep = finished_copy.model_copy(update=ONE_CELL)
    first = run_sweep(sweep, lambda message: None).rows
    killed = sweep.out / "cells" / "scratch-k1-s0" / "cases.csv"
    killed.rename(killed.with_name(".part-abc.csv"))  # while it was written
    monkeypatch.setattr(cell, "finetune", None)
    assert [line.score for line in run_sweep(sweep, lambda message: None).rows] == [line.score for line in first]
    assert killed.exists() and not list(sweep.out.rglob(".part-*"))


@pytest.mark.parametrize("error", [BadInput, OSError, RuntimeError, MemoryError])
def test_a_cell_that_fails_is_reported_and_the_others_continue(finished_copy, monkeypatch, error):
    sweep, finetune = finished_copy, cell.finetune

    def breaks(settings: FinetuneConfig):
        if settings.seed == 1 and settings.num_labelled == 2:
            raise error("the loss is nan on case-7")
        return finetune(settings)

    monkeypatch.setattr(cell, "finetune", breaks)
    missing = ("scratch-k2-s0", "scratch-k2-s1") if error is RuntimeError else ("scratch-k2-s1",)
    for name in missing:
        shutil.rmtree(sweep.out / "cells" / name)
    messages = []
    rows = run_sweep(sweep.model_copy(update={"arms": {"scratch": Arm()}}), messages.append).rows
    assert messages[-1] == f"{len(missing)} of {len(missing)}: scratch, 2 labelled, seed 1: the loss is nan on case-7"
    assert {line.num_labelled: line.seeds for line in rows if line.arm == "scratch"} == {1: 2, 2: 1}
    assert "the loss is nan on case-7" in (sweep.out / "report.html").read_text()


def test_a_sweep_with_cells_that_failed_is_no_success(finished_copy, monkeypatch, capsys):
    def breaks(settings: FinetuneConfig):
        raise BadInput("the loss is nan")

    sweep = finished_copy.model_copy(update={"arms": {"scratch": Arm()}, "num_labelled": (1,)})
    shutil.rmtree(sweep.out / "cells" / "scratch-k1-s1")
    path = sweep.out.with_suffix(".yaml")
    path.write_text(config.dump(sweep))
    assert cli.run("fewshot", [str(path), "seeds=[0]"]) == 0
    monkeypatch.setattr(cell, "finetune", breaks)
    assert cli.run("fewshot", [str(path)]) == 2
    messages = capsys.readouterr()
    assert (
        "scratch, 1 labelled, seed 1: the loss is nan" in messages.err.splitlines()[-1]
        and "report.html" in messages.out
    )
    assert cli.run("fewshot", [str(path), f"out={sweep.out}2"]) == 2
    assert "no cell could be measured; the first: the loss is nan" in capsys.readouterr().err


def test_a_pretraining_that_fails_costs_its_own_arms_alone(finished_copy, monkeypatch):
    sweep = finished_copy
    for folder in ("pretrained/mae", "cells/mae-k1-s0", "cells/mae-k1-s1"):
        shutil.rmtree(sweep.out / folder)

    def breaks(settings):
        raise BadInput("the loss is nan on case-7")

    monkeypatch.setattr("medssl.fewshot.sweep.pretrain", breaks)
    swept = run_sweep(sweep.model_copy(update={"num_labelled": (1,)}), lambda message: None)
    assert set(swept.failures) == {"mae, 1 labelled, seed 0", "mae, 1 labelled, seed 1"}
    requested = [line for line in swept.rows if line.num_labelled == 1]
    assert {line.arm for line in requested} == {"scratch"} and {line.seeds for line in requested} == {2}
    assert "its pretraining failed: the loss is nan on case-7" in (sweep.out / "report.html").read_text()


def test_a_sweep_that_was_stopped_before_it_wrote_anything_starts_again(sweep):
    sweep.out.mkdir()
    (sweep.out / ".lock").touch()
    short = sweep.model_copy(update=ONE_CELL)
    assert not run_sweep(short, lambda message: None).failures


@pytest.mark.parametrize("arm", ["scratch", "mae"])
def test_a_sweep_that_was_moved_continues_with_a_half_trained_cell(sweep, monkeypatch, tmp_path, arm):
    def stops(*words, **more):
        raise KeyboardInterrupt

    changed = {"num_labelled": (1,), "seeds": (0,), "arms": {arm: sweep.arms[arm]}, "reference": arm}
    short = sweep.model_copy(update=changed)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("medssl.training.finetune.train", stops)
        run_sweep(short, lambda message: None)
    sweep.out.rename(tmp_path / "moved")
    assert not run_sweep(short.model_copy(update={"out": tmp_path / "moved"}), lambda message: None).failures


def test_cells_measured_before_regions_were_are_measured_again(manifest, sweep, monkeypatch, tmp_path):
    shutil.copytree(manifest.parents[1], tmp_path / "both")
    place = tmp_path / "both" / "store"
    card = json.loads((place / "store.json").read_text())
    changed = {"num_labelled": (1,), "arms": {"scratch": Arm()}, "manifest": place / "manifest.csv"}
    short = sweep.model_copy(update=changed)
    run_sweep(short.model_copy(update={"seeds": (0,)}), lambda message: None)
    write_json(place / "store.json", card | {"regions": {"whole": [1, 2]}})
    messages = []
    swept = run_sweep(short, messages.append)
    assert messages[1] == "2 cells, 0 done already" and not swept.failures
    assert {(line.structure, line.seeds) for line in swept.rows} == {
        (name, 2) for name in ("all labels", "head", "tail", "whole")
    }


def test_labels_without_some_class_are_reported_before_anything_is_trained(sweep, tmp_path):
    place = tmp_path / "some"
    shutil.copytree(sweep.manifest.parents[1] / "scans", place / "scans")
    labelled = select_labelled(Manifest.read(sweep.manifest).in_split("train").with_labels(), 1, 1).cases[0]
    path = place / "scans" / "labelsTr" / f"{labelled.id}.nii.gz"
    label = nifti.read(path, label=True)
    nifti.write(replace(label, voxels=np.minimum(label.voxels, 1)), path)
    ingest(
        place / "scans",
        place / "store",
        IngestConfig(split_fractions={"train": 0.6, "test": 0.4}, num_workers=0),
        lambda d, of: None,
    )
    sweep = sweep.model_copy(update={"manifest": place / "store" / "manifest.csv", "arms": {"scratch": Arm()}})
    with pytest.raises(
        BadInput, match=r"scratch, 1 labelled, seed 1: none of the 1 labelled volumes contains tail; .*allow_missing"
    ):
        run_sweep(sweep, lambda message: None)
    assert not sweep.out.exists()
    changes = {"changes": SMALL | {"allow_missing_classes": True}, "num_labelled": (1,), "seeds": (1,)}
    allowed = sweep.model_copy(update=changes)
    assert not run_sweep(allowed, lambda message: None).failures


def test_a_network_of_a_mixed_set_is_measured_on_all_of_it(sweep, tmp_path):
    place = tmp_path / "mixed"
    shutil.copytree(sweep.manifest.parents[1] / "scans", place / "scans")
    for n in range(10):
        path = place / "scans" / "imagesTr" / f"case{n}.nii.gz"
        scan = nifti.read(path)
        nifti.write(replace(scan, voxels=scan.voxels - 1000 * (n % 2)), path)
    card = json.loads((place / "scans" / "dataset.json").read_text())
    write_json(place / "scans" / "dataset.json", {"labels": card["labels"]})
    ingest(
        place / "scans",
        place / "store",
        IngestConfig(split_fractions={"train": 0.6, "test": 0.4}, num_workers=0),
        lambda d, of: None,
    )
    manifest = place / "store" / "manifest.csv"
    assert {case.unit for case in Manifest.read(manifest).cases} == {"HU", "a.u."}
    changed = ONE_CELL | {"manifest": manifest}
    assert not run_sweep(sweep.model_copy(update=changed), lambda message: None).failures


def test_two_processes_do_not_work_on_one_sweep(sweep):
    sweep.out.mkdir()
    (sweep.out / "sweep.yaml").write_text(config.dump(sweep))
    with exclusive_lock(sweep.out, ""), pytest.raises(BadInput, match="another process works on this sweep"):
        run_sweep(sweep.model_copy(update={"seeds": (5,)}), lambda message: None)
    assert (sweep.out / "sweep.yaml").read_text() == config.dump(sweep)


def test_calls_that_share_a_sweep_divide_its_cells_and_take_turns_at_a_pretraining(sweep, monkeypatch):
    """Each call trains its cells only, and while one trains the shared pretraining, the others would wait."""
    sweep = sweep.model_copy(update={"num_labelled": (1,), "num_parts": 2})
    calls, pretrain = [], sweep_module.pretrain

    def pretrain_alone(settings):
        with pytest.raises(Timeout):
            FileLock(sweep.out / "parts" / "mae.lock").acquire(timeout=0)
        calls.append(settings.run)
        return pretrain(settings)

    monkeypatch.setattr(sweep_module, "pretrain", pretrain_alone)
    done = []
    for part in (1, 0):
        run_sweep(sweep.model_copy(update={"part": part}), lambda message: None)
        done.append({path.parent.name for path in sweep.out.glob("cells/*/cases.csv")})
    assert done[0] == {"mae-k1-s0", "mae-k1-s1"} and len(done[1]) == 4 and len(calls) == 1
    whole = sweep.model_copy(update={"num_parts": 1})
    assert not run_sweep(whole, lambda message: None).failures
    with exclusive_lock(sweep.out / "parts" / "0", "test"), pytest.raises(BadInput, match="another process works on"):
        run_sweep(sweep, lambda message: None)
    with pytest.raises(ValueError, match="parts count from 0 to num_parts - 1, which is 1"):
        config.check(sweep.model_dump() | {"part": 2}, Sweep, "test")


def test_regions_of_classes_are_tested_as_the_classes_are(manifest, tmp_path, finished_sweep):
    run = Run(finished_sweep[0].out / "cells" / "scratch-k1-s0" / "run")
    shutil.copytree(manifest.parents[1], tmp_path / "both")
    place = tmp_path / "both" / "store"
    card = json.loads((place / "store.json").read_text())
    write_json(place / "store.json", card | {"regions": {"whole": [1, 2]}})
    rows, _, _ = cell.evaluate_run(run, Manifest.read(place / "manifest.csv"), 2.0)
    assert {row.label for row in rows} == {"head", "tail", "whole"}


def test_cells_train_in_processes_to_the_same_scores(finished_copy):
    sweep = finished_copy.model_copy(update={"arms": {"scratch": Arm()}, "seeds": (0,)})
    for folder in (sweep.out / "cells").iterdir():
        if not (folder.name.startswith("scratch") and folder.name.endswith("s0")):
            shutil.rmtree(folder)  # finished cells would stay in the table
    in_process = run_sweep(sweep, lambda message: None).rows
    in_workers = run_sweep(
        sweep.model_copy(update={"out": sweep.out.with_name("apart"), "num_workers": 2}), lambda message: None
    ).rows
    assert [line.score.estimate for line in in_workers] == pytest.approx(
        [line.score.estimate for line in in_process], abs=1e-3
    )


@pytest.mark.slow
def test_cells_train_on_a_cluster_too(sweep):
    distributed = pytest.importorskip("distributed", reason="needs dask (the `cluster` extra)")
    sweep = sweep.model_copy(update={"arms": {"scratch": Arm()}, "num_labelled": (1,)})
    with distributed.LocalCluster(
        1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        rows = run_sweep(sweep.model_copy(update={"scheduler": cluster.scheduler_address}), lambda message: None).rows
    assert rows[0].seeds == 2


def test_a_cluster_that_does_not_exist_is_reported(sweep):
    with pytest.raises(BadInput, match="no dask scheduler answers"):
        run_sweep(sweep.model_copy(update={"scheduler": "tcp://127.0.0.1:1"}), lambda message: None)


def test_subsets_are_nested_and_alike_for_all_arms(finished_sweep):
    sweep = finished_sweep[0]
    chosen = {path.name: set(Run.open(path / "run").metadata["cases"]) for path in (sweep.out / "cells").iterdir()}
    assert len(chosen) == 8
    for seed in (0, 1):
        assert chosen[f"scratch-k1-s{seed}"] < chosen[f"scratch-k2-s{seed}"]
        assert chosen[f"scratch-k2-s{seed}"] == chosen[f"mae-k2-s{seed}"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_labelled": (1, 99)}, "99 labelled cases requested"),
        ({"arms": {"scratch": Arm(changes={"train.epoch": 3})}}, "train.epoch"),
        ({"arms": {"scratch": Arm(pretrained="nowhere")}}, "nowhere: no run here"),
        ({"lesions": ("nodule",)}, "lesions: nodule: no label of .*; it has head, tail"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_trained(sweep, changed, message):
    with pytest.raises(BadInput, match=message):
        run_sweep(sweep.model_copy(update=changed), lambda line: None)
    assert not (sweep.out / "cells").exists()


def test_lesions_that_no_test_case_has_annotated_are_refused_before_anything_is_trained(sweep, monkeypatch):
    references = References.read(sweep.manifest)
    partly = replace(references, classes=replace(references.classes, present={key: [1] for key in references.sources}))
    monkeypatch.setattr(References, "read", lambda place: partly)
    with pytest.raises(BadInput, match=r"lesions: tail is annotated in no test case of .*; leave it out"):
        run_sweep(sweep.model_copy(update={"lesions": ("head", "tail")}), lambda line: None)
    assert not (sweep.out / "cells").exists()


def test_patients_on_both_sides_are_refused_before_anything_is_trained(sweep, tmp_path):
    shelved = Manifest.read(sweep.manifest)
    train, test = (next(case for case in shelved.cases if case.split == split) for split in ("train", "test"))
    twin = tuple(replace(case, patient=train.patient) if case.id == test.id else case for case in shelved.cases)
    both = sweep.model_copy(
        update={"manifest": sweep.manifest.with_name("twins.csv"), "seeds": (0,), "num_labelled": (1,)}
    )
    replace(shelved, cases=twin).write(both.manifest)
    with pytest.raises(BadInput, match="belong to one patient"):
        run_sweep(both, lambda line: None)
    start = tmp_path / "seen"
    network = {"kind": "pretrain", "state": "open"}
    start.mkdir()
    write_json(start / "run.json", network)
    leaks.write_traces(start, leaks.trace_cases(shelved.in_split("test")))
    with pytest.raises(BadInput, match=r"overlaps between .*seen"):
        run_sweep(
            sweep.model_copy(update={"arms": {"scratch": Arm(), "seen": Arm(pretrained=start)}}), lambda line: None
        )
    assert not sweep.out.exists()


def test_moved_test_labels_are_reported_before_anything_is_trained(sweep):
    references = sweep.manifest.parent.with_name("store.private")
    references.rename(references.with_name("away"))
    try:
        with pytest.raises(BadInput, match=r"has no record of .*; restore the folder"):
            run_sweep(sweep, lambda message: None)
    finally:
        references.with_name("away").rename(references)
    assert not (sweep.out / "cells").exists()


def test_another_question_does_not_go_into_the_same_folder(finished_copy):
    sweep = finished_copy.model_copy(update=ONE_CELL)
    shutil.rmtree(sweep.out / "cells" / "scratch-k2-s0")
    with pytest.raises(BadInput, match="begun with another tolerance_mm; choose another out"):
        run_sweep(sweep.model_copy(update={"tolerance_mm": 3.0}), lambda message: None)
    for change in (
        {"changes": SMALL | {"train.steps_per_epoch": 3}},
        {"arms": {"scratch": Arm(changes={"train.steps_per_epoch": 3})}},
    ):
        with pytest.raises(BadInput, match=r"scratch-k1-s0/run was trained with another train; .*choose another"):
            run_sweep(sweep.model_copy(update=change), lambda message: None)
    assert len(run_sweep(sweep.model_copy(update={"num_labelled": (1, 2)}), lambda message: None).rows) > 0


def test_a_run_with_other_settings_is_no_cell_of_this_table(sweep, tmp_path):
    """Wherever the change is: in the recipe's file, in a pretraining's, or in an arm that a shorter sweep left out."""
    files = {name: tmp_path / f"{name}.yaml" for name in ("recipe", "mae")}
    files["recipe"].write_text(Path("configs/finetune/segment.yaml").read_text())
    files["mae"].write_text(Path("configs/pretrain/mae.yaml").read_text())
    arms = {"scratch": Arm(), "mae": Arm(pretrain=str(files["mae"]))}
    sweep = sweep.model_copy(
        update={"finetune_config": files["recipe"], "arms": arms, "num_labelled": (1,), "seeds": (0,)}
    )
    run_sweep(sweep, lambda message: None)
    shorter = sweep.model_copy(update={"arms": {"scratch": Arm()}})
    assert len({line.arm for line in run_sweep(shorter, lambda message: None).rows}) == 2
    assert len({line.arm for line in run_sweep(sweep, lambda message: None).rows}) == 2

    spoilt = arms | {"mae": Arm(pretrain=str(files["mae"]), changes={"train.steps_per_epoch": 3})}
    with pytest.raises(BadInput, match=r"cells/mae-k1-s0/run was trained with another train; choose another out"):
        run_sweep(sweep.model_copy(update={"arms": spoilt}), lambda message: None)
    for name, place in (("recipe", r"cells/scratch-k1-s0/run"), ("mae", r"pretrained/mae")):
        before = files[name].read_text()
        files[name].write_text(before.replace("train: {", "train: {gradient_clip: 0.5, "))
        with pytest.raises(BadInput, match=f"{place} was trained with another train"):
            run_sweep(sweep, lambda message: None)
        files[name].write_text(before)
    assert len({line.arm for line in run_sweep(sweep, lambda message: None).rows}) == 2


def test_cells_that_started_from_other_weights_are_no_cells_of_this_table(finished_copy):
    sweep = finished_copy.model_copy(update={"num_labelled": (1,), "seeds": (0,)})
    mae = sweep.out / "pretrained" / "mae"
    mae.rename(mae.with_name("before"))
    messages = []
    with pytest.raises(BadInput, match="cells/mae-k1-s0/run was trained with another pretrained"):
        longer = {**sweep.pretraining, "train.epochs": LENGTH["train.epochs"] + 1}
        run_sweep(sweep.model_copy(update={"pretraining": longer}), messages.append)
    assert messages[1:] == ["pretraining for mae"]
    mae.rename(mae.with_name("longer"))
    mae.with_name("before").rename(mae)
    assert {line.arm for line in run_sweep(sweep, messages.append).rows} == {"scratch", "mae"}


def test_cells_of_other_volumes_are_no_cells_of_this_table(finished_copy):
    sweep = finished_copy.model_copy(update=ONE_CELL)
    path = sweep.out / "cells" / "scratch-k1-s0" / "run" / "run.json"
    path.write_text(path.read_text().replace('"cases": [', '"cases": ["another", '))
    with pytest.raises(BadInput, match="trained with another choice of labelled volumes"):
        run_sweep(sweep, lambda message: None)


def test_finished_rows_stay_in_the_table_when_less_is_asked(finished_copy, finished_sweep):
    rows = run_sweep(finished_copy.model_copy(update=ONE_CELL), lambda message: None).rows
    assert [(row.arm, row.num_labelled, row.score) for row in rows] == [
        (row.arm, row.num_labelled, row.score) for row in finished_sweep[1].rows
    ]
    with (finished_copy.out / "table.csv").open() as handle:
        assert len(list(csv.DictReader(handle))) == len(rows)


def test_each_seed_has_its_own_pretraining_and_an_arm_as_much_compute_as_another(sweep):
    arms = sweep.arms | {"equal": Arm(equal_compute_with="mae")}
    sweep = sweep.model_copy(update={"arms": arms, "num_labelled": (1,), "pretraining_per_seed": True})
    messages = []
    rows = {row.arm: row for row in run_sweep(sweep, messages.append).rows if row.structure == "all labels"}
    assert re.fullmatch(r"about \d+ min on .* for 2 pretrainings and 6 cells, by a few steps of each kind", messages[0])
    assert messages[1:3] == ["pretraining for mae, seed 0", "pretraining for mae, seed 1"]
    assert rows["mae"].num_pretrainings == 2 and rows["scratch"].num_pretrainings == 0
    runs = [Run(sweep.out / "pretrained" / f"mae-s{seed}").read_settings() for seed in (0, 1)]
    assert [(run["train"]["seed"], run["objective"]["seed"]) for run in runs] == [(0, 0), (1, 1)]
    costs = [StepCost(*values) for values in json.loads((sweep.out / "step_costs.json").read_text()).values()]
    (pretraining,), (finetuning,) = ([cost for cost in costs if bool(cost.window_s) == b] for b in (False, True))
    expected = max(1, round((pretraining.cpu_s + finetuning.cpu_s) / finetuning.cpu_s))
    assert rows["equal"].finetuning.steps == 2 * expected
    assert run_sweep(sweep, messages.append) and messages[-1] == "6 cells, 6 done already"


def test_pretrainings_of_equal_time_have_as_many_epochs_as_their_steps_allow(sweep, monkeypatch):
    """Each cost is measured once, also by calls that share the sweep, so that all train for the same length."""
    objectives = []

    def time_training(settings):
        objectives.append(getattr(settings, "objective", None) and settings.objective.name)
        return StepCost(1.0, {"mae": 0.2, "spark": 0.3}.get(objectives[-1], 0.1))

    monkeypatch.setattr("medssl.fewshot.cost.time_training", time_training)
    arms = sweep.arms | {"spark": Arm(pretrain="configs/pretrain/spark.yaml")}
    sweep = sweep.model_copy(update={"arms": arms, "pretraining_minutes": 0.05} | {"num_labelled": (1,), "seeds": (0,)})
    for part in (0, 1, 0):
        run_sweep(sweep.model_copy(update={"part": part, "num_parts": 2}), lambda message: None)
    steps = {row.arm: row.pretraining.steps for row in run_sweep(sweep, lambda message: None).rows}
    assert steps == {"scratch": 0, "mae": 2 * round(3 / 0.2 / 2), "spark": 2 * round(3 / 0.3 / 2)}
    assert sorted(map(str, objectives)) == ["None", "mae", "spark"]


def test_an_arm_of_equal_compute_names_an_arm_that_pretrains(sweep):
    with pytest.raises(ValueError, match="'scratch' is no arm with pretrain; these are mae"):
        Sweep.model_validate(sweep.model_dump() | {"arms": sweep.arms | {"equal": Arm(equal_compute_with="scratch")}})


def test_a_folder_that_holds_something_else_is_left_alone(sweep):
    sweep.out.mkdir(parents=True)
    (sweep.out / "report.html").write_text("another's")
    with pytest.raises(BadInput, match="holds something else than a sweep; choose another out"):
        run_sweep(sweep, lambda message: None)
    assert [path.name for path in sweep.out.iterdir()] == ["report.html"]


def test_a_folder_that_was_moved_continues(finished_copy, tmp_path):
    short = finished_copy.model_copy(update=ONE_CELL)
    finished_copy.out.rename(tmp_path / "elsewhere")
    messages: list[str] = []
    run_sweep(short.model_copy(update={"out": tmp_path / "elsewhere"}), messages.append)
    assert messages == ["1 cells, 1 done already"]


def test_a_reference_must_be_an_arm(sweep):
    with pytest.raises(ValueError, match="'nnunet' is no arm"):
        Sweep(out=sweep.out, manifest=sweep.manifest, reference="nnunet")


def test_both_starts_at_once_are_refused():
    with pytest.raises(ValueError, match="an arm starts from one of them"):
        Arm(pretrained="a", pretrain="b")


def test_arms_with_the_same_pretraining_share_it_and_one_may_have_its_own_length(sweep):
    mae = sweep.arms["mae"]
    frozen = mae.model_copy(update={"changes": {"schedule": "frozen_encoder"}})
    long = mae.model_copy(update={"pretraining": {"train.epochs": LENGTH["train.epochs"] + 1}})
    arms = {"mae": mae, "frozen mae": frozen, "long mae": long}
    messages: list[str] = []
    run_sweep(
        sweep.model_copy(update={"arms": arms, "reference": "mae", "num_labelled": (1,), "seeds": (0,)}),
        messages.append,
    )
    assert [line for line in messages if line.startswith("pretraining")] == [
        "pretraining for mae",
        "pretraining for long mae",
    ]
    plans = {path.name: Run.open(path).read_settings()["train"] for path in (sweep.out / "pretrained").iterdir()}
    assert {name: plan["epochs"] for name, plan in plans.items()} == {"mae": 1, "long mae": 2}


def test_changes_of_a_pretraining_that_an_arm_has_not_are_refused():
    with pytest.raises(ValueError, match="changes nothing without pretrain"):
        Arm(pretrained="a", pretraining={"train.epochs": 3})


def test_the_gap_is_that_of_the_paired_scores(finished_sweep):
    sweep, result = finished_sweep
    scores = {}
    for folder in (sweep.out / "cells").iterdir():
        with (folder / "cases.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        cases = sorted({row["case"] for row in rows})
        scores[folder.name] = [np.mean([float(r["dice"]) for r in rows if r["case"] == case]) for case in cases]
    gaps = [np.mean(np.subtract(scores[f"mae-k2-s{s}"], scores[f"scratch-k2-s{s}"])) for s in (0, 1)]
    line = next(line for line in result.rows if (line.arm, line.num_labelled) == ("mae", 2))
    assert line.difference.estimate == pytest.approx(np.mean(gaps), abs=1e-12)


def test_a_sweep_of_detectors_reports_lesion_scores(sweep):
    changes = SMALL | {"task.head": "both", "augment.flip": [False, False, False]}
    sweep = sweep.model_copy(
        update={
            "finetune_config": Path("configs/finetune/detect.yaml"),
            "changes": changes,
            "lesions": ("tail",),
            "num_labelled": (2,),
            "seeds": (0,),
        }
    )
    rows = run_sweep(sweep, lambda message: None).rows
    assert [(line.arm, line.structure, line.metric) for line in rows[:4]] == [
        (arm, "tail", metric) for metric in ("sensitivity at 1 false alarm", "CPM") for arm in ("scratch", "mae")
    ]
    assert rows[0].difference is None and rows[1].difference.estimate == pytest.approx(
        rows[1].score.estimate - rows[0].score.estimate
    )
    assert {line.metric for line in rows[4:]} == {"Dice"}
    page = (sweep.out / "report.html").read_text()
    assert "sensitivity at 1 false alarm over the test patients" in page and "CPM [95 %]" in page
    assert [line.score for line in run_sweep(sweep, lambda message: None).rows] == [line.score for line in rows]


def test_a_pretraining_on_labels_uses_those_of_its_cell(sweep, manifest):
    arms = {
        "scratch": Arm(),
        "painted": Arm(pretrain="configs/pretrain/synthetic.yaml"),
        "same": Arm(pretrain="configs/pretrain/synthetic.yaml", changes={"schedule": "discriminative"}),
    }
    sweep = sweep.model_copy(update={"arms": arms, "seeds": (0,)})
    run_sweep(sweep, lambda message: None)
    labelled = Manifest.read(manifest).in_split("train").with_labels()
    folders = {path.name for path in (sweep.out / "pretrained").iterdir()}
    assert folders == {"painted-k1-s0", "painted-k2-s0"}
    for count in (1, 2):
        selected = {case.id for case in select_labelled(labelled, count, 0).cases}
        start = sweep.out / "pretrained" / f"painted-k{count}-s0"
        assert {trace.id for trace in leaks.read_traces(start)} == selected
        for arm in ("painted", "same"):
            run = Run(sweep.out / "cells" / f"{arm}-k{count}-s0" / "run")
            assert run.metadata["start_sha256"] == Run(start).metadata["weights_sha256"]
            assert set(run.metadata["cases"]) == selected
    again = []
    run_sweep(sweep, again.append)
    assert again == ["6 cells, 6 done already"]
