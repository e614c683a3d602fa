"""The exception and the warning for input that the user has to correct or should check, and their messages."""

import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from string import Formatter

PLACEHOLDER = r"\w+"  # in square brackets, in the place of a private value


class Message(str):
    """The text of an error or a warning, with a public version that holds no names, paths or free text.

    The public version shows the words of the template and the numbers. Every other value, every number of ten digits
    or more, and every value with a conversion (`{value!s}`) is replaced by its name in square brackets. Values that
    are messages are replaced by their public version. The template has to be a literal.

    Example:
        >>> message = Message("{path}: {count} of {name!r} are damaged", path="/scans/smith.nii", count=3, name="smith")
        >>> print(message)
        /scans/smith.nii: 3 of 'smith' are damaged
        >>> message.public
        '3 of [name] are damaged'
    """

    public: str

    def __new__(cls, template: str, /, **values: object) -> "Message":
        """Fills the template.

        Args:
            template: A format string; `{name}`, `{name.attribute}` and `{name:.2f}` are replaced by `values`.
            values: The values by name.
        """
        return restore_message(template.format(**values), _render_public(template, values))

    def redact(self, fallback: str) -> "Message":
        """Returns a message that shows the public version only, or `fallback` where that is empty."""
        return restore_message((self.public or fallback) if self else "", self.public)

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps the public version when the message is pickled or copied."""
        return restore_message, (str(self), self.public)


class BadInput(ValueError):
    """Input that cannot be used; the message names the input, the value found, what is expected and the remedy."""

    @property
    def message(self) -> Message:
        """The message; its public version is empty unless the error was raised with a `Message`."""
        return as_message(self.args[0] if self.args else "")


class Stopped(BaseException):
    """A command that was stopped before its end; its state is saved and it can be continued.

    Like KeyboardInterrupt it is no `Exception`, so that code that goes on after errors does not go on after it.

    Attributes:
        exit_code: Exit code of the command.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class InputWarning(UserWarning):
    """Input that was read but should be checked; the file ledger and the manifest record the message."""

    @property
    def message(self) -> Message:
        """The message; its public version is empty unless the warning was issued with a `Message`."""
        return as_message(self.args[0] if self.args else "")


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Returns the first names as text, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def as_message(text: object) -> Message:
    """Returns a `Message` unchanged; every other text becomes a message with an empty public version."""
    return text if isinstance(text, Message) else restore_message(str(text), "")


def join_messages(messages: Iterable[str], separator: str = "; ") -> Message:
    """Joins the texts of messages and, without the empty ones, their public versions; drops repeated texts."""
    unique = [as_message(text) for text in dict.fromkeys(messages)]
    public = dict.fromkeys(message.public for message in unique if message.public)
    return restore_message(separator.join(unique), separator.join(public))


def restore_message(text: str, public: str) -> Message:
    """Makes a message of a text and its public version."""
    message = str.__new__(Message, text)
    message.public = public
    return message


def _render_public(template: str, values: Mapping[str, object]) -> str:
    """Fills the public values; placeholders at the beginning, which name the input, are left out."""
    parts, has_words = [], False
    for literal, field, spec, conversion in Formatter().parse(template):
        parts.append(literal)
        has_words |= bool(re.search(r"\w", literal))
        if field is None:
            continue
        value, _ = Formatter().get_field(field, (), values)
        text = "" if conversion else _format_public(value, spec or "")
        has_words |= bool(text and isinstance(value, Message))
        parts.append(text or f"[{re.findall(PLACEHOLDER, field)[-1]}]")
    return re.sub(r"^(\[\w+\]: )+", "", "".join(parts)) if has_words else ""


def _format_public(value: object, spec: str) -> str:
    """A message's public version, a number or a sequence of numbers as text; else an empty string."""
    if isinstance(value, Message):
        return value.public
    numbers = value if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(number, Real) for number in numbers):
        return ""
    text = format(value, spec)
    return "" if re.search(r"\d{10}", text) else text
