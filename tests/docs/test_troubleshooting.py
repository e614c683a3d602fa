"""Every message that docs/troubleshooting.md quotes is one that the code raises, word for word."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from medssl import config
from medssl.errors import BadInput
from medssl.training.finetune_config import FinetuneConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = [quote.strip() for _, quote in re.findall(r"^### (`+)(.+?)\1$", PAGE, re.MULTILINE)]
PREFIX = "medssl COMMAND: "  # the command line puts it before every message
FROM_PYDANTIC = "CONFIG.yaml: train.epoch: is no key; did you mean train.epochs?"
VALUE = "\0"


@cache
def list_templates() -> list[str]:
    """The string literals of the code; `VALUE` stands for each formatted value, also of a log message."""
    files = [path for folder in ("medssl", "pipelines", "app") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    joined = [
        "".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
    ]
    plain = [
        re.sub(r"{\w[^{}]*}|%[.\d]*[a-z]", VALUE, node.value)
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [*joined, *plain]


def is_quote_of(quote: str, template: str) -> bool:
    """Whether the template with some values is the quote; at least half of the quote has to be its own words."""
    words = template.replace(VALUE, "")
    pattern = ".*".join(map(re.escape, template.split(VALUE)))
    return 2 * len(words) >= len(quote) and re.fullmatch(pattern, quote) is not None


def test_the_page_quotes_messages():
    assert len(QUOTES) >= 20 and FROM_PYDANTIC in QUOTES


@pytest.mark.parametrize("quote", [quote for quote in QUOTES if quote != FROM_PYDANTIC])
def test_a_quoted_message_is_in_the_code(quote):
    quote = quote.removeprefix(PREFIX)
    assert any(is_quote_of(quote, template) for template in list_templates()), "the message was reworded: quote it anew"


def test_an_unknown_key_gives_the_quoted_message(tmp_path):
    (tmp_path / "CONFIG.yaml").write_text("train: {epoch: 3}\n")
    with pytest.raises(BadInput) as error:
        config.read(tmp_path / "CONFIG.yaml", ["run=a", "manifest=b"], FinetuneConfig)
    assert str(error.value) == f"{tmp_path}/{FROM_PYDANTIC}"


@pytest.mark.parametrize(
    ("quote", "template"),
    [
        ("RUN: exists already; choose another name", "\0: exists; choose another name"),
        ("RUN: exists already; choose another name", "\0: \0"),
        ("RUN: exists already; choose another name", "\0: exists already; choose another name, or remove it"),
    ],
)
def test_a_reworded_message_is_not_found(quote, template):
    assert not is_quote_of(quote, template)
