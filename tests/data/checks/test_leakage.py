"""A planted duplicate is caught, however it was saved, and different patients are not."""

from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.checks import appearance, leakage
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


@pytest.fixture
def pool(tmp_path):
    return write_store(tmp_path / "pool", {f"a{n}": make_anatomy(n) for n in range(5)})


def test_other_patients_do_not_leak(pool, tmp_path):
    assert (
        leakage.find_leaks(pool, write_store(tmp_path / "test", {f"b{n}": make_anatomy(n + 50) for n in range(5)}))
        == []
    )


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
    leaks = leakage.find_leaks(pool, test)
    assert [(leak.first, leak.second) for leak in leaks] == [("a3", "copy")]
    assert leaks[0].kind == ("voxels" if change == "renamed" else "appearance")
    leakage.write_traces(tmp_path, leakage.trace_cases(pool))
    with pytest.raises(BadInput, match="a3 and copy"):
        leakage.read_seen_cases(tmp_path, test)


def test_a_patient_and_a_series_are_recognized(tmp_path, pool):
    test = write_store(tmp_path / "test", {"b": make_anatomy(50)}, source="/x#123")
    again = replace(pool, cases=(replace(pool.cases[0], source="/elsewhere#123"), *pool.cases[1:]))
    assert [leak.kind for leak in leakage.find_leaks(again, test)] == ["series"]
    test = replace(test, cases=(replace(test.cases[0], patient=pool.cases[1].patient),))
    assert [(leak.kind, leak.first) for leak in leakage.find_leaks(pool, test)] == [("patient", "a1")]


def test_a_run_records_its_training_cases(pool, tmp_path):
    traces = leakage.trace_cases(pool)
    leakage.write_traces(tmp_path, traces)
    for stored, trace in zip(leakage.read_traces(tmp_path), traces, strict=True):
        assert np.array_equal(stored.appearance, trace.appearance)
        for name in ("id", "patient", "series", "voxels"):
            assert getattr(stored, name) == getattr(trace, name)
    assert len(leakage.read_seen_cases(tmp_path, write_store(tmp_path / "test", {"b": make_anatomy(50)}))) == 5
    assert leakage.read_seen_cases(tmp_path, replace(pool, cases=())) and leakage.read_seen_cases(None, pool) == []


def test_a_run_keeps_at_most_200_bytes_of_a_case(tmp_path):
    random = np.random.default_rng(0)
    codes = random.integers(0, 243, (1000, appearance.CODE_BYTES), np.uint8)
    traces = [
        leakage.CaseTrace(f"sub-{n:06d}_chest", *(random.bytes(6) for _ in range(3)), codes[n]) for n in range(1000)
    ]
    leakage.write_traces(tmp_path, traces)
    assert (tmp_path / leakage.TRACES_FILE).stat().st_size <= 200 * len(traces)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:90] + b"\xff" + b[91:]])
def test_a_damaged_list_of_training_cases_is_refused(pool, tmp_path, damage):
    leakage.write_traces(tmp_path, leakage.trace_cases(pool))
    path = tmp_path / leakage.TRACES_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=r"pool.npz: is not a list of training cases"):
        leakage.read_traces(tmp_path)


def test_an_empty_scan_looks_like_no_other():
    empty, thumbnail = np.zeros((24, 24, 24), np.uint8), store.make_thumbnail(make_anatomy(0))
    codes = np.stack([appearance.encode_appearance(picture) for picture in (empty, thumbnail)])
    assert list(appearance.find_copies(empty, codes)) == []
    assert [(copy.index, copy.similarity > 0.99) for copy in appearance.find_copies(thumbnail, codes)] == [(1, True)]


def test_a_store_without_thumbnails_is_read(pool, monkeypatch):
    traces = leakage.trace_cases(pool)
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: replace(read(path), thumbnail=None))
    assert all(
        np.array_equal(a.appearance, b.appearance) for a, b in zip(leakage.trace_cases(pool), traces, strict=True)
    )


REAL = {"hippocampus": "imagesTr/*.nii.gz", "headneck_ct": "imagesTr/*.nii.gz", "nodules": "images/*.nii.gz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_cropped_copies_of_real_scans_are_caught_and_no_two_patients(shared_data, name):
    """The copies lack one voxel on each side; different scans stay below the threshold."""
    paths = sorted(shared_data(name).glob(REAL[name]))[:: 1 if name == "hippocampus" else 3]
    unit = "a.u." if name == "hippocampus" else "HU"
    volumes = [IntensityNormalization().prepare(replace(nifti.read(path), unit=unit), None) for path in paths]
    thumbnails = [store.make_thumbnail(v) for v in volumes]
    codes = np.stack([appearance.encode_appearance(thumbnail) for thumbnail in thumbnails])
    for number, thumbnail in enumerate(thumbnails):
        copies = [paths[copy.index].name for copy in appearance.find_copies(thumbnail, codes)]
        assert copies == [paths[number].name]
    for number, volume in list(enumerate(volumes))[::3]:
        cropped = store.make_thumbnail(replace(volume, voxels=volume.voxels[1:-1, 1:-1, 1:-1]))
        assert [copy.index for copy in appearance.find_copies(cropped, codes)] == [number]


def test_a_run_without_traces_logs_a_warning(pool, tmp_path, caplog):
    assert leakage.read_seen_cases(tmp_path, pool) == []
    assert "pool.npz is missing" in caplog.text
    with pytest.raises(BadInput, match=r"pool.npz is missing"):
        leakage.split_sides(tmp_path, pool.folder / "manifest.csv")


def test_the_command_compares_manifests_and_runs_with_a_test_set(pool, tmp_path, capsys):
    pool.write(pool.folder / "manifest.csv")
    for name, number in (("fresh", 50), ("stale", 3)):
        test = write_store(tmp_path / name, {"b": make_anatomy(number)})
        test.write(test.folder / "manifest.csv")
    leakage.write_traces(tmp_path / "run", leakage.trace_cases(pool))
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
    assert {trace.id for trace in leakage.read_traces(tmp_path / "fine")} == {"seen0", "seen2", "own0"}
    labels = finetuning_store.removeprefix("manifest=")
    assert cli.run("predict", [f"{tmp_path}/fine", labels, "--out", f"{tmp_path}/out"]) == 0
    capsys.readouterr()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels]) == 2
    assert "seen2 and own2: look alike" in capsys.readouterr().err and not (tmp_path / "out/evaluation").exists()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels, "--allow-overlap"]) == 0
