"""Workers predict the same files as one process, and neither a killed worker nor a corrupt scan costs another case."""

import os
import signal
import warnings

import pytest

from medssl import cli
from medssl.files import read_checksums
from medssl.inference.prediction_writer import PredictionWriter
from medssl.models.prediction_setup import choose_worker_device
from medssl.predictions_folder import read_index
from tests.helpers.finished_runs import make_finished_run, write_scans

CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path):
    make_finished_run(tmp_path / "a")
    write_scans(tmp_path / "scans", 5)
    assert predict(tmp_path, "whole") == 0
    (tmp_path / "scans" / "corrupt.nii.gz").write_bytes(b"no gzip")
    return tmp_path


def predict(place, out, *options):
    args = (place / "a", place / "scans", "--modality", "CT", "--out", place / out, *options)
    return cli.run("predict", [str(arg) for arg in args])


def require_same_cases(place, capsys):
    """Every readable scan is there once, with the files of a prediction in one process; the corrupt one is named."""
    assert "1 of 6 cases could not be predicted: corrupt: " in capsys.readouterr().err
    index = read_index(place / "out")
    assert sorted(index.cases) == sorted(read_index(place / "whole").cases) and index.missing_cases == ["corrupt"]
    whole, out = read_checksums(place / "whole"), read_checksums(place / "out")
    assert {name: out[name] for name in whole if name != "index.json"} == {
        name: whole[name] for name in whole if name != "index.json"
    }
    assert not list(place.glob(".part-*"))


def test_local_workers_predict_the_same_files(place, capsys):
    assert predict(place, "out", "--workers", "2") == 2
    require_same_cases(place, capsys)


def test_cluster_that_loses_a_worker_predicts_the_same_files(place, capsys, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    adopt, killed = PredictionWriter._adopt, []
    with warnings.catch_warnings(), distributed.LocalCluster(**CLUSTER) as cluster:

        def kill_a_worker(self, *args):
            if not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)
            return adopt(self, *args)

        monkeypatch.setattr(PredictionWriter, "_adopt", kill_a_worker)
        assert predict(place, "out", "--scheduler", cluster.scheduler_address) == 2
    assert killed
    require_same_cases(place, capsys)


def test_scheduler_that_is_away_is_one_line(place, capsys):
    assert predict(place, "out", "--scheduler", "tcp://127.0.0.1:9") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tcp://127.0.0.1:9: no dask scheduler answers" in message and not (place / "out").exists()


def test_workers_and_scheduler_exclude_each_other(place):
    with pytest.raises(SystemExit):
        predict(place, "out", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2")


@pytest.mark.parametrize(
    ("requested", "name", "num_gpus", "device"),
    [
        ("cuda", "ForkServerProcess-1", 2, "cuda:1"),
        ("cuda", "ForkServerProcess-2", 2, "cuda:0"),
        ("cuda:3", "ForkServerProcess-2", 4, "cuda:3"),
        ("cpu", "ForkServerProcess-2", 2, "cpu"),
        ("cuda", "MainProcess", 2, "cuda"),
        ("cuda", "Dask Worker process (from Nanny)", 1, "cuda"),
    ],
)
def test_workers_take_gpus_in_turn(requested, name, num_gpus, device):
    assert choose_worker_device(requested, name, num_gpus) == device
