"""Configs: every fault at once, and what was resolved reads back equal."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import PositiveInt

from medssl import config
from medssl.errors import BadInput
from medssl.settings import Settings
from medssl.training.finetune import Finetune
from medssl.training.pretrain import Pretrain


class Inner(Settings):
    depth: PositiveInt = 3


class Outer(Settings):
    run: Path
    rate: float = 1e-3
    inner: Inner = Inner()
    objective: config.named("medssl.objectives") = None  # type: ignore[valid-type]


def written(tmp_path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_a_change_on_the_command_line_wins(tmp_path):
    got = config.read(written(tmp_path, "run: a\ninner: {depth: 2}\n"), ["inner.depth=5", "rate=0.1"], Outer)
    assert (got.inner.depth, got.rate) == (5, 0.1)


def test_every_fault_is_reported_with_its_path(tmp_path):
    path = written(tmp_path, "inner: {depth: -1, width: 3}\nrate: fast\nnonsense: 1\n")
    with pytest.raises(BadInput) as caught:
        config.read(path, [], Outer)
    said = str(caught.value)
    for part in ("inner.depth", "inner.width", "rate", "nonsense", "run: Field required", "-1", "fast"):
        assert part in said, part


def test_an_unknown_objective_lists_the_known(tmp_path):
    with pytest.raises(BadInput, match=r"objective: 'sparks' is unknown; known: .*spark"):
        config.read(written(tmp_path, "run: a\nobjective: sparks\n"), [], Outer)


def test_a_fault_inside_an_objective_has_its_full_path(tmp_path):
    with pytest.raises(BadInput, match=r"objective\.nothing"):
        config.read(written(tmp_path, "run: a\nobjective: {name: spark, nothing: 1}\n"), [], Outer)


def test_resolved_settings_read_back_equal(tmp_path):
    first = config.read(written(tmp_path, "run: a\nobjective: spark\n"), ["inner.depth=7"], Outer)
    again = config.read(written(tmp_path, config.dump(first)), [], Outer)
    assert again == first


@pytest.mark.parametrize("text, said", [("- 1\n- 2\n", "a table of keys"), ("a: [", "not YAML"), ("\tx", "not YAML")])
def test_what_is_no_config_is_refused(tmp_path, text: str, said: str):
    with pytest.raises(BadInput, match=said):
        config.read(written(tmp_path, text), [], Outer)


def test_a_missing_config_and_a_malformed_change_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such config"):
        config.read(tmp_path / "none.yaml", [], Outer)
    with pytest.raises(BadInput, match=r"dotted\.key=value"):
        config.read(written(tmp_path, "run: a\n"), ["inner.depth"], Outer)


def test_settings_are_frozen():
    value: Any = Inner()
    with pytest.raises(ValueError, match="frozen"):
        value.depth = 4


def test_help_names_the_command_and_what_has_to_be_chosen(capsys):
    with pytest.raises(SystemExit):
        config.command(["--help"], Pretrain, "Learns: medssl pretrain CONFIG.yaml key=value ...")
    said = capsys.readouterr().out
    assert said.startswith("usage: medssl pretrain [-h] CONFIG.yaml") and "  objective: required  " in said


def test_help_lists_the_keys_of_what_is_chosen_by_name_too(capsys):
    with pytest.raises(SystemExit):
        config.command(["--help"], Finetune, "about")
    said = capsys.readouterr().out
    assert all(f"  {key}: " in said for key in ("task.name", "task.linear", "encoder.channels", "plan.lr", "labels"))
