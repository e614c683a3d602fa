"""Files from outside that would run code, fill the memory or leave their folder are refused in one line."""

import gzip
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from medssl import cli
from medssl.files import sha256
from tests.helpers.resource_limits import limit_resources
from tests.helpers.toy_training import write_store


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_weights(folder, marker):
    """Returns a file of weights of each kind."""
    torch.save({"state_dict": {"a": torch.zeros(1), "b": Payload(marker)}}, folder / "torch.pt")
    (folder / "pickle.pth").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(marker), protocol=2))
        archive.writestr("archive/version", "3")
    np.savez(folder / "numpy.npz", a=np.array([Payload(marker)], dtype=object))
    (folder / "model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(100))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "large.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return sorted(folder.iterdir())


def test_weights_that_hold_code_or_lie_about_their_size_are_refused(tmp_path, capsys):
    marker, folder = tmp_path / "marker", tmp_path / "weights"
    folder.mkdir()
    for path in write_weights(folder, marker):
        code = cli.run("import-weights", [str(path), "--out", str(tmp_path / "run"), "--licence", "CC0"])
        error = capsys.readouterr().err
        assert code == 2 and str(path) in error and len(error.strip().splitlines()) == 1, (path, error)
        assert not marker.exists() and not (tmp_path / "run").exists(), path


YAML = {
    "call": "run: !!python/object/apply:os.mkdir [{marker}]",
    "module": "run: !!python/module:os",
    "laughs": "a: &a [x,x,x,x]\n" + "\n".join(
        f"{b}: &{b} [*{a},*{a},*{a},*{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep": "run: " + "[" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("name", YAML)
def test_a_config_holds_plain_values_only(tmp_path, capsys, name):
    marker, path = tmp_path / "marker", tmp_path / "config.yaml"
    path.write_text(YAML[name].format(marker=marker) if name == "call" else YAML[name])
    assert cli.run("pretrain", [str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and len(error) < 5000 and not marker.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1, 2]", '{"state": "closed"}', "\x00"])
def test_a_run_with_damaged_metadata_is_refused(tmp_path, capsys, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    manifest = write_store(tmp_path / "store", 2, side=16)
    assert cli.run("predict", [str(tmp_path / "run"), str(manifest), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "run.json" in error and len(error.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_checkpoint_that_holds_code_is_not_resumed_from(tmp_path, capsys):
    marker, manifest = tmp_path / "marker", write_store(tmp_path / "store", 3, side=16)
    words = [
        "configs/pretrain/mae.yaml", f"manifest={manifest}", f"run={tmp_path / 'run'}", "patch_size=[8,8,8]",
        "encoder={name: residual, channels: [4, 8], strides: [1, 2]}", "train={epochs: 1, steps_per_epoch: 2}",
        "num_probe_volumes=0", "augment=null", "resume=true",
    ]  # fmt: skip
    assert cli.run("pretrain", [*words, "limits.max_hours=1e-9"]) == 75
    path = tmp_path / "run" / "step-99999999.ckpt"
    path.write_bytes(pickle.dumps(Payload(marker), protocol=2))
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256(path)}  {path.name}\n")
    capsys.readouterr()
    assert cli.run("pretrain", words) == 2
    assert str(path) in capsys.readouterr().err and not marker.exists()


def write_images(folder):
    """Writes scans of each format that promise more than they hold, and archives that leave their folder."""
    nifti = bytearray(352)
    struct.pack_into("<i", nifti, 0, 348)
    struct.pack_into("<8h", nifti, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    struct.pack_into("<2h", nifti, 70, 64, 64)
    struct.pack_into("<8f", nifti, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", nifti, 108, 352)
    nifti[344:348] = b"n+1\0"
    (folder / "huge.nii").write_bytes(nifti)
    with gzip.open(folder / "bomb.nii.gz", "wb", 9) as file:
        file.write(bytes(nifti))
        for _ in range(256):
            file.write(bytes(2**20))
    (folder / "preamble.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 40)
    with zipfile.ZipFile(folder / "escape.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.nii", bytes(nifti))
        archive.writestr("/etc/outside.nii", bytes(nifti))
        archive.writestr("bomb.nii", bytes(2**28))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)


def test_a_folder_of_hostile_scans_is_listed_and_nothing_leaves_it(tmp_path, capsys):
    folder = tmp_path / "a" / "b" / "scans"
    folder.mkdir(parents=True)
    write_images(folder)
    with limit_resources(cpu_s=20.0, mib=400):
        code = cli.run("ingest", [str(folder), "--out", str(tmp_path / "store"), "--workers", "0"])
    captured = capsys.readouterr()
    assert code == 2 and "internal error" not in captured.err, captured.err
    assert not list(tmp_path.rglob("outside*")) and sorted(p.name for p in tmp_path.iterdir()) <= ["a", "store"]
