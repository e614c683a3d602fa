"""Leaks: a planted duplicate is caught, however it was saved; other patients are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from medssl.data import leaks, store
from medssl.data.manifest import Case, Manifest
from medssl.errors import BadInput
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
}


@pytest.mark.parametrize("change", COPIES)
def test_a_planted_copy_is_caught(pool, tmp_path, change):
    planted = COPIES[change](anatomy(3))
    test = kept(tmp_path / "test", {"b": anatomy(50), "copy": planted})
    found = leaks.between(pool, test)
    assert [(leak.one, leak.other) for leak in found] == [("a3", "copy")]
    assert found[0].kind == ("voxels" if change == "renamed" else "looks")
    with pytest.raises(BadInput, match="a3 and copy"):
        leaks.refuse(pool, test)


def test_a_patient_and_a_series_are_known_again(tmp_path, pool):
    test = kept(tmp_path / "test", {"b": anatomy(50)}, source="/x#123")
    again = replace(pool, cases=(replace(pool.cases[0], source="/elsewhere#123"), *pool.cases[1:]))
    assert [leak.kind for leak in leaks.between(again, test)] == ["series"]
    test = replace(test, cases=(replace(test.cases[0], patient=pool.cases[1].patient),))
    assert [(leak.kind, leak.one) for leak in leaks.between(pool, test)] == [("patient", "a1")]
