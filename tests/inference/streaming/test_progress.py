"""Long batches say how far they are: one line a case in a log, a bar on a terminal."""

import logging

from medssl.inference.streaming.progress import format_duration, report_progress


def test_a_log_gets_one_line_a_case_with_the_time_left(caplog):
    caplog.set_level(logging.INFO)
    times = iter([0.0, 60.0, 120.0, 180.0])
    assert list(report_progress("abc", 3, is_terminal=False, clock=lambda: next(times))) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 3 cases, about 2 min left", "2 of 3 cases, about 1 min left", "3 of 3 cases, about 0 s left",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar_and_a_single_case_no_line(caplog, capsys):
    caplog.set_level(logging.INFO)
    assert list(report_progress("ab", 2, is_terminal=True)) == ["a", "b"]
    assert list(report_progress("a", 1, is_terminal=False)) == ["a"]
    assert not caplog.records and "predicting" in capsys.readouterr().err


def test_durations_are_in_words():
    assert [format_duration(s) for s in (5.4, 61, 7500)] == ["5 s", "1 min", "2 h 5 min"]
