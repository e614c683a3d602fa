"""Cases that are alike fall into one cluster, in any order, with the most typical case first."""

import csv

import numpy as np
import pytest

from medssl import cli
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.retrieval.clusters import cluster_cases
from medssl.volume import Volume
from tests.helpers.finished_runs import make_finished_run

SIZES = {"large": 7, "middle": 4, "small": 3}


def draw_groups(seed=0):
    """Returns cases around three centres, far from each other, with their embeddings."""
    draw, names, rows = np.random.default_rng(seed), [], []
    for centre, (group, size) in zip(draw.normal(0, 10, (3, 6)), SIZES.items(), strict=True):
        names += [f"{group}{n}" for n in range(size)]
        rows.append(centre + draw.normal(0, 0.5, (size, 6)))
    return names, np.concatenate(rows)


def test_planted_groups_are_the_clusters_the_largest_first():
    names, embeddings = draw_groups()
    cases = cluster_cases(names, embeddings, 3)
    assert [(row.cluster, row.case[:-1]) for row in cases] == [
        (f"cluster-{number}", group) for number, (group, size) in enumerate(SIZES.items(), 1) for _ in range(size)
    ]
    assert [row.rank for row in cases] == [rank for size in SIZES.values() for rank in range(1, size + 1)]


def test_the_case_nearest_to_the_centre_represents_its_cluster():
    names, embeddings = draw_groups()
    cases = cluster_cases(names, embeddings, 3)
    for number, group in enumerate(SIZES, 1):
        scaled = embeddings / embeddings.std(0)
        members = {name: row for name, row in zip(names, scaled, strict=True) if name.startswith(group)}
        centre = np.mean(list(members.values()), axis=0)
        distances = {name: np.sqrt(np.square(row - centre).mean()) for name, row in members.items()}
        rows = [row for row in cases if row.cluster == f"cluster-{number}"]
        assert [row.case for row in rows] == sorted(distances, key=lambda name: distances[name])
        assert [row.distance for row in rows] == pytest.approx(sorted(distances.values()))


def test_the_order_of_the_cases_and_the_scale_of_a_feature_change_nothing():
    names, embeddings = draw_groups()
    order = np.random.default_rng(1).permutation(len(names))
    changed = cluster_cases([names[n] for n in order], 1000 * embeddings[order] + 7, 4)
    for row, other in zip(cluster_cases(names, embeddings, 4), changed, strict=True):
        assert (row.cluster, row.rank, row.case) == (other.cluster, other.rank, other.case)
        assert row.distance == pytest.approx(other.distance)


def test_one_cluster_holds_all_cases_and_as_many_clusters_as_cases_one_each():
    names, embeddings = draw_groups()
    assert {row.cluster for row in cluster_cases(names, embeddings, 1)} == {"cluster-1"}
    assert [row.distance for row in cluster_cases(names, embeddings, len(names))] == [0] * len(names)


@pytest.mark.parametrize(("count", "most"), [(0, 14), (15, 14), (2, 1)])
def test_more_clusters_than_different_cases_are_refused(count, most):
    names, embeddings = draw_groups()
    features = embeddings if most > 1 else np.ones_like(embeddings)
    with pytest.raises(
        BadInput, match=f"--clusters {count}: the scans have {most} different features; give 1 to {most}"
    ):
        cluster_cases(names, features, count)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Four scans that are nearly equal, and two that are nearly equal and unlike the four."""
    folder = tmp_path_factory.mktemp("scans")
    for n in range(6):
        voxels = sum(
            np.random.default_rng(seed).normal(0, hu, (16, 16, 16)) for seed, hu in ((n // 4, 300), (9 + n, 9))
        )
        nifti.write(Volume(voxels.astype(np.int16), np.diag([1.2, 1.2, 1.2, 1.0]), "HU"), folder / f"s{n}.nii.gz")
    return folder


def run_command(*words):
    return cli.run("retrieve", [str(word) for word in words])


def test_the_command_writes_a_table_of_all_cases_and_draws_the_most_typical_ones(scans, tmp_path):
    run = make_finished_run(tmp_path / "run")
    options = ["--clusters", 2, "--modality", "CT", "--show", 1, "--features", tmp_path / "features"]
    for name in ("out", "again"):
        assert run_command(run.path, scans, *options, "--out", tmp_path / name) == 0
    with (tmp_path / "out" / "clusters.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    clusters = [{row["case"] for row in rows if row["cluster"] == number} for number in ("cluster-1", "cluster-2")]
    assert clusters == [{"s0", "s1", "s2", "s3"}, {"s4", "s5"}]
    page = (tmp_path / "out" / "clusters.html").read_text()
    assert page.count("<img") == 2 and "Cluster-1: 4 of 6 cases" in page and "http" not in page
    for name in ("clusters.csv", "clusters.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either a CASE to compare the others with, or --clusters K"),
        (["s0", "--clusters", 2], "give either a CASE to compare the others with, or --clusters K"),
        (["--clusters", 0], "--clusters 0: the scans have 6 different features; give 1 to 6 clusters"),
        (["--clusters", 7], "--clusters 7: the scans have 6 different features; give 1 to 6 clusters"),
    ],
)
def test_bad_input_is_one_line(scans, tmp_path, capsys, words, message):
    run = make_finished_run(tmp_path / "run")
    assert run_command(run.path, scans, *words, "--out", tmp_path / "out", "--modality", "CT") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
