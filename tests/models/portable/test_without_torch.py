"""An ONNX file predicts a DICOM study, with its documents, with the packages of the extra `onnx` alone."""

import subprocess
import sys

import pytest

from medssl import cli
from medssl.cli import EXTRAS
from tests.helpers import dicom_phantom
from tests.helpers.finished_runs import make_finished_run
from tests.helpers.source_trees import ROOT

APP = ("streamlit", "starlette", "uvicorn", "authlib", "dicomweb_client")
PREDICT = """
import sys
class Finder:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError("hidden", name=name)
sys.meta_path.insert(0, Finder)
from medssl import cli
cli.main({words!r})
"""


@pytest.mark.parametrize("head", ["segment", "both"])
def test_a_study_is_predicted_and_documented(tmp_path, head):
    settings = {"task": "detect", "task_settings": {"head": head}} if head != "segment" else {}
    make_finished_run(tmp_path / "run", names={1: "nodule"}, **settings)
    assert cli.run("publish", [str(tmp_path / "run"), "--out", str(tmp_path / "published"), "--onnx"]) == 0
    dicom_phantom.save(dicom_phantom.make_slices(), tmp_path / "study")
    words = ["predict", tmp_path / "published" / "model.onnx", tmp_path / "study", "--tta"]
    words += ["--out", tmp_path / "out", "--dicom-out", tmp_path / "documents"]
    script = PREDICT.format(hidden=EXTRAS["train"] + EXTRAS["export"] + APP, words=[str(word) for word in words])
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    names = {path.name for path in (tmp_path / "documents").glob("*/*")}
    assert {"seg.dcm", "sr.dcm", "report.pdf", "montage.png"} <= names
