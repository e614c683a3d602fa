"""Every file below a folder is listed once, in an order that does not depend on the disk."""

import os

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.io.file_walk import list_files, walk_files
from medssl.io.rejected import RejectedFiles


def list_expected(folder):
    """The files of a folder by name, then those of each folder in it."""
    names = sorted(path.name for path in folder.iterdir())
    files = [folder / name for name in names if (folder / name).is_file() or (folder / name).is_symlink()]
    folders = [folder / name for name in names if (folder / name).is_dir() and not (folder / name).is_symlink()]
    return files + [file for inner in folders if inner.name != ".git" for file in list_expected(inner)]


@pytest.mark.parametrize("seed", range(8))
def test_files_are_listed_by_name_folder_after_folder(tmp_path, seed):
    random = np.random.default_rng(seed)
    folders = [tmp_path / "scans"]
    folders[0].mkdir()
    for name in random.permutation(["b", "a", ".git", "Z", "a.b", "10", "9", "ä"]):
        folders.append(folders[int(random.integers(len(folders)))] / str(name))
        folders[-1].mkdir()
    for n in random.permutation(30):
        (folders[int(random.integers(len(folders)))] / f"{'xX_.'[n % 4]}{n}.dcm").write_text("")
    links = [folders[int(random.integers(len(folders)))] / f"link{n}" for n in range(3)]
    for link, target in zip(links, (folders[0], folders[0] / "gone", "/dev/null"), strict=True):
        link.symlink_to(target)
    paths = [item.files[0] if isinstance(item, RejectedFiles) else item for item in list_files(folders[0])]
    assert paths == list_expected(folders[0])
    rejected = {item.files[0] for item in list_files(folders[0]) if isinstance(item, RejectedFiles)}
    assert rejected == {link for link in links if ".git" not in link.parts}


def test_links_are_followed_once_and_not_into_folders_around_them(tmp_path):
    inner = tmp_path / "scans" / "a"
    inner.mkdir(parents=True)
    (inner / "one.dcm").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.dcm").write_text("")
    for name, target in (("up", tmp_path / "scans"), ("same", inner), ("other", tmp_path / "other")):
        (inner / name).symlink_to(target)
    (tmp_path / "scans" / ".git").symlink_to(tmp_path / "other")
    listed = list(list_files(tmp_path / "scans", follow_links=True))
    assert [item for item in listed if not isinstance(item, RejectedFiles)] == [
        inner / "one.dcm", inner / "other" / "two.dcm"]  # fmt: skip
    assert {item.files[0] for item in listed if isinstance(item, RejectedFiles)} == {inner / "up", inner / "same"}


def test_a_tree_of_many_levels_is_listed(tmp_path):
    folder = tmp_path / "/".join("d" * 900)
    folder.mkdir(parents=True)
    (folder / "a.dcm").write_text("")
    assert list(list_files(tmp_path)) == [folder / "a.dcm"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(BadInput, match="closed: cannot be listed"):
        list(list_files(tmp_path))


def test_a_folder_that_vanishes_while_it_is_listed_is_named(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.dcm").write_text("")
    listed = list_files(tmp_path)
    next(listed)
    (tmp_path / "inner").rmdir()
    with pytest.raises(BadInput, match="inner: cannot be listed"):
        list(listed)


def test_known_files_are_not_opened(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("known.zip", "a.zip")]
    for path in paths:
        path.write_bytes(b"PK\x03\x04 damaged")
    listed = list(walk_files(tmp_path, is_known=lambda path: path == paths[0]))
    assert paths[0] in listed and [item.files[0] for item in listed if isinstance(item, RejectedFiles)] == [paths[1]]
