"""An atlas of several processes, or of a dask cluster, is that of one process, byte for byte."""

import warnings

import pytest

from medssl import cli
from medssl.files import sha256
from tests.helpers.registered_scenes import OFFSETS, write_scans

CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}


def build(manifest, out, *options):
    return cli.run("atlas", [str(manifest), "--out", str(out), "--num-parcels", "4", *options])


def hash_files(folder):
    """The hashes of the deformations and labels, whose headers name no path."""
    return {str(path.relative_to(folder)): sha256(path) for path in folder.glob("*/*")}


@pytest.mark.slow
def test_workers_and_a_cluster_build_the_same_atlas(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    manifest = write_scans(tmp_path / "store", OFFSETS[:3])
    assert build(manifest, tmp_path / "one", "--alignment", "affine") == 0
    assert build(manifest, tmp_path / "two", "--alignment", "affine", "--workers", "2") == 0
    with warnings.catch_warnings(), distributed.LocalCluster(**CLUSTER) as cluster:
        scheduler = cluster.scheduler_address
        assert build(manifest, tmp_path / "cluster", "--alignment", "affine", "--scheduler", scheduler) == 0
    expected = hash_files(tmp_path / "one")
    assert len(expected) == 6 and hash_files(tmp_path / "two") == hash_files(tmp_path / "cluster") == expected


def test_a_scheduler_that_is_away_is_one_line(tmp_path, capsys):
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    manifest = write_scans(tmp_path / "store", OFFSETS[:2])
    assert build(manifest, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9") == 2
    assert "tcp://127.0.0.1:9: no dask scheduler answers" in capsys.readouterr().err and not (tmp_path / "out").exists()
