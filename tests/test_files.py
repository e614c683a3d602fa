"""Files and folders are either complete or absent, and a folder has one owner at a time."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from medssl.errors import BadInput
from medssl.files import atomic_file, atomic_folder, check_writable, exclusive_lock, sha256, write_json, write_text


def test_a_failure_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_keeps_its_ending(tmp_path):
    with atomic_file(tmp_path / "a.nii.gz") as part:
        assert part.name.endswith(".nii.gz") and part.parent == tmp_path


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    loop = (
        "import sys\nfrom medssl.files import write_text\n"
        "for n in range(10**6): write_text(sys.argv[1], str(n % 10) * 3_000_000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", loop, str(path)])
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(5):
        time.sleep(0.03)
        text = path.read_text()
        assert len(text) == 3_000_000 and len(set(text)) == 1
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    text = path.read_text()
    assert len(text) == 3_000_000 and len(set(text)) == 1


def test_the_hash_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_failure_while_filling_a_new_folder_leaves_none(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "deep" / "new") as part:
        (part / "half").write_text("half")
        raise RuntimeError
    assert not list((tmp_path / "deep").iterdir())
    with atomic_folder(tmp_path / "deep" / "new") as part:
        assert part.parent.parent == tmp_path / "deep"  # the same disk, so that the renaming is atomic
        (part / "whole").write_text("whole")
    assert [p.name for p in (tmp_path / "deep").rglob("*")] == ["new", "whole"]


def test_a_new_folder_never_replaces_another(tmp_path):
    (tmp_path / "old").write_text("old")
    with pytest.raises(BadInput, match="exists already; choose another --out"), atomic_folder(tmp_path / "old"):
        pytest.fail("filled")
    assert (tmp_path / "old").read_text() == "old"


def test_one_process_locks_a_folder_and_a_killed_one_releases_it(tmp_path):
    lock = f"import pathlib, time, medssl.files\nwith medssl.files.exclusive_lock(pathlib.Path({str(tmp_path)!r}), ''):"
    command = [sys.executable, "-c", f"{lock} print('in', flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        with pytest.raises(BadInput, match="someone else is here"), exclusive_lock(tmp_path, "someone else is here"):
            pass
        first.kill()
    with exclusive_lock(tmp_path, "someone else is here"):
        pass


def test_a_lock_does_not_wait_and_is_released_after_an_error(tmp_path):
    start_s = time.monotonic()
    with (
        pytest.raises(BadInput, match=rf"{tmp_path}: busy"),
        exclusive_lock(tmp_path, "first"),
        exclusive_lock(tmp_path, "busy"),
    ):
        pytest.fail("two locks on one folder")
    assert time.monotonic() - start_s < 5
    with exclusive_lock(tmp_path, "busy"):
        pass


def test_a_worker_that_ends_keeps_the_lock_of_its_parent(tmp_path):
    with exclusive_lock(tmp_path, "first"):
        worker = multiprocessing.get_context("fork").Process(target=abs, args=(1,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        with pytest.raises(BadInput, match="busy"), exclusive_lock(tmp_path, "busy"):
            pytest.fail("two locks on one folder")


def test_a_folder_that_cannot_be_written_is_rejected_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        with pytest.raises(BadInput, match="cannot be written"):
            check_writable(folder)
    check_writable(tmp_path / "new" / "out")
    assert not (tmp_path / "new" / "out").exists() and not list((tmp_path / "new").iterdir())


def test_what_holds_data_of_patients_is_for_its_owner_only(tmp_path):
    with atomic_file(tmp_path / "report.pdf", is_private=True) as part:
        part.write_text("x")
        assert part.stat().st_mode & 0o777 == 0o600
    with atomic_folder(tmp_path / "delivered", is_private=True) as folder:
        (folder / "case").mkdir()
        write_text(folder / "case" / "table.csv", "x")
    write_text(tmp_path / "key.csv", "x", is_private=True)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")} == {
        "report.pdf": 0o600, "delivered": 0o700, "case": 0o700, "table.csv": 0o600, "key.csv": 0o600,
    }  # fmt: skip
