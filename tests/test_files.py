"""Files are either whole or absent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from medssl.errors import BadInput
from medssl.files import alone, atomic, fresh, ready, sha256, write_json, write_text


def test_a_failure_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_keeps_its_ending(tmp_path):
    with atomic(tmp_path / "a.nii.gz") as part:
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
    with pytest.raises(RuntimeError), fresh(tmp_path / "deep" / "new") as part:
        (part / "half").write_text("half")
        raise RuntimeError
    assert not list((tmp_path / "deep").iterdir())
    with fresh(tmp_path / "deep" / "new") as part:
        assert part.parent.parent == tmp_path / "deep"  # the same disk, so that the renaming is atomic
        (part / "whole").write_text("whole")
    assert [p.name for p in (tmp_path / "deep").rglob("*")] == ["new", "whole"]


def test_a_new_folder_never_replaces_another(tmp_path):
    (tmp_path / "old").write_text("old")
    with pytest.raises(BadInput, match="exists already; choose another --out"), fresh(tmp_path / "old"):
        pytest.fail("filled")
    assert (tmp_path / "old").read_text() == "old"


def test_only_one_works_in_a_folder_and_a_killed_one_holds_nothing(tmp_path):
    holds = f"import pathlib, time, medssl.files\nwith medssl.files.alone(pathlib.Path({str(tmp_path)!r}), ''):"
    words = [sys.executable, "-c", f"{holds} print('in', flush=True); time.sleep(60)"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        with pytest.raises(BadInput, match="someone else is here"), alone(tmp_path, "someone else is here"):
            pass
        first.kill()
    with alone(tmp_path, "someone else is here"):
        pass


def test_a_place_where_nothing_can_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        with pytest.raises(BadInput, match="cannot be written"):
            ready(place)
    ready(tmp_path / "new" / "out")
    assert not (tmp_path / "new" / "out").exists() and not list((tmp_path / "new").iterdir())
