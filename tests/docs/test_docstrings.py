"""The examples in docstrings print what they promise, and the documentation explains every public name."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import medssl

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "medssl").rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]


def test_some_docstrings_have_examples():
    assert {"medssl", "medssl.errors"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_every_public_name_is_on_the_api_page_or_in_the_glossary():
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("reference/api.md", "glossary.md"))
    words = set(text.replace("[", " ").replace("]", " ").replace(",", " ").replace("`", " ").replace(".", " ").split())
    assert not [name for name in medssl.__all__ if name not in words]
