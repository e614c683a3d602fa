"""Values of a bundle are read by their ids; references are followed, and nothing is evaluated."""

import json

import pytest

from medssl.errors import BadInput
from medssl.nn.interop.bundle_config import BundleConfig

VALUES = {
    "size": 16, "sizes": ["@size", "@options#inner::0"], "options": {"inner": [3, "@size"]}, "same": "@sizes",
    "code": "$__import__('os').mkdir('owned')", "macro": "%other.json::x", "deep": {"table": [{"value": "@code"}]},
    "lost": ["@nowhere"], "a": "@b", "b": "@a",
}  # fmt: skip


def read(folder, replacements=None, text=None, name="inference.json"):
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / name).write_text(text or json.dumps(VALUES))
    return BundleConfig.read(folder, replacements)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 16),
        ("sizes", [16, 3]),
        ("same", [16, 3]),
        ("options::inner#1", 16),
        ("missing", None),
        ("sizes#7", None),
    ],
)
def test_references_are_followed(tmp_path, key, value):
    assert read(tmp_path).get(key) == value


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("code", r"code is the expression .*--set code=VALUE"),
        ("macro", "macro is the expression"),
        ("deep", r"code is the expression .*--set code=VALUE"),
        ("lost", "lost#0 refers to nowhere, which is missing; give --set nowhere=VALUE"),
        ("a", "refers to itself"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, key, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        read(tmp_path).get(key)
    assert not (tmp_path / "owned").exists()


def test_a_replacement_stands_for_an_expression(tmp_path):
    config = read(tmp_path, {"code": 1, "deep#table#0#more": [2], "fresh#inner": 3, "sizes#0": None})
    assert config.get("deep") == {"table": [{"value": 1, "more": [2]}]}
    assert config.get("fresh") == {"inner": 3} and config.get("sizes") == [None, 3]
    assert config.find("sizes#0", "missing", "size") == "size" and not config.find("missing")
    with pytest.raises(BadInput, match="the bundle has no such place"):
        read(tmp_path, {"size#inner": 1})


def test_a_short_file_that_stands_for_many_values_is_refused(tmp_path):
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(BadInput, match="stands for more than 10000 values"):
        read(tmp_path, text="\n".join(rows), name="inference.yaml").get("a8")


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_damaged_metadata_are_refused(tmp_path, text):
    read(tmp_path)
    (tmp_path / "configs/metadata.json").write_text(text)
    with pytest.raises(BadInput, match="get the bundle again"):
        BundleConfig.read(tmp_path)
