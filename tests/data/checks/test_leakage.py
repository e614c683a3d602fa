"""A planted duplicate is caught, however it was saved, and different patients are not."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.checks import appearance, case_traces, leakage
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.files import write_json
from medssl.io import nifti
from medssl.volume import Volume


def make_anatomy(seed):
    """Smooth structures in a body, the same body for every patient."""
    random = np.random.default_rng(seed)
    index = np.indices((48, 40, 36)).transpose(1, 2, 3, 0)
    voxels = np.where(np.linalg.norm((index - (24, 20, 18)) / (22, 18, 17), axis=-1) < 1, 0.4, 0.0)
    for centre in random.uniform(8, 30, (14, 3)):
        voxels += 0.3 * random.choice([-1, 1]) * np.exp(-((index - centre) ** 2).sum(-1) / 20) * (voxels > 0)
    return Volume(voxels.clip(0, 1).astype(np.float32), np.diag([1.0, 1, 1.5, 1]), "a.u.")


def write_store(folder, volumes, source=""):
    cases = []
    for name, volume in volumes.items():
        stored = replace(volume, voxels=volume.voxels[None].astype(np.float16))
        sha = store.write(folder / f"{name}.b2nd", stored, {})
        cases.append(
            Case(
                name,
                f"p-{folder.name}-{name}",
                f"{name}.b2nd",
                None,
                "MR",
                "a.u.",
                (1, 1, 1),
                volume.shape,
                1,
                "",
                source,
                sha,
            )
        )
    return Manifest(tuple(cases), folder)


def find_leaks(pool, test):
    return leakage.find_leaks(case_traces.trace_cases(pool), test)


@pytest.fixture
def pool(tmp_path):
    return write_store(tmp_path / "pool", {f"a{n}": make_anatomy(n) for n in range(5)})


def test_other_patients_do_not_leak(pool, tmp_path):
    assert find_leaks(pool, write_store(tmp_path / "test", {f"b{n}": make_anatomy(n + 50) for n in range(5)})) == []


COPIES = {
    "renamed": lambda v: v,
    "rounded": lambda v: replace(v, voxels=np.rint(v.voxels * 250) / 250),
    "resampled": lambda v: v.resample((1.4, 1.4, 1.4), order=1),
    "noisy": lambda v: replace(v, voxels=(v.voxels + np.random.default_rng(0).normal(0, 0.02, v.shape)).clip(0, 1)),
    "brighter": lambda v: replace(v, voxels=v.voxels**0.7),
    "padded": lambda v: replace(v, voxels=np.pad(v.voxels, 5)),
    "cropped": lambda v: replace(v, voxels=v.voxels[3:-3, 3:-4, 4:-3]),
    "cropped at one end": lambda v: replace(v, voxels=v.voxels[5:, :, :-5]),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_planted_copy_is_caught(pool, tmp_path, change):
    planted = COPIES[change](make_anatomy(3))
    test = write_store(tmp_path / "test", {"b": make_anatomy(50), "copy": planted})
    leaks = find_leaks(pool, test)
    assert [(leak.first, leak.second) for leak in leaks] == [("a3", "copy")]
    assert leaks[0].kind == ("voxels" if change == "renamed" else "appearance")
    case_traces.write_traces(tmp_path, case_traces.trace_cases(pool))
    with pytest.raises(BadInput, match="a3 and copy"):
        leakage.read_seen_cases(tmp_path, test)


def test_a_patient_and_a_series_are_recognized(tmp_path, pool):
    test = write_store(tmp_path / "test", {"b": make_anatomy(50)}, source="/x#123")
    again = replace(pool, cases=(replace(pool.cases[0], source="/elsewhere#123"), *pool.cases[1:]))
    assert [leak.kind for leak in find_leaks(again, test)] == ["series"]
    test = replace(test, cases=(replace(test.cases[0], patient=pool.cases[1].patient),))
    assert [(leak.kind, leak.first) for leak in find_leaks(pool, test)] == [("patient", "a1")]


def test_a_run_records_its_training_cases_in_200_bytes_each(pool, tmp_path):
    traces = case_traces.trace_cases(pool)
    case_traces.write_traces(tmp_path, traces)
    stored = case_traces.read_traces(tmp_path)
    assert np.array_equal(stored.rows, traces.rows) and stored.ids == [case.id for case in pool.cases]
    header, _, rows = (tmp_path / "traces.bin").read_bytes().partition(b"\n")
    assert json.loads(header) == {"format": "medssl traces", "version": 1, "cases": 5, "patients": 5}
    assert len(rows) == 5 * 200
    assert len(leakage.read_seen_cases(tmp_path, write_store(tmp_path / "test", {"b": make_anatomy(50)}))) == 5
    assert len(leakage.read_seen_cases(tmp_path, replace(pool, cases=()))) == 5
    assert len(leakage.read_seen_cases(None, pool)) == 0


DAMAGED = {
    "is no list of training cases": lambda whole: b"PK" + whole,
    "is damaged: 999 bytes for 5 cases of 200 bytes": lambda whole: whole[:-1],
    "is 'medssl traces' of version 2, not 'medssl traces' of version 1": lambda whole: whole.replace(b"1", b"2", 1),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_and_other_traces_are_refused(pool, tmp_path, fault):
    case_traces.write_traces(tmp_path, case_traces.trace_cases(pool))
    path = tmp_path / "traces.bin"
    path.write_bytes(DAMAGED[fault](path.read_bytes()))
    with pytest.raises(BadInput, match=f"{re.escape(fault)}; train the run again, or .*check-leakage"):
        leakage.read_seen_cases(tmp_path, pool)


def test_traces_of_the_earlier_format_are_refused_by_name(pool, tmp_path):
    (tmp_path / "pool.json").write_text("[]")
    with pytest.raises(BadInput, match=r"pool\.json: lists training cases in a format before version 1; train"):
        leakage.read_seen_cases(tmp_path, pool)


def test_long_ids_are_cut_and_empty_series_are_never_equal(pool, tmp_path):
    cases = tuple(replace(case, id=case.id + "é" * 20, source="") for case in pool.cases)
    traces = case_traces.trace_cases(replace(pool, cases=cases))
    assert traces.ids[0] == "a0" + "é" * 15
    assert leakage.find_leaks(traces, write_store(tmp_path / "test", {"b": make_anatomy(50)})) == []


def test_a_sketch_keeps_the_steps_to_four_levels(pool):
    (thumbnail, *_) = case_traces.read_thumbnails(pool)
    steps = appearance.decode_sketches(appearance.make_sketch(thumbnail)[None])
    assert steps.shape == (1, 576) and set(steps.ravel()) <= set(appearance.LEVELS)
    exact = np.concatenate([np.diff(thumbnail.astype(float).reshape((12, 2) * 3).mean((1, 3, 5)), axis=a).ravel()
                            for a in range(3)])[appearance.STEPS]  # fmt: skip
    roots = np.sign(exact) * np.sqrt(np.abs(exact))
    size = np.sqrt(np.mean(roots**2))
    assert (np.abs(roots / size)[np.abs(steps[0]) < 1] < 0.981).all()
    assert np.corrcoef(steps[0], roots)[0, 1] > 0.8 and (np.sign(steps[0]) == np.sign(roots))[roots != 0].all()


def test_a_store_without_thumbnails_is_read(pool, monkeypatch):
    traces = case_traces.trace_cases(pool)
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: replace(read(path), thumbnail=None))
    assert np.array_equal(case_traces.trace_cases(pool).rows, traces.rows)


REAL = {"hippocampus": "imagesTr/*.nii.gz", "headneck_ct": "imagesTr/*.nii.gz", "nodules": "images/*.nii.gz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_cropped_copies_of_real_scans_are_caught_and_no_two_patients(shared_data, name):
    """The copies lack 4 % of each axis; different scans stay below the threshold."""
    paths = sorted(shared_data(name).glob(REAL[name]))[:: 2 if name == "hippocampus" else 3]
    unit = "a.u." if name == "hippocampus" else "HU"
    volumes = [IntensityNormalization().prepare(replace(nifti.read(path), unit=unit), None) for path in paths]
    thumbnails = [store.make_thumbnail(volume) for volume in volumes]
    sketches = np.stack([appearance.make_sketch(thumbnail) for thumbnail in thumbnails])
    pairs = [(copy.scan, copy.sketch) for copy in appearance.find_copies(thumbnails, sketches)]
    assert pairs == [(n, n) for n in range(len(paths))]
    cropped = [store.make_thumbnail(crop(volume, 0.02)) for volume in volumes[::4]]
    pairs = [(copy.scan, copy.sketch) for copy in appearance.find_copies(cropped, sketches)]
    assert pairs == [(n, 4 * n) for n in range(len(cropped))]


def crop(volume, fraction):
    """Crops a fraction of each axis, at least a voxel, off both ends."""
    ends = [max(1, round(n * fraction)) for n in volume.shape]
    return replace(volume, voxels=volume.voxels[tuple(slice(end, -end) for end in ends)])


def test_a_run_without_traces_logs_a_warning(pool, tmp_path, caplog):
    assert not len(leakage.read_seen_cases(tmp_path, pool))
    assert "traces.bin is missing" in caplog.text
    with pytest.raises(BadInput, match=r"traces\.bin is missing"):
        leakage.split_sides(tmp_path, pool.folder / "manifest.csv")


def test_the_command_compares_manifests_and_runs_with_a_test_set(pool, tmp_path, capsys):
    pool.write(pool.folder / "manifest.csv")
    for name, number in (("fresh", 50), ("stale", 3)):
        test = write_store(tmp_path / name, {"b": make_anatomy(number)})
        test.write(test.folder / "manifest.csv")
    case_traces.write_traces(tmp_path / "run", case_traces.trace_cases(pool))
    for trained in ("pool/manifest.csv", "run"):
        assert cli.run("check-leakage", [str(tmp_path / trained), str(tmp_path / "fresh/manifest.csv")]) == 0
        assert "5 and 1 cases: no patient" in capsys.readouterr().out
        assert cli.run("check-leakage", [str(tmp_path / trained), str(tmp_path / "stale/manifest.csv")]) == 2
        assert "a3 and b: the same voxels" in capsys.readouterr().err


def test_the_command_compares_the_splits_of_one_store(tmp_path, capsys):
    manifest = write_store(
        tmp_path / "store", {"a": make_anatomy(1), "b": make_anatomy(2), "c": make_anatomy(1).resample((1.3,) * 3, 1)}
    )
    for splits, code in (("train test train", 0), ("train val test", 2)):
        cases = tuple(replace(c, split=s) for c, s in zip(manifest.cases, splits.split(), strict=True))
        replace(manifest, cases=cases).write(manifest.folder / "manifest.csv")
        assert cli.run("check-leakage", [str(manifest.folder / "manifest.csv")]) == code
    assert "a and c: look alike" in capsys.readouterr().err


SMALL = (
    "encoder.channels=[4,8]", "encoder.strides=[1,2]", "patch_size=[16,16,16]", "train.epochs=1",
    "train.steps_per_epoch=1", "train.batch_size=2",
)  # fmt: skip


def ingest_phantoms(root, seeds, ending, spacing_mm, **split):
    """Ingests labelled NIfTI files with the command and returns the option with their manifest."""
    for number, seed in enumerate(seeds):
        volume = make_anatomy(seed).resample(spacing_mm, order=1)
        image = replace(volume, voxels=(volume.voxels * 1000).astype(np.int16))
        nifti.write(image, root / f"imagesTr/{root.name}{number}{ending}")
        nifti.write(replace(image, voxels=(image.voxels > 400).astype(np.uint8), unit="label"),
                    root / f"labelsTr/{root.name}{number}{ending}")  # fmt: skip
    entries = [{"image": f"imagesTr/{root.name}{n}{ending}", "label": f"labelsTr/{root.name}{n}{ending}"}
               for n in range(len(seeds))]  # fmt: skip
    splits = {part: [entries[n] for n in numbers] for part, numbers in split.items()}
    write_json(root / "dataset.json", {"labels": {"0": "background", "1": "body"}, "modality": {"0": "MRI"}} | splits)
    assert cli.run("ingest", [str(root), "--out", f"{root}-store", "--workers", "0"]) == 0
    return f"manifest={root}-store/manifest.csv"


@pytest.mark.slow
def test_a_test_set_that_pretraining_saw_is_refused_for_finetuning_and_for_scores(tmp_path, capsys):
    """The planted copy has another name, another patient, another compression and other voxels."""
    pretraining_store = ingest_phantoms(
        tmp_path / "seen", (1, 2, 3), ".nii.gz", (1, 1, 1.5), training=(0, 2), validation=(1,)
    )
    finetuning_store = ingest_phantoms(
        tmp_path / "own", (4, 5, 3), ".nii", (1.2, 1.2, 1.5), training=(0,), validation=(1,), test=(2,)
    )
    assert cli.run("pretrain", ["configs/pretrain/mae.yaml", pretraining_store, f"run={tmp_path}/pre", *SMALL]) == 0
    args = [
        "configs/finetune/segment.yaml",
        finetuning_store,
        f"pretrained={tmp_path}/pre",
        f"run={tmp_path}/fine",
        *SMALL,
    ]
    capsys.readouterr()
    assert cli.run("finetune", args) == 2
    assert "seen2 and own2: look alike" in capsys.readouterr().err and not (tmp_path / "fine").exists()
    assert cli.run("finetune", [*args, "allow_overlap=true"]) == 0
    assert set(case_traces.read_traces(tmp_path / "fine").ids) == {"seen0", "seen2", "own0"}
    labels = finetuning_store.removeprefix("manifest=")
    assert cli.run("predict", [f"{tmp_path}/fine", labels, "--out", f"{tmp_path}/out"]) == 0
    capsys.readouterr()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels]) == 2
    assert "seen2 and own2: look alike" in capsys.readouterr().err and not (tmp_path / "out/evaluation").exists()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels, "--allow-overlap"]) == 0
