"""The file of report embeddings comes back as it was written, and damaged ones are refused."""

import stat

import numpy as np
import pytest

from medssl.data.reports.embeddings import ReportEmbeddings
from medssl.errors import BadInput


def make_embeddings():
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return ReportEmbeddings({"a": rows[:2], "b": rows[2:]}, "hash")


def test_embeddings_are_read_as_written(tmp_path):
    written = make_embeddings()
    written.write(tmp_path / "reports.npz")
    read = ReportEmbeddings.read(tmp_path / "reports.npz")
    assert read.encoder == "hash" and read.width == 8
    for case, rows in zip("ba", read.select(["b", "a"]), strict=True):
        np.testing.assert_allclose(rows, written.by_case[case], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert read.select(["c"])[0].shape == (0, 8)
    assert stat.S_IMODE((tmp_path / "reports.npz").stat().st_mode) == 0o600


def change(path, **arrays):
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files if name not in arrays}
    np.savez(path, **kept, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        lambda path: change(path, counts=np.array([2, 2])),
        lambda path: change(path, cases=np.array(["a"])),
        lambda path: change(path, encoder=None),
        lambda path: change(path, embeddings=np.full((5, 8), np.nan, np.float16)),
        lambda path: change(path, cases=np.array([{}, {}], dtype=object)),
        lambda path: change(path, cases=np.array([]), counts=np.array([], int), embeddings=np.zeros((0, 8))),
    ],
)
def test_damaged_files_are_refused(tmp_path, spoil):
    path = tmp_path / "reports.npz"
    make_embeddings().write(path)
    spoil(path)
    with pytest.raises(BadInput, match=r"reports.npz: is damaged or no file of `medssl encode-reports`"):
        ReportEmbeddings.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such file; `medssl encode-reports` writes one"):
        ReportEmbeddings.read(tmp_path / "none.npz")
