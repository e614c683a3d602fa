"""A training that stops while its curves still improve, or whose probe has not moved, is reported."""

import logging

import numpy as np
import pytest

from medssl.run import Run
from medssl.settings import Settings
from medssl.training.run_records.plateau import (
    describe_unfinished,
    describe_unmoved_probe,
    find_trend,
    warn_about_unfinished,
)

EPOCHS = np.arange(20)
FALLING, FLAT = 2 * 0.95**EPOCHS, 0.3 + np.exp(-EPOCHS / 2.0)


def test_a_falling_curve_has_a_trend_and_a_flat_or_short_one_has_none():
    assert find_trend(FALLING) == pytest.approx(-0.46, abs=0.05)
    assert find_trend(FLAT) == 0 and find_trend(FALLING[:5]) == 0


def test_noise_on_a_plateau_is_rarely_a_trend():
    rng = np.random.default_rng(0)
    trends = [find_trend(0.5 + rng.normal(0, 0.05, 30)) for _ in range(200)]
    assert np.count_nonzero(trends) < 30


def test_loss_and_validation_score_are_reported_by_name():
    assert "training loss was still falling, by 46%" in describe_unfinished({"loss": FALLING.tolist()})
    rising = {"loss": FLAT.tolist(), "val_dice": (1 - FALLING / 3).tolist()}
    assert "validation score was still rising" in describe_unfinished(rising, "dice")
    assert describe_unfinished(rising) == describe_unfinished({}) == ""
    assert describe_unfinished({"loss": FLAT.tolist(), "val_dice": (FALLING / 3).tolist()}, "dice") == ""


@pytest.mark.parametrize(("trained", "is_reported"), [(0.301, True), (0.2, True), (0.4, False)])
def test_a_probe_that_has_not_moved_is_reported(trained, is_reported):
    assert bool(describe_unmoved_probe({"probe_dice": trained, "probe_dice_random": 0.3})) == is_reported
    assert describe_unmoved_probe({"loss": 1.0}) == ""


@pytest.mark.parametrize(("curve", "is_reported"), [(FALLING, True), (FLAT, False)])
def test_the_run_notes_it_beside_an_earlier_alarm(tmp_path, caplog, curve, is_reported):
    run = Run.create(tmp_path / "run", Settings(), "finetune", alarm="never predicts the tail")
    (run.path / "logs").mkdir()
    rows = ["epoch,loss,step", *(f"{n},{value}," if n % 2 else f"{n},{value},{n}" for n, value in enumerate(curve))]
    (run.path / "logs" / "metrics.csv").write_text("\n".join(rows))
    with caplog.at_level(logging.WARNING):
        warn_about_unfinished(run, {})
    assert ("stopped before its plateau" in caplog.text) == is_reported
    alarm = run.metadata["alarm"]
    assert alarm.startswith("never predicts the tail") and ("; it stopped before its plateau" in alarm) == is_reported
