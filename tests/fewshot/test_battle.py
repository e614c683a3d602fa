"""A battle crosses encoders, starts and tasks, ranks them by seed, and refuses what it cannot rank."""

import csv
import json
from dataclasses import replace

import pytest

from medssl import cli, config
from medssl.errors import BadInput
from medssl.fewshot.battle import Battle, rank_arms
from medssl.fewshot.config import Arm
from medssl.fewshot.table import TableRow
from medssl.metrics.statistics import Interval
from tests.helpers.finished_runs import ingest_store

WHOLE = Interval(0.5, 0.4, 0.6)
ENCODERS = {"narrow": {"encoder.channels": [4, 8]}, "wide": {"encoder.channels": [8, 16]}}


def make_table(scores, num_labelled=2):
    """The rows of a sweep from the scores of each arm by seed."""
    return [
        TableRow(arm, num_labelled, "all labels", "Dice", len(by_seed), 4, 4, WHOLE, by_seed=tuple(by_seed))
        for arm, by_seed in scores.items()
    ]


def make_battle(tmp_path, **keys):
    return Battle.model_validate(
        {"out": tmp_path, "encoders": ENCODERS, "starts": {"scratch": {}}, "tasks": {"organs": {"manifest": "m.csv"}}}
        | keys
    )


def test_ranks_are_means_over_tasks_and_seeds_with_ties_shared():
    tables = {
        "first": make_table({"a": [0.9, 0.8], "b": [0.7, 0.7], "c": [0.7, 0.9]}),
        "second": make_table({"a": [0.3, 0.6], "b": [0.2, 0.5], "c": [0.1, 0.7]}),
    }
    ranks = {row.arm: row for row in rank_arms(tables)}
    assert list(ranks) == ["a", "c", "b"], "the best first"
    assert ranks["a"].rank.estimate == pytest.approx((1 + 2 + 1 + 2) / 4)
    assert ranks["b"].rank.estimate == pytest.approx((2.5 + 3 + 2 + 3) / 4)
    assert ranks["c"].rank.estimate == pytest.approx((2.5 + 1 + 3 + 1) / 4)
    assert ranks["a"].scores == pytest.approx({"first, 2 labelled": 0.85, "second, 2 labelled": 0.45})
    assert all(1 <= row.rank.low <= row.rank.high <= 3 for row in ranks.values())


def test_the_scale_of_a_task_does_not_weigh_more():
    tables = {
        "easy": make_table({"a": [0.99, 0.98], "b": [0.98, 0.97]}),
        "hard": make_table({"a": [0.1] * 2, "b": [0.6] * 2}),
    }
    assert [row.rank.estimate for row in rank_arms(tables)] == [1.5, 1.5]


def test_a_column_without_a_seed_of_an_arm_is_left_out():
    table = make_table({"a": [0.9, 0.9], "b": [0.8, 0.8]}) + make_table({"a": [0.1, 0.1], "b": [0.9]}, 4)
    first, second = rank_arms({"organs": table})
    assert (first.arm, first.rank.estimate, list(first.scores)) == ("a", 1, ["organs, 2 labelled"])
    assert second.rank.estimate == 2
    with pytest.raises(BadInput, match="no task has scores of all arms and seeds"):
        rank_arms({"organs": [replace(table[0], seeds=3), table[1]]})


def test_every_encoder_meets_every_start_in_every_task(tmp_path):
    starts = {
        "scratch": {"changes": {"train.epochs": 3}},
        "spark": {"pretrain": "configs/pretrain/spark.yaml", "pretraining": {"train.epochs": 2}},
        "long": {"equal_compute_with": "spark"},
    }
    sweeps = make_battle(tmp_path, starts=starts, shared={"num_labelled": [1]}, seeds=[7]).make_sweeps()
    organs = sweeps["organs"]
    assert (organs.out, organs.num_labelled, organs.seeds) == (tmp_path / "organs", (1,), (7,))
    assert list(organs.arms) == [f"{encoder}, {start}" for encoder in ENCODERS for start in starts]
    assert organs.reference == "narrow, scratch"
    assert organs.arms["wide, scratch"] == Arm(changes=ENCODERS["wide"] | {"train.epochs": 3})
    spark = organs.arms["wide, spark"]
    assert spark.changes == ENCODERS["wide"] and spark.pretraining == ENCODERS["wide"] | {"train.epochs": 2}
    assert organs.arms["wide, long"].equal_compute_with == "wide, spark"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"encoders": {}}, "encoders"),
        ({"starts": {"own": {"pretrained": "runs/a"}}}, "starts.own.pretrained: is a run of one encoder"),
        ({"tasks": {"a/b": {"manifest": "m.csv"}}}, "tasks.a/b: is no name of a folder"),
        ({"tasks": {"a": {"manifest": "m.csv", "seeds": [1]}}}, "tasks.a: seeds: is set by the battle; leave it out"),
        ({"tasks": {"a": {}}}, "tasks.a: manifest"),
        ({"tasks": {"a": {"manifest": "m.csv", "num_labeled": [1]}}}, "did you mean num_labelled"),
    ],
)  # fmt: skip
def test_a_wrong_battle_is_refused_with_the_key(tmp_path, keys, message):
    values = make_battle(tmp_path).model_dump(mode="json") | keys
    with pytest.raises(BadInput) as caught:
        config.check(values, Battle, "battle.yaml").make_sweeps()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_ranks_resumes_and_gives_the_same_table_again(tmp_path, capsys):
    ingest_store(tmp_path, 6, 6, (18, 18, 18), 150, "train=0.5,test=0.5")
    changes = {"encoder.strides": [1, 2], "encoder.blocks": [1, 1], "patch_size": 16, "max_val_cases": 0} | {
        f"train.{key}": value for key, value in (("epochs", 1), ("steps_per_epoch", 2), ("batch_size", 2))
    }
    shared = {"manifest": str(tmp_path / "store" / "manifest.csv"), "num_labelled": [2], "changes": changes}
    values = make_battle(tmp_path / "out", tasks={"organs": {}}, shared=shared, seeds=[0, 1]).model_dump(mode="json")
    (tmp_path / "battle.yaml").write_text(json.dumps(values))
    for _ in range(2):
        assert cli.run("battle", [str(tmp_path / "battle.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "4 cells, 0 done already" in printed and "4 cells, 4 done already" in printed
    first, second = (printed[: printed.rindex("task organs")], printed[printed.rindex("task organs") :])
    assert [line for line in first.splitlines() if "scratch │" in line] == [
        line for line in second.splitlines() if "scratch │" in line
    ]
    with (tmp_path / "out" / "ranks.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["arm"] for row in rows} == {"narrow, scratch", "wide, scratch"}
    assert sum(float(row["rank"]) for row in rows) == pytest.approx(3)
    assert 'href="organs/report.html"' in (tmp_path / "out" / "report.html").read_text()
    assert cli.run("battle", [str(tmp_path / "battle.yaml"), "shared.manifest=none.csv"]) == 2
    assert "none.csv" in capsys.readouterr().err
