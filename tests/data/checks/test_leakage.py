"""Leaks: a planted duplicate is caught, however it was saved; other patients are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import fingerprint as looks
from medssl.data import store
from medssl.data.checks import leakage as leaks
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.errors import BadInput
from medssl.files import write_json
from medssl.io import nifti
from medssl.volume import Volume


def anatomy(seed):
    """Smooth structures in a body, the same body for every patient."""
    random = np.random.default_rng(seed)
    at = np.indices((48, 40, 36)).transpose(1, 2, 3, 0)
    voxels = np.where(np.linalg.norm((at - (24, 20, 18)) / (22, 18, 17), axis=-1) < 1, 0.4, 0.0)
    for centre in random.uniform(8, 30, (14, 3)):
        voxels += 0.3 * random.choice([-1, 1]) * np.exp(-((at - centre) ** 2).sum(-1) / 20) * (voxels > 0)
    return Volume(voxels.clip(0, 1).astype(np.float32), np.diag([1.0, 1, 1.5, 1]), "a.u.")


def kept(folder, volumes, source=""):
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
    return kept(tmp_path / "pool", {f"a{n}": anatomy(n) for n in range(5)})


def test_other_patients_do_not_leak(pool, tmp_path):
    assert leaks.between(pool, kept(tmp_path / "test", {f"b{n}": anatomy(n + 50) for n in range(5)})) == []


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
    planted = COPIES[change](anatomy(3))
    test = kept(tmp_path / "test", {"b": anatomy(50), "copy": planted})
    found = leaks.between(pool, test)
    assert [(leak.one, leak.other) for leak in found] == [("a3", "copy")]
    assert found[0].kind == ("voxels" if change == "renamed" else "looks")
    leaks.remember(tmp_path, leaks.traces(pool))
    with pytest.raises(BadInput, match="a3 and copy"):
        leaks.seen_by(tmp_path, test)


def test_a_patient_and_a_series_are_known_again(tmp_path, pool):
    test = kept(tmp_path / "test", {"b": anatomy(50)}, source="/x#123")
    again = replace(pool, cases=(replace(pool.cases[0], source="/elsewhere#123"), *pool.cases[1:]))
    assert [leak.kind for leak in leaks.between(again, test)] == ["series"]
    test = replace(test, cases=(replace(test.cases[0], patient=pool.cases[1].patient),))
    assert [(leak.kind, leak.one) for leak in leaks.between(pool, test)] == [("patient", "a1")]


def test_a_run_remembers_what_it_has_seen(pool, tmp_path):
    seen = leaks.traces(pool)
    leaks.remember(tmp_path, seen)
    for then, now in zip(leaks.recall(tmp_path), seen, strict=True):
        assert np.array_equal(then.steps, now.steps) and np.array_equal(then.picture, now.picture)
        assert (then.id, then.patient, then.sha256) == (now.id, now.patient, now.sha256)
    assert len(leaks.seen_by(tmp_path, kept(tmp_path / "test", {"b": anatomy(50)}))) == 5
    assert leaks.seen_by(tmp_path, replace(pool, cases=())) and leaks.seen_by(None, pool) == []


def test_a_run_from_before_the_pictures_still_knows_its_scans(pool, tmp_path):
    leaks.remember(tmp_path, [replace(trace, picture=None) for trace in leaks.traces(pool)])
    assert "looks" in (tmp_path / "pool.json").read_text() and all(t.picture is None for t in leaks.recall(tmp_path))
    with pytest.raises(BadInput, match="a3 and copy: look alike"):
        leaks.seen_by(tmp_path, kept(tmp_path / "test", {"copy": COPIES["rounded"](anatomy(3))}))


def test_a_store_from_before_the_pictures_is_looked_at(pool, monkeypatch):
    told = leaks.traces(pool)
    read = store.read
    monkeypatch.setattr(store, "read", lambda path: replace(read(path), picture=None))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(leaks.traces(pool), told, strict=True))


REAL = {"hippocampus": "imagesTr/*.nii.gz", "headneck_ct": "imagesTr/*.nii.gz", "nodules": "images/*.nii.gz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_of_real_scans_cropped_copies_are_caught_and_no_two_patients(shared_data, name):
    """One voxel less all round, and saved again; other scans stay below the mark however near they come."""
    paths = sorted(shared_data(name).glob(REAL[name]))[:: 1 if name == "hippocampus" else 3]
    unit = "a.u." if name == "hippocampus" else "HU"
    volumes = [Recipe().prepare(replace(nifti.read(path), unit=unit), None) for path in paths]
    shown = [store.looked_at(v) for v in volumes]
    steps = np.stack([looks.steps(s) for s in shown])
    near = np.triu(steps @ steps.T, 1)
    for i, j in np.argwhere(near > leaks.NEAR):
        assert looks.likeness(shown[i], shown[j]) < leaks.ALIKE, (paths[i].name, paths[j].name)
    for one, volume in list(zip(shown, volumes, strict=True))[::3]:
        less = store.looked_at(replace(volume, voxels=volume.voxels[1:-1, 1:-1, 1:-1]))
        assert looks.steps(one) @ looks.steps(less) > leaks.NEAR and looks.likeness(one, less) > leaks.ALIKE


def test_a_run_that_remembers_nothing_says_so(pool, tmp_path, caplog):
    assert leaks.seen_by(tmp_path, pool) == []
    assert "pool.json is missing" in caplog.text
    with pytest.raises(BadInput, match=r"pool.json is missing"):
        leaks.sides(tmp_path, pool.folder / "manifest.csv")


def test_check_holds_manifests_and_runs_against_a_test_set(pool, tmp_path, capsys):
    pool.write(pool.folder / "manifest.csv")
    for name, number in (("fresh", 50), ("stale", 3)):
        test = kept(tmp_path / name, {"b": anatomy(number)})
        test.write(test.folder / "manifest.csv")
    leaks.remember(tmp_path / "run", leaks.traces(pool))
    for trained in ("pool/manifest.csv", "run"):
        assert cli.run("check-leakage", [str(tmp_path / trained), str(tmp_path / "fresh/manifest.csv")]) == 0
        assert "5 and 1 cases: no patient" in capsys.readouterr().out
        assert cli.run("check-leakage", [str(tmp_path / trained), str(tmp_path / "stale/manifest.csv")]) == 2
        assert "a3 and b: the same voxels" in capsys.readouterr().err


def test_check_looks_into_one_store_too(tmp_path, capsys):
    manifest = kept(tmp_path / "store", {"a": anatomy(1), "b": anatomy(2), "c": anatomy(1).resample((1.3,) * 3, 1)})
    for splits, code in (("train test train", 0), ("train val test", 2)):
        cases = tuple(replace(c, split=s) for c, s in zip(manifest.cases, splits.split(), strict=True))
        replace(manifest, cases=cases).write(manifest.folder / "manifest.csv")
        assert cli.run("check-leakage", [str(manifest.folder / "manifest.csv")]) == code
    assert "a and c: look alike" in capsys.readouterr().err


SMALL = (
    "encoder.channels=[4,8]", "encoder.strides=[1,2]", "crop=[16,16,16]", "plan.epochs=1", "plan.steps=1",
    "plan.batch=2",
)  # fmt: skip


def prepared(root, seeds, ending, spacing_mm, **split):
    """A store made by the command of labelled NIfTI files, and the name of its manifest."""
    for number, seed in enumerate(seeds):
        drawn = anatomy(seed).resample(spacing_mm, order=1)
        image = replace(drawn, voxels=(drawn.voxels * 1000).astype(np.int16))
        nifti.write(image, root / f"imagesTr/{root.name}{number}{ending}")
        nifti.write(replace(image, voxels=(image.voxels > 400).astype(np.uint8), unit="label"),
                    root / f"labelsTr/{root.name}{number}{ending}")  # fmt: skip
    entries = [{"image": f"imagesTr/{root.name}{n}{ending}", "label": f"labelsTr/{root.name}{n}{ending}"}
               for n in range(len(seeds))]  # fmt: skip
    listed = {part: [entries[n] for n in numbers] for part, numbers in split.items()}
    write_json(root / "dataset.json", {"labels": {"0": "background", "1": "body"}, "modality": {"0": "MRI"}} | listed)
    assert cli.run("ingest", [str(root), "--out", f"{root}-store", "--workers", "0"]) == 0
    return f"manifest={root}-store/manifest.csv"


@pytest.mark.slow
def test_a_test_set_that_pretraining_saw_is_refused_for_finetuning_and_for_scores(tmp_path, capsys):
    """The planted copy has another name, another patient, another compression and other voxels."""
    seen = prepared(tmp_path / "seen", (1, 2, 3), ".nii.gz", (1, 1, 1.5), training=(0, 2), validation=(1,))
    own = prepared(tmp_path / "own", (4, 5, 3), ".nii", (1.2, 1.2, 1.5), training=(0,), validation=(1,), test=(2,))
    assert cli.run("pretrain", ["configs/pretrain/mae.yaml", seen, f"run={tmp_path}/pre", *SMALL]) == 0
    how = ["configs/finetune/segment.yaml", own, f"pretrained={tmp_path}/pre", f"run={tmp_path}/fine", *SMALL]
    capsys.readouterr()
    assert cli.run("finetune", how) == 2
    assert "seen2 and own2: look alike" in capsys.readouterr().err and not (tmp_path / "fine").exists()
    assert cli.run("finetune", [*how, "allow_overlap=true"]) == 0
    assert {trace.id for trace in leaks.recall(tmp_path / "fine")} == {"seen0", "seen2", "own0"}
    labels = own.removeprefix("manifest=")
    assert cli.run("predict", [f"{tmp_path}/fine", labels, "--out", f"{tmp_path}/out"]) == 0
    capsys.readouterr()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels]) == 2
    assert "seen2 and own2: look alike" in capsys.readouterr().err and not (tmp_path / "out/evaluation").exists()
    assert cli.run("evaluate", [f"{tmp_path}/out", "--labels", labels, "--allow-overlap"]) == 0
