"""Messages: the public version of an error or a warning never contains a private value."""

import ast
import copy
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import BadInput, InputWarning, Message, as_message, join_messages
from medssl.home import resources_dir

NAME = "Qwertzsmith"


@pytest.fixture(scope="module")
def calls():
    """Every call of `Message` in the package, with the name of its file."""
    return [
        (path.stem, node)
        for path in sorted((resources_dir() / "medssl").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Message"
    ]


class Private(str):
    """Free text with every attribute and item, whatever the format."""

    def __getattr__(self, name):
        return Private(NAME)

    def __getitem__(self, key):
        return Private(NAME)

    def __format__(self, spec):
        return NAME


def fill_with_names(template):
    return Message(template, **dict.fromkeys(re.findall(r"{(\w+)", template), Private(NAME)))


def test_every_template_is_a_literal(calls):
    assert len(calls) > 100
    assert [(stem, ast.unparse(call)) for stem, call in calls if not _is_literal(call)] == []


def test_no_public_message_of_the_package_contains_free_text(calls):
    for stem, call in calls:
        message = fill_with_names(call.args[0].value)
        assert NAME not in message.public, stem
        assert (NAME in message) == bool(call.keywords), stem


def test_every_message_of_the_package_is_made_with_the_values_of_its_template(calls):
    for stem, call in calls:
        assert {k.arg for k in call.keywords} == set(re.findall(r"{(\w+)", call.args[0].value)), stem


def test_a_template_that_is_not_a_literal_would_be_seen():
    tree = ast.parse('Message(f"{path}: x")\nMessage(text)\nMessage("a" + b)')
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert len(calls) == 3 and not any(map(_is_literal, calls))


def _is_literal(call):
    return len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)


@pytest.mark.parametrize(
    ("value", "public"),
    [
        (3, "3"),
        (2.5, "2.5"),
        (np.float32(2.5), "2.5"),
        ((3, 4), "(3, 4)"),
        ([1, 2], "[1, 2]"),
        (Message("{a} of {b}", a=1, b=NAME), "1 of [b]"),
        (NAME, "[value]"),
        (Path(NAME), "[value]"),
        (ValueError(NAME), "[value]"),
        ([1, NAME], "[value]"),
        ({1: 2}, "[value]"),
        (1234567890, "[value]"),
        (Message("{a}", a=NAME), "[value]"),
        ("3", "[value]"),
        (None, "[value]"),
    ],
)
def test_only_numbers_and_public_messages_are_shown(value, public):
    message = Message("it is {value}; change it", value=value)
    assert message == f"it is {value}; change it" and message.public == f"it is {public}; change it"


def test_a_converted_number_is_private():
    assert Message("it is {value!s}", value=3).public == "it is [value]"


@pytest.mark.parametrize("template", ["{a}", "{a}: {b}", ""])
def test_a_message_without_words_has_no_public_version(template):
    assert Message(template, a=NAME, b=3).public == ""


def test_placeholders_at_the_beginning_are_left_out():
    reason = Message("{path.name}: truncated", path=Path(NAME))
    assert Message("{case}: {reason}", case=NAME, reason=reason).public == "truncated"


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda message: pickle.loads(pickle.dumps(message))])
def test_copies_keep_the_public_version(copied):
    message = copied(Message("{{}} of {a}", a=NAME))
    assert (message, message.public) == (f"{{}} of {NAME}", "{} of [a]")


def test_errors_and_warnings_keep_the_message():
    message = Message("{a}: broken", a=NAME)
    assert BadInput(message).message.public == "broken" and str(BadInput(message)) == f"{NAME}: broken"
    with pytest.warns(InputWarning) as caught:
        warnings.warn(message, InputWarning, stacklevel=1)
    assert as_message(caught[0].message.args[0]).public == "broken"


def test_text_that_is_not_a_message_is_private():
    assert BadInput(f"{NAME}: broken").message.public == as_message(NAME).public == BadInput().message.public == ""
    assert as_message(NAME).redact("unknown") == "unknown" and as_message("").redact("unknown") == ""


def test_joined_messages_are_joined_in_public_and_repeated_once():
    messages = [
        Message("{a}: broken", a=NAME),
        NAME,
        Message("late"),
        Message("{a}: broken", a="other"),
        Message("late"),
    ]
    joined = join_messages(messages)
    assert joined == f"{NAME}: broken; {NAME}; late; other: broken" and joined.public == "broken; late"
