"""Every damaged or missing file is found and named with its remedy, and intact files are not."""

from pathlib import Path

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.checks.integrity import verify
from medssl.data.ingest import file_ledger
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import CHECKSUMS, write_checksums
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume


class Plain(Settings):
    run: Path


def write_store(folder, count=2):
    """Writes a sealed store of noise, as an ingestion does."""
    cases = []
    for n in range(count):
        random = np.random.default_rng(n)
        image = Volume(random.uniform(0, 1, (1, 40, 36, 20)).astype(np.float16), np.eye(4), "a.u.")
        label = Volume((random.uniform(0, 1, (40, 36, 20)) > 0.99).astype(np.uint8), np.eye(4), "label")
        sha = store.write(folder / f"images/c{n}.b2nd", image, {})
        label_sha = store.write(folder / f"labels/c{n}.b2nd", label, {})
        cases.append(
            Case(
                f"c{n}", f"p{n}", f"images/c{n}.b2nd", f"labels/c{n}.b2nd", "MR", "a.u.", (1.0, 1.0, 1.0),
                (40, 36, 20), 1, "train", "hidden-0", sha, label_sha256=label_sha,
            )
        )  # fmt: skip
    StoreMetadata(normalization=IntensityNormalization()).write(folder)
    file_ledger.write_ledger(folder / "ledger.csv", [])
    Manifest(tuple(cases), folder).write(folder / "manifest.csv")
    write_checksums(folder, ("store.json", "ledger.csv", "manifest.csv"))
    return folder


def write_run(folder):
    run = Run.create(folder, Plain(run=folder), "pretrain")
    (folder / "weights.safetensors").write_bytes(b"weights" * 99)
    run.close()
    return folder


def write_predictions(folder):
    for name in ("image.nii.gz", "labels.nii.gz", "probability.nii.gz", "findings.json"):
        (folder / "case-a").mkdir(parents=True, exist_ok=True)
        (folder / "case-a" / name).write_bytes(name.encode() * 40)
    (folder / "index.json").write_text(
        '{"cases": [{"id": "case-a", "unit": "HU"}], "labels": [], "model": {}, "created": "", "notice": ""}'
    )
    write_checksums(folder, ("index.json", *(f"case-a/{path.name}" for path in (folder / "case-a").iterdir())))
    return folder


KINDS = {"store": write_store, "run": write_run, "predictions": write_predictions}


def flip_bit(path, index):
    content = bytearray(path.read_bytes())
    content[index % len(content)] ^= 1 << (index % 8)
    path.write_bytes(bytes(content))


DAMAGES = {
    "flipped": lambda path: flip_bit(path, path.stat().st_size // 2),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "emptied": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


def find_faults(folder):
    return {str(c.path.relative_to(folder)): c for c in verify(folder, 0, lambda done, total: None) if c.fault}


@pytest.mark.parametrize("kind", KINDS)
def test_intact_files_have_no_fault(tmp_path, kind):
    folder = KINDS[kind](tmp_path / "it")
    checked = verify(folder, 0, lambda done, total: None)
    assert {c.path for c in checked} | {folder / CHECKSUMS} == {p for p in folder.rglob("*") if p.is_file()}
    assert not any(c.fault for c in checked)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damaged_file_is_named_with_its_remedy(tmp_path, kind, damage):
    names = [str(p.relative_to(tmp_path / "0")) for p in KINDS[kind](tmp_path / "0").rglob("*") if p.is_file()]
    for n, name in enumerate(names, 1):
        folder = KINDS[kind](tmp_path / str(n))
        DAMAGES[damage](folder / name)
        faults = find_faults(folder)
        assert faults if name == CHECKSUMS else name in faults and len(faults) == 1, name
        assert all("again" in c.remedy for c in faults.values())


def test_a_flipped_byte_of_voxels_is_named_or_changes_nothing(tmp_path):
    folder = write_store(tmp_path / "store", 24)
    before = {path: store.read(path).volume() for path in folder.rglob("*.b2nd")}
    for n, path in enumerate(sorted(before)):
        flip_bit(path, (n * 7919 + 13) * 31)
    checked = {c.path: c for c in verify(folder, 1, lambda done, total: None) if c.path in before}
    intact = [path for path, c in checked.items() if not c.fault]
    assert len(checked) == 48 and len(intact) < 24
    assert all(np.array_equal(store.read(path).volume().voxels, before[path].voxels) for path in intact)


def test_voxels_of_another_case_are_not_its_own(tmp_path):
    folder = write_store(tmp_path / "store")
    (folder / "images/c0.b2nd").write_bytes((folder / "images/c1.b2nd").read_bytes())
    assert [*find_faults(folder)] == ["images/c0.b2nd"]


def test_a_prediction_that_was_never_sealed_is_named(tmp_path):
    folder = write_predictions(tmp_path / "it")
    lines = (folder / CHECKSUMS).read_text().splitlines()
    (folder / CHECKSUMS).write_text("\n".join(line for line in lines if "labels" not in line) + "\n")
    assert "never sealed" in find_faults(folder)["case-a/labels.nii.gz"].fault


def test_an_unfinished_run_and_an_unknown_folder_are_refused(tmp_path):
    Run.create(tmp_path / "run", Plain(run=tmp_path / "run"), "pretrain")
    with pytest.raises(BadInput, match="not finished"):
        verify(tmp_path / "run", 0, lambda done, total: None)
    with pytest.raises(BadInput, match="neither a store nor a run"):
        verify(tmp_path, 0, lambda done, total: None)


def test_the_command_exits_with_2_and_names_the_file(tmp_path, capsys):
    folder = write_run(tmp_path / "run")
    assert cli.run("verify", [str(folder), "--workers", "0"]) == 0
    flip_bit(folder / "weights.safetensors", 5)
    assert cli.run("verify", [str(folder), "--workers", "0"]) == 2
    captured = capsys.readouterr()
    assert "weights.safetensors: holds other bytes" in captured.out and "1 of 3 files" in captured.err
