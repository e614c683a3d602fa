"""What is torn, rotten or gone is named with its remedy; what is whole is not."""

from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.checks.integrity import verify
from medssl.data.ingest import file_ledger as ledger
from medssl.data.ingest import prepare_case as prepare
from medssl.data.manifest import Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.files import SEALS, seal
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume


class Plain(Settings):
    run: Path


def a_store(folder, count=2):
    """A sealed store of noise, as an ingestion leaves it."""
    cases = []
    for n in range(count):
        random = np.random.default_rng(n)
        image = Volume(random.uniform(0, 1, (1, 40, 36, 20)).astype(np.float16), np.eye(4), "a.u.")
        label = Volume((random.uniform(0, 1, (40, 36, 20)) > 0.99).astype(np.uint8), np.eye(4), "label")
        sha = store.write(folder / f"images/c{n}.b2nd", image, {})
        label_sha = store.write(folder / f"labels/c{n}.b2nd", label, {})
        cases.append(
            prepare.Case(
                f"c{n}", f"p{n}", f"images/c{n}.b2nd", f"labels/c{n}.b2nd", "MR", "a.u.", (1.0, 1.0, 1.0),
                (40, 36, 20), 1, "train", "hidden-0", sha, label_sha256=label_sha,
            )
        )  # fmt: skip
    Card(recipe=Recipe()).write(folder)
    ledger.write(folder / "ledger.csv", [])
    Manifest(tuple(cases), folder).write(folder / "manifest.csv")
    seal(folder, ("store.json", "ledger.csv", "manifest.csv"))
    return folder


def a_run(folder):
    made = Run.create(folder, Plain(run=folder), "pretrain")
    (folder / "weights.safetensors").write_bytes(b"weights" * 99)
    made.close()
    return folder


def some_predictions(folder):
    for name in ("image.nii.gz", "labels.nii.gz", "probability.nii.gz", "findings.json"):
        (folder / "case-a").mkdir(parents=True, exist_ok=True)
        (folder / "case-a" / name).write_bytes(name.encode() * 40)
    (folder / "index.json").write_text(
        '{"cases": [{"id": "case-a", "unit": "HU"}], "labels": [], "model": {}, "created": "", "notice": ""}'
    )
    seal(folder, ("index.json", *(f"case-a/{path.name}" for path in (folder / "case-a").iterdir())))
    return folder


KINDS = {"store": a_store, "run": a_run, "predictions": some_predictions}


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << (at % 8)
    path.write_bytes(bytes(content))


DAMAGES = {
    "flipped": lambda path: flipped(path, path.stat().st_size // 2),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


def faults(place):
    return {str(c.path.relative_to(place)): c for c in verify(place, 0, lambda done, of: None) if c.fault}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_found_whole(tmp_path, kind):
    place = KINDS[kind](tmp_path / "it")
    checked = verify(place, 0, lambda done, of: None)
    assert {c.path for c in checked} | {place / SEALS} == {p for p in place.rglob("*") if p.is_file()}
    assert not any(c.fault for c in checked)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damaged_file_is_named_with_its_remedy(tmp_path, kind, damage):
    names = [str(p.relative_to(tmp_path / "0")) for p in KINDS[kind](tmp_path / "0").rglob("*") if p.is_file()]
    for n, name in enumerate(names, 1):
        place = KINDS[kind](tmp_path / str(n))
        DAMAGES[damage](place / name)
        found = faults(place)
        assert found if name == SEALS else name in found and len(found) == 1, name
        assert all("again" in c.remedy for c in found.values())


def test_a_flipped_byte_of_voxels_is_named_or_changes_nothing(tmp_path):
    place = a_store(tmp_path / "store", 24)
    before = {path: store.read(path).volume() for path in place.rglob("*.b2nd")}
    for n, path in enumerate(sorted(before)):
        flipped(path, (n * 7919 + 13) * 31)
    checked = {c.path: c for c in verify(place, 1, lambda done, of: None) if c.path in before}
    whole = [path for path, c in checked.items() if not c.fault]
    assert len(checked) == 48 and len(whole) < 24
    assert all(np.array_equal(store.read(path).volume().voxels, before[path].voxels) for path in whole)


def test_voxels_of_another_case_are_not_its_own(tmp_path):
    place = a_store(tmp_path / "store")
    (place / "images/c0.b2nd").write_bytes((place / "images/c1.b2nd").read_bytes())
    assert [*faults(place)] == ["images/c0.b2nd"]


def test_a_prediction_that_was_never_sealed_is_named(tmp_path):
    place = some_predictions(tmp_path / "it")
    lines = (place / SEALS).read_text().splitlines()
    (place / SEALS).write_text("\n".join(line for line in lines if "labels" not in line) + "\n")
    assert "never sealed" in faults(place)["case-a/labels.nii.gz"].fault


def test_an_unfinished_run_and_a_strange_folder_are_told_apart(tmp_path):
    Run.create(tmp_path / "run", Plain(run=tmp_path / "run"), "pretrain")
    with pytest.raises(BadInput, match="not finished"):
        verify(tmp_path / "run", 0, lambda done, of: None)
    with pytest.raises(BadInput, match="neither a store nor a run"):
        verify(tmp_path, 0, lambda done, of: None)


def test_the_command_exits_with_2_and_names_the_file(tmp_path, capsys):
    place = a_run(tmp_path / "run")
    assert cli.run("verify", [str(place), "--workers", "0"]) == 0
    flipped(place / "weights.safetensors", 5)
    assert cli.run("verify", [str(place), "--workers", "0"]) == 2
    said = capsys.readouterr()
    assert "weights.safetensors: holds other bytes" in said.out and "1 of 3 files" in said.err
