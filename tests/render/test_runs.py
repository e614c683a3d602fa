"""Runs as a table: found, filtered, compared in one page, and removed if nobody finished them."""

import pytest

from medssl import cli
from medssl.errors import BadInput
from medssl.files import exclusive_lock
from medssl.render import runs as table
from medssl.run import Run
from medssl.settings import Settings


class Train(Settings):
    lr: float
    epochs: int = 2


class Plain(Settings):
    run: str
    train: Train


@pytest.fixture
def folder(tmp_path):
    """Three runs: two finished ones with other learning rates, and one that was stopped."""
    for name, lr, loss in (("a", 0.1, 1.5), ("sweep/b", 0.2, 0.75), ("c<i>", 0.2, None)):
        path = tmp_path / "runs" / name
        run = Run.create(path, Plain(run=str(path), train=Train(lr=lr)), "pretrain")
        (path / "logs").mkdir()
        (path / "logs" / "metrics.csv").write_text(f"epoch,step,loss\n0,1,2.0\n1,3,{loss or 1.0}\n")
        (path / "weights.safetensors").write_bytes(b"weights")
        if loss:
            run.close(scores={"loss": loss}, resource_usage={"seconds": 1800.0})
    damaged = tmp_path / "runs" / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    return tmp_path / "runs"


def test_runs_are_found_and_described(folder):
    rows = [run.row for run in table.find_runs(folder)]
    assert [(row[0], row[2], *row[4:]) for row in rows] == [
        ("a", "closed", "0.50", "loss 1.5"),
        ("c<i>", "open", "0.00", ""),
        ("sweep/b", "closed", "0.50", "loss 0.75"),
    ]
    with pytest.raises(BadInput, match="no run here"):
        table.find_runs(folder / "sweep" / "b" / "logs")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["train.lr=0.2"], ["c<i>", "sweep/b"]),
        (["state=closed", "train.lr=0.2"], ["sweep/b"]),
        (["kind=pretrain"], ["a", "c<i>", "sweep/b"]),
    ],
)
def test_filters_select_runs_by_their_settings(folder, capsys, words, names):
    assert cli.run("runs", [str(folder), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names


def test_a_filter_that_no_run_fits_is_one_line(folder, capsys):
    assert cli.run("runs", [str(folder), "train.lr=9"]) == 2
    assert "no run has train.lr=9" in capsys.readouterr().err


def test_the_page_shows_what_differs_and_all_curves(folder):
    runs = table.find_runs(folder)
    assert table.find_differences(runs) == {
        "state": ["closed", "open", "closed"], "train.lr": ["0.1", "0.2", "0.2"],
    }  # fmt: skip
    page = table.render_comparison(runs)
    assert page.count("<polyline") == 3 and all(f"series-{n}" in page for n in range(3))
    assert "<i>" not in page and "http" not in page


def test_only_unfinished_runs_that_nobody_trains_are_removed(folder, capsys):
    assert cli.run("runs", [str(folder), "--prune"]) == 0
    assert "unfinished: c<i>" in capsys.readouterr().out and (folder / "c<i>").exists()
    with exclusive_lock(folder / "c<i>", ""):
        assert table.prune(table.find_runs(folder)) == []
    assert cli.run("runs", [str(folder), "--prune", "--yes"]) == 0
    assert [run.name for run in table.find_runs(folder)] == ["a", "sweep/b"]
