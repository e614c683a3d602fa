"""Reads the metadata of an ONNX file without running it, and refuses a file that refers to others.

An ONNX file is a message of protocol buffers (https://protobuf.dev/programming-guides/encoding/): fields with a number,
a wire type and a value. The numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from medssl.errors import BadInput

MAX_BYTES = 2**31  # a message of protocol buffers is smaller
MAX_DEPTH = 32  # of nested graphs
METADATA = 14  # of a model; each entry has a key and a value
KEY, VALUE = 1, 2
MESSAGES: Mapping[str, Mapping[int, str]] = {  # the fields that hold messages, where tensors may lie
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip
EXTERNAL_DATA = 13  # of a tensor: the file that holds its values
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
Field = tuple[int, memoryview]


def read_metadata(path: Path, advice: str = "publish the run again") -> dict[str, str]:
    """Returns the metadata of an ONNX file.

    Args:
        path: The file.
        advice: What messages say to do about a file that cannot be used.

    Raises:
        BadInput: If the file is missing, too large, no ONNX file, or its tensors lie in other files.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; `medssl publish RUN --onnx` writes one")
    if path.stat().st_size >= MAX_BYTES:
        raise BadInput(f"{path}: {path.stat().st_size} bytes are too many for an ONNX file; {advice}")
    content = memoryview(path.read_bytes())
    try:
        if _refers_to_files(content, "model", 0):
            raise BadInput(f"{path}: keeps its weights in other files, which are not read; {advice}")
        entries = [dict(_iterate_fields(value)) for number, value in _iterate_fields(content) if number == METADATA]
        return {str(entry[KEY], "utf-8"): str(entry[VALUE], "utf-8") for entry in entries}
    except (ValueError, IndexError, KeyError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: is damaged or no ONNX file; {advice}") from None


def _refers_to_files(message: memoryview, kind: str, depth: int) -> bool:
    """Returns whether a tensor somewhere in a message has its values in another file."""
    if depth > MAX_DEPTH:
        raise ValueError("is nested too deeply")
    if kind == "tensor":
        return any(number == EXTERNAL_DATA for number, _ in _iterate_fields(message))
    inner = MESSAGES[kind]
    return any(
        _refers_to_files(value, inner[number], depth + 1)
        for number, value in _iterate_fields(message)
        if number in inner
    )


def _iterate_fields(message: memoryview) -> Iterator[Field]:
    """Yields the number and the bytes of each field; numbers have no bytes."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        size, wire_type = 0, key & 7
        if wire_type == VARINT:
            _, position = _read_varint(message, position)
        elif wire_type == BYTES:
            size, position = _read_varint(message, position)
        elif wire_type in (FIXED64, FIXED32):
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"has a field of the unknown type {wire_type}")
        if position + size > len(message):
            raise ValueError("ends within a field")
        yield key >> 3, message[position : position + size]
        position += size


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Returns a number of up to 64 bits, seven in each byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("has a number of more than 64 bits")
