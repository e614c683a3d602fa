"""Curves and settings reach MLflow and Weights & Biases, a resumed run goes on there, and none ends a training."""

import os
import signal

import pytest

from medssl.errors import BadInput, Stopped
from medssl.training import trainer
from medssl.training.run_records import tracker
from tests.helpers.toy_training import SHORT_TRAINING, make_loaders, make_spark, open_run

pytestmark = pytest.mark.filterwarnings("ignore")  # trackers use deprecated parts of their own dependencies


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")


def train_in_two_parts(folder, name):
    """Stops a training after five of twelve steps and resumes it."""
    config = SHORT_TRAINING.model_copy(update={"tracker": name})
    learner, calls = make_spark(), []
    learner.after_step = lambda: calls.append(1) or (len(calls) == 5 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        trainer.train(learner, make_loaders(), open_run(folder), config)
    return trainer.train(make_spark(), make_loaders(), open_run(folder), config)


def test_mlflow_has_one_run_with_all_epochs_and_settings(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed; pip install 'medssl[mlflow]'")
    from mlflow import MlflowClient

    scores = train_in_two_parts(tmp_path / "run", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path}/run/logs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("medssl").experiment_id])
    losses = [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert len(losses) == SHORT_TRAINING.epochs and losses[-1] == pytest.approx(scores["loss"])
    assert run.data.params["run"] == str(tmp_path / "run") and run.info.run_name == "run"
    assert (tmp_path / "run" / "logs" / "metrics.csv").exists() and list(tmp_path.glob("run/logs/events.*"))


def test_wandb_writes_an_offline_run_that_continues_under_its_name(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed; pip install 'medssl[wandb]'")
    train_in_two_parts(tmp_path / "run", "wandb")
    name = (tmp_path / "run" / "logs" / tracker.ID_FILE).read_text()
    files = list(tmp_path.glob(f"run/logs/wandb/offline-run-*-{name}/run-{name}.wandb"))
    assert files and all(b"loss" in path.read_bytes() for path in files)


def test_a_tracker_that_is_away_costs_one_line(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow", reason="mlflow is not installed; pip install 'medssl[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = SHORT_TRAINING.model_copy(update={"tracker": "mlflow"})
    trainer.train(make_spark(), make_loaders(), open_run(tmp_path / "run"), config)
    lines = [record.message for record in caplog.records if "the tracker gets no more values" in record.message]
    assert len(lines) == 1 and (tmp_path / "run" / "weights.safetensors").exists()


def test_a_missing_package_is_named_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"train.tracker=wandb: wandb is not installed; pip install 'medssl\[wandb\]'"):
        tracker.build_tracker("wandb", tmp_path)
