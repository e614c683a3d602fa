"""A watched study is predicted when it is complete, and sent once, whatever happens in between."""

import logging
import shutil
from dataclasses import replace

import pytest
import requests
from pydicom import dcmread

from medssl import cli
from medssl.errors import BadInput
from medssl.files import sync
from medssl.watch import watcher as watcher_module
from medssl.watch.destination import open_destination
from medssl.watch.health import serve_health
from medssl.watch.source import StudySource, open_source
from tests.watch.conftest import MemoryArchive

LONG = 3600.0  # seconds after which every study is complete


def test_a_complete_study_is_predicted_and_sent_once(scene, caplog):
    caplog.set_level(logging.INFO, "medssl.watch")
    scene.write_study("one")
    assert scene.run_pass().counts == {"waiting": 1} and not scene.network.cases
    watcher = scene.run_pass(LONG)
    assert watcher.counts == {"done": 1} and not watcher.problem
    assert scene.archive.list_modalities() == ["SEG", "SR"]
    (study,) = {study for study, _ in scene.archive.instances.values()}
    assert study == dcmread(next(scene.inbox.rglob("*.dcm"))).StudyInstanceUID
    scene.run_pass(LONG)
    assert len(scene.network.cases) == scene.archive.num_tries == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "done, 1 series, 1 finding in" in line and line.endswith("sent to archive")


def test_files_that_come_again_change_nothing(scene):
    files, _ = scene.write_study("one")
    scene.run_pass(LONG)
    for path in files:
        path.write_bytes(path.read_bytes())
        path.with_name(f"copy-{path.name}").write_bytes(path.read_bytes())
    assert scene.run_pass(LONG).counts == {"done": 1} and scene.archive.num_tries == 1


def test_files_that_are_removed_change_nothing(scene):
    """A clean-up that takes one file after the other is no new study."""
    files, _ = scene.write_study("one")
    scene.run_pass(LONG)
    for path in files[:5]:
        path.unlink()
    assert scene.run_pass(LONG).counts == {"done": 1} and scene.archive.num_tries == 1


def test_a_study_that_grows_while_it_is_predicted_is_predicted_again_once(scene):
    files, later = scene.write_study("one", num_slices=6)

    def grow(case):
        for path in later:
            path.rename(files[0].parent / path.name)
        later.clear()

    scene.network.on_predict = grow
    assert scene.run_pass(LONG).counts == {"waiting": 1} and not scene.archive.instances
    assert scene.run_pass().counts == {"waiting": 1}, "it has just grown, so it is not complete"
    assert scene.run_pass(LONG).counts == {"done": 1}
    assert len(scene.network.cases) == 2 and scene.archive.list_modalities() == ["SEG", "SR"]
    (document,) = scene.out.rglob("seg.dcm")
    assert len(dcmread(document).ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8


def test_a_study_that_grows_later_is_predicted_and_sent_again(scene):
    files, later = scene.write_study("one", num_slices=6)
    scene.run_pass(LONG)
    for path in later:
        path.rename(files[0].parent / path.name)
    assert scene.run_pass(LONG).counts == {"done": 1}
    assert scene.archive.list_modalities() == ["SEG", "SEG", "SR", "SR"] and scene.archive.num_tries == 2


def test_an_archive_that_is_away_is_reported_and_gets_everything_later(scene, caplog):
    scene.write_study("one")
    scene.write_study("two")
    scene.archive.faults = ["the archive is away", "the archive is away"]
    watcher = scene.run_pass(LONG)
    assert watcher.counts == {"predicted": 2} and watcher.problem == "the archive is away"
    assert "next try in 15 s: the archive is away" in caplog.text
    assert scene.run_pass(LONG + 5).counts == {"predicted": 2} and scene.archive.num_tries == 2, "too early"
    watcher = scene.run_pass(LONG + 600)
    assert watcher.counts == {"done": 2} and not watcher.problem
    assert scene.archive.list_modalities() == ["SEG", "SEG", "SR", "SR"] and len(scene.network.cases) == 2


def test_pauses_between_tries_grow_up_to_a_limit(scene):
    scene.write_study("one")
    scene.archive.faults = ["away"] * 12
    pauses, now = [], LONG
    for _ in range(12):
        watcher = scene.open_watcher()
        scene.later = now
        watcher.run_pass()
        (folder,) = (scene.out / "studies").iterdir()
        pauses.append(watcher_module.StudyState.read(folder).retry_at - watcher.clock())
        now += 4000
    assert pauses[:3] == pytest.approx([15, 30, 60], abs=6) and max(pauses) <= 1800


def test_only_series_of_the_given_modality_and_body_part_are_predicted(scene):
    scene.write_study("chest", BodyPartExamined="CHEST")
    scene.write_study("head", BodyPartExamined="HEAD")
    scene.write_study("mr", modality="MR", BodyPartExamined="CHEST")
    scene.options = replace(scene.options, modalities=("CT",), body_parts=("chest",))
    assert scene.run_pass(LONG).counts == {"done": 1, "skipped": 2}
    assert len(scene.network.cases) == 1 and len(scene.archive.instances) == 2


def test_what_is_no_image_and_what_is_half_written_is_not_a_study(scene):
    (scene.inbox / "notes.txt").write_text("no DICOM")
    files, _ = scene.write_study("one")
    (scene.inbox / ".part-x.dcm").write_bytes(files[0].read_bytes())
    files[0].write_bytes(files[0].read_bytes()[:200])
    (study,) = scene.open_watcher().inbox.list_studies()
    assert len(study.files) == 7


def test_a_study_that_cannot_be_predicted_is_named_and_the_others_go_on(scene, caplog):
    caplog.set_level(logging.INFO, "medssl.watch")
    scene.write_study("one")
    scene.write_study("two")

    def fail(case):
        if not scene.network.cases:
            scene.network.cases.append(case)
            raise BadInput("trained on another modality")

    scene.network.on_predict = fail
    watcher = scene.run_pass(LONG)
    assert watcher.counts == {"failed": 1, "done": 1} and scene.archive.list_modalities() == ["SEG", "SR"]
    assert any("failed" in r.getMessage() and "another modality" in r.getMessage() for r in caplog.records)
    scene.run_pass(LONG)
    assert scene.archive.num_tries == 1 and len(scene.network.cases) == 2, "not tried again until it changes"


def test_a_damaged_state_stops_only_its_study(scene, caplog):
    scene.write_study("one")
    scene.run_pass(LONG)
    (state,) = scene.out.rglob("state.json")
    state.write_text("{")
    scene.write_study("two")
    watcher = scene.run_pass(LONG)
    assert watcher.counts == {"waiting": 1, "done": 1} and "not the state of a study" in watcher.problem


def test_a_stop_after_any_write_loses_nothing_and_sends_nothing_twice(scene, monkeypatch):
    """Each write to the disk is the last one of some process; the next process ends the work."""
    scene.write_study("one")
    countdown = [0]

    def stop_at_zero(path):
        sync(path)
        countdown[0] -= 1
        if not countdown[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr("medssl.files.sync", stop_at_zero)
    sends = 0
    for countdown[0] in range(1, 200, 4):
        num_writes = countdown[0]
        try:
            scene.run_pass(LONG)
        except KeyboardInterrupt:
            countdown[0] = -1
            assert scene.run_pass(LONG).counts == {"done": 1}
        else:
            break
        assert scene.archive.list_modalities() == ["SEG", "SR"], f"after write {num_writes}"
        sends += 1
        scene.archive = MemoryArchive()
        shutil.rmtree(scene.out / "studies")
    assert sends > 3


def test_health_tells_what_waits_and_what_is_wrong(scene):
    report = {"problem": "", "studies": {"done": 3}}
    with serve_health(0, lambda: report) as port:
        answer = requests.get(f"http://127.0.0.1:{port}/health", timeout=10)
        assert answer.status_code == 200 and answer.json() == report
        report["problem"] = "the archive is away"
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 503
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=10).status_code == 404
        with pytest.raises(BadInput, match="cannot be opened"), serve_health(port, lambda: report):
            pass


def test_a_source_that_is_away_is_reported_once_until_it_is_back(scene, caplog):
    watcher = scene.open_watcher()

    def fail():
        raise BadInput("the archive is away")

    watcher.source = StudySource(scene.inbox, "archive", fail)
    for _ in range(3):
        watcher.run_pass()
    assert caplog.text.count("the archive is away") == 1 and watcher.problem == "the archive is away"
    watcher.source = StudySource(scene.inbox, "archive")
    watcher.run_pass()
    assert not watcher.problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no/such/inbox"], "no such folder; create the inbox"),
        (["dimse://:11112"], "not the address of a DICOM node"),
        (["dimse://A_TITLE_THAT_IS_TOO_LONG@:11112"], "at most 16 characters"),
        (["dicomweb+http://127.0.0.1:1/dicom-web"], "the address has no search"),
        ([".", "--cstore", "dimse://AET@:104"], "write dimse://AET@HOST:PORT"),
        ([".", "--stow", "dicomweb+http://127.0.0.1:1/dicom-web?PatientID=1"], "a destination has no search"),
        ([".", "--health-port", "port"], "invalid int value"),
    ],
)
def test_bad_input_is_one_line(tmp_path, options, message, capsys):
    try:
        code = cli.run("watch", [*options, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    except SystemExit as error:  # argparse
        code = error.code
    assert code == 2 and message in capsys.readouterr().err


def test_a_second_watch_of_one_folder_is_refused(tmp_path, capsys):
    from medssl.files import exclusive_lock

    (tmp_path / "out").mkdir()
    with exclusive_lock(tmp_path / "out", "busy"):
        assert cli.run("watch", [str(tmp_path), "--run", "run", "--out", str(tmp_path / "out")]) == 2
    assert "another watch writes into it" in capsys.readouterr().err


def test_addresses_open_what_they_name(tmp_path):
    assert open_destination("dimse://ARCHIVE@host:104").name == "ARCHIVE@host:104"
    assert open_destination("dicomweb+https://host/dicom-web").name == "https://host/dicom-web"
    with open_source(str(tmp_path), tmp_path / "inbox") as source:
        assert source.folder == tmp_path
