"""Curves continue after a resume, whatever state their file is in."""

import pytest
import torch

from medssl.render.report import read_curves
from medssl.training.loggers import build_loggers

HEAD = "epoch,loss,step\n"


@pytest.mark.parametrize(
    ("text", "losses"),
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
def test_the_complete_rows_of_a_damaged_file_are_kept(tmp_path, text, losses):
    path = tmp_path / "logs" / "metrics.csv"
    path.parent.mkdir()
    path.write_text(text)
    torch.save({"global_step": 40}, tmp_path / "last.ckpt")
    table, _ = build_loggers(tmp_path, tmp_path / "last.ckpt")
    table.log_metrics({"epoch": 3, "loss": 0.25}, step=45)
    table.save()
    assert [loss for _, loss in read_curves(path)["loss"]] == [*losses, 0.25]
