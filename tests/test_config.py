"""Configs report all errors at once, read back equal, and describe every key."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, PositiveInt

from docs.write_reference import KEY_TABLES, key_table
from medssl import cli, config
from medssl.data.ingest.config import IngestConfig
from medssl.errors import BadInput
from medssl.fewshot.sweep import Sweep
from medssl.home import resources_dir
from medssl.objectives.synthesis.synthetic import Config as SyntheticConfig
from medssl.review.access.reviewers import ReviewConfig
from medssl.settings import Settings, find_modules
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig


class Inner(Settings):
    depth: PositiveInt = 3


class Outer(Settings):
    run: Path
    rate: float = 1e-3
    inner: Inner = Inner()
    objective: config.module_choice("medssl.objectives") = None  # type: ignore[valid-type]


def write_config(tmp_path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_a_change_on_the_command_line_wins(tmp_path):
    settings = config.read(write_config(tmp_path, "run: a\ninner: {depth: 2}\n"), ["inner.depth=5", "rate=0.1"], Outer)
    assert (settings.inner.depth, settings.rate) == (5, 0.1)


def test_every_fault_is_reported_with_its_path(tmp_path):
    path = write_config(tmp_path, "inner: {depth: -1, width: 3}\nrate: fast\nnonsense: 1\n")
    with pytest.raises(BadInput) as caught:
        config.read(path, [], Outer)
    message = str(caught.value)
    for part in ("inner.depth", "inner.width", "rate", "nonsense", "run: is missing", "-1", "fast"):
        assert part in message, part


def test_an_unknown_objective_lists_the_known(tmp_path):
    with pytest.raises(BadInput, match=r"objective: 'sparks' is unknown; known: .*spark"):
        config.read(write_config(tmp_path, "run: a\nobjective: sparks\n"), [], Outer)


def test_a_fault_inside_an_objective_has_its_full_path(tmp_path):
    with pytest.raises(BadInput, match=r"objective\.nothing"):
        config.read(write_config(tmp_path, "run: a\nobjective: {name: spark, nothing: 1}\n"), [], Outer)


def test_resolved_settings_read_back_equal(tmp_path):
    first = config.read(write_config(tmp_path, "run: a\nobjective: spark\n"), ["inner.depth=7"], Outer)
    again = config.read(write_config(tmp_path, config.dump(first)), [], Outer)
    assert again == first


@pytest.mark.parametrize(
    "text, message", [("- 1\n- 2\n", "a table of keys"), ("a: [", "not YAML"), ("\tx", "not YAML")]
)
def test_a_file_without_a_table_of_keys_is_refused(tmp_path, text: str, message: str):
    with pytest.raises(BadInput, match=message):
        config.read(write_config(tmp_path, text), [], Outer)


def test_a_missing_config_and_a_malformed_change_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no such config"):
        config.read(tmp_path / "none.yaml", [], Outer)
    with pytest.raises(BadInput, match=r"dotted\.key=value"):
        config.read(write_config(tmp_path, "run: a\n"), ["inner.depth"], Outer)


def test_settings_are_frozen():
    value: Any = Inner()
    with pytest.raises(ValueError, match="frozen"):
        value.depth = 4


def test_help_names_the_command_and_what_has_to_be_chosen(capsys):
    with pytest.raises(SystemExit):
        cli.load_script("pretrain").main(["--help"])
    output = capsys.readouterr().out
    assert output.startswith("usage: medssl pretrain [-h] CONFIG.yaml") and "  objective: required  " in output


def test_help_lists_the_keys_of_what_is_chosen_by_name_too():
    keys = "\n".join(config.describe_keys(FinetuneConfig))
    names = ("task.name", "task.preactivation_head", "encoder.channels", "train.lr", "num_labelled")
    assert all(f"  {name}: " in keys for name in names)


def test_help_lists_the_defaults_of_a_nested_config_that_differ_from_its_class():
    keys = "\n".join(config.describe_keys(SyntheticConfig, "objective."))
    assert "  objective.appearance.rotate_deg: 0.0  " in keys and "  objective.appearance.gamma: 0.3  " in keys


@pytest.mark.parametrize("command", sorted(KEY_TABLES))
def test_the_printed_keys_are_those_of_the_models(command):
    path = resources_dir() / "pipelines" / "keys" / f"{command}.txt"
    assert path.read_text(encoding="utf-8") == key_table(command), "run `make reference`"


def configs_of(package: str) -> list[type[BaseModel]]:
    """The `Config` classes of a package whose modules are chosen by name."""
    return [import_module(path).Config for path in find_modules(package).values()]


CONFIGS = [
    FinetuneConfig, PretrainConfig, Sweep, IngestConfig, ReviewConfig,
    *configs_of("medssl.objectives"), *configs_of("medssl.tasks"), *configs_of("medssl.nn.encoders"),
]  # fmt: skip


def list_keys(schema: type[BaseModel], parents: str = "", choice: str = "chosen by name") -> dict[str, str]:
    """The description of each dotted key; the key `name` that chooses nested settings shares theirs."""
    descriptions = {}
    for name, field in schema.model_fields.items():
        descriptions[parents + name] = field.description or (choice if name == "name" else "")
        for type_ in (field.annotation, *get_args(field.annotation)):
            if isinstance(type_, type) and issubclass(type_, BaseModel):
                descriptions |= list_keys(type_, f"{parents}{name}.", field.description or "")
    return descriptions


@pytest.mark.parametrize("schema", CONFIGS, ids=lambda schema: f"{schema.__module__}.{schema.__name__}")
def test_every_key_has_a_description(schema):
    assert not [key for key, description in list_keys(schema).items() if len(description) < 10]


def test_help_shows_the_description_of_every_key():
    keys = re.findall(r"^  ([\w.]+): (.*)$", "\n".join(config.describe_keys(FinetuneConfig)), re.MULTILINE)
    assert len(keys) > 50 and not [key for key, text in keys if not re.search(r"\S  \S", text)]


def read_faulty(tmp_path, *overrides: str) -> str:
    """The message about a finetuning with faulty settings."""
    path = write_config(tmp_path, "train: {epochs: 2}\n")
    with pytest.raises(BadInput) as caught:
        config.read(path, ["run=r", "manifest=m", *overrides], FinetuneConfig)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=5", "train.epoch: is no key; did you mean train.epochs?"),
        ("epochs=5", "epochs: is no key; did you mean train.epochs?"),
        ("encoder.chanels=[1]", "encoder.chanels: is no key; did you mean encoder.channels?"),
        ("task={name: segment, clas_balance: 1}", "task.clas_balance: is no key; did you mean task.class_balance?"),
        ("train.lr=fast", "train.lr: must be a number (it was 'fast')"),
        ("train.epochs=2.5", "train.epochs: must be a whole number (it was 2.5)"),
        ("train.optimizer=adam", "train.optimizer: must be 'adamw', 'lamb' or 'sgd' (it was 'adam')"),
        ("few_label_preset=perhaps", "few_label_preset: must be true or false (it was 'perhaps')"),
        ("patch_size=[4,4]", "patch_size.2: is missing"),
        ("patch_size=large", "patch_size: needs numbers separated by commas, for example 48,48,48"),
        ("augment.scale=much", "augment.scale: must be a number, or needs numbers separated by commas"),
        (
            "task=segmnt",
            "task: 'segmnt' is unknown; known: classify, detect, in_context, joint_segment, segment;"
            " did you mean segment?",
        ),
    ],
)
def test_a_fault_is_described_as_a_person_would(tmp_path, override: str, message: str):
    text = read_faulty(tmp_path, override)
    assert message in text and "Input should" not in text and "constrained" not in text


@pytest.mark.parametrize("text", ["48", "48,48,48", "48x48x48", "[48, 48, 48]"])
def test_a_size_may_be_written_as_a_person_would(tmp_path, text: str):
    settings = config.read(write_config(tmp_path, "run: r\nmanifest: m\n"), [f"patch_size={text}"], FinetuneConfig)
    assert settings.patch_size == (48, 48, 48)


def test_a_missing_config_names_the_nearest():
    with pytest.raises(BadInput) as caught:
        config.read("configs/pretrain/spakr.yaml", [], PretrainConfig)
    assert "did you mean configs/pretrain/spark.yaml? installed are configs/pretrain/{" in str(caught.value)
    assert "configs/finetune" not in str(caught.value), "those of other commands help nobody"
    with pytest.raises(BadInput, match=r"no such config; installed are .*configs/finetune/.*configs/pretrain/"):
        config.read("something-else", [], PretrainConfig)
    with pytest.raises(BadInput, match=r"did you mean configs/pretrain/spark\.yaml\?"):
        config.read("spark.yml", [], PretrainConfig)
    with pytest.raises(BadInput, match="stands where the config is expected"):
        config.read("manifest=store/manifest.csv", [], PretrainConfig)


def test_a_missing_config_names_the_file_of_its_name_in_this_folder(tmp_path, monkeypatch):
    """`medssl plan store` writes pretrain.yaml here, not into the store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrain.yaml").write_text("objective: spark")
    with pytest.raises(BadInput, match=r"store/pretrain\.yaml: no such config; did you mean pretrain\.yaml\?$"):
        config.read("store/pretrain.yaml", [], PretrainConfig)
