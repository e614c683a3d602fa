"""Curves go on where a run stopped, whatever state their table was left in."""

import pytest
import torch

from medssl.render.report import curves
from medssl.training.loggers import loggers

HEAD = "epoch,loss,step\n"


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (HEAD + "0,1.0,9\n1,0.5,19\n", [1.0, 0.5]),
        (HEAD + "0,1.0,9\n1,0.5,49\n", [1.0]),
        (HEAD + "0,1.0,9\n1,0.", [1.0]),
        (HEAD + "0,1.0,9\n1,0.5,1", [1.0]),
        (HEAD + "0,1.0,9\n1,0.5,19,7\n2,0.4,29\n", [1.0, 0.4]),
        (HEAD + "0,1.0\n1,0.5,19\n", [0.5]),
        ("epoch,lo", []),
        ("", []),
    ],
)
def test_of_a_torn_table_the_whole_rows_are_kept(tmp_path, left, kept):
    path = tmp_path / "logs" / "metrics.csv"
    path.parent.mkdir()
    path.write_text(left)
    torch.save({"global_step": 40}, tmp_path / "last.ckpt")
    table, _ = loggers(tmp_path, tmp_path / "last.ckpt")
    table.log_metrics({"epoch": 3, "loss": 0.25}, step=45)
    table.save()
    assert [loss for _, loss in curves(path)["loss"]] == [*kept, 0.25]
