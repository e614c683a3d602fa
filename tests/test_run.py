"""A run is created once, closed once, and read-only afterwards."""

from pathlib import Path

import pytest

from medssl.errors import BadInput
from medssl.files import LOCK_FILE
from medssl.run import Run
from medssl.settings import Settings


class Plain(Settings):
    run: Path
    rate: float = 0.1


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.create(tmp_path / "run", Plain(run=tmp_path / "run"), "pretrain", digest="abc")
    (run.path / "weights.safetensors").write_bytes(b"weights")
    return run


def test_a_run_keeps_what_made_it(run):
    again = Run.open(run.path)
    assert again.read_settings()["rate"] == 0.1
    assert again.metadata["digest"] == "abc" and again.metadata["kind"] == "pretrain" and "version" in again.metadata


def test_an_existing_folder_is_refused_and_left_as_it_was(run):
    before = sorted(p.name for p in run.path.iterdir())
    with pytest.raises(BadInput, match="exists already"):
        Run.create(run.path, Plain(run=run.path), "pretrain")
    assert sorted(p.name for p in run.path.iterdir()) == before


def test_a_closed_run_is_read_only(run):
    run.close(scores={"dice": 0.5})
    assert run.metadata["scores"] == {"dice": 0.5} and run.is_closed
    with pytest.raises(BadInput, match="read-only"):
        run.update_metadata(scores={"dice": 0.9})


def test_weights_that_changed_are_refused(run):
    run.close()
    assert run.weights.is_file()
    run.weights.write_bytes(b"weighty")
    with pytest.raises(BadInput, match="not the bytes that this run wrote"):
        _ = run.weights


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no run here"):
        Run.open(tmp_path)


def test_a_run_resumes_only_with_its_own_settings(tmp_path):
    path = tmp_path / "run"
    Run.resume(path, Plain(run=path), "pretrain", manifest="a")
    assert Run.resume(path, Plain(run=path), "pretrain", manifest="a").path == path
    with pytest.raises(BadInput, match="another rate"):
        Run.resume(path, Plain(run=path, rate=0.2), "pretrain", manifest="a")
    with pytest.raises(BadInput, match="another manifest"):
        Run.resume(path, Plain(run=path), "pretrain", manifest="b")


def test_a_run_of_a_version_without_a_setting_resumes_with_its_default(tmp_path):
    path = tmp_path / "run"
    Run.create(path, Plain(run=path), "pretrain")
    (path / "config.yaml").write_text(f"run: {path}\n")
    assert Run.resume(path, Plain(run=path), "pretrain").path == path
    with pytest.raises(BadInput, match="another rate"):
        Run.resume(path, Plain(run=path, rate=0.2), "pretrain")


def read_files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != LOCK_FILE}


def test_a_finished_run_is_kept_when_it_is_resumed(run, caplog):
    path = run.path
    run.close()
    before = read_files(path)
    with caplog.at_level("INFO"):
        assert Run.begin(path, Plain(run=path), "pretrain", resume=True).is_closed
    assert f"{path}: is finished already" in caplog.text
    with pytest.raises(BadInput, match="another rate"):
        Run.resume(path, Plain(run=path, rate=0.2), "pretrain")
    assert read_files(path) == before


def test_a_run_that_was_killed_while_it_was_closed_gets_its_checksums(run):
    run.close()
    expected = (run.path / "SHA256SUMS").read_text()
    (run.path / "SHA256SUMS").rename(run.path / ".part-abc")
    Run.resume(run.path, Plain(run=run.path), "pretrain")
    assert (run.path / "SHA256SUMS").read_text() == expected
    assert not (run.path / ".part-abc").exists()


def test_a_projection_head_is_optional_and_refused_if_it_changed(run):
    assert run.projection is None
    head = run.path / "projection.safetensors"
    head.write_bytes(b"layers")
    run.close()
    assert run.projection == head and "projection.safetensors" in (run.path / "SHA256SUMS").read_text()
    head.write_bytes(b"other layers")
    with pytest.raises(BadInput, match="not the bytes that this run wrote"):
        _ = run.projection
