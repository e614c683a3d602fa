"""Rows of a table in an Arrow file, which all processes of a machine share and none of them holds in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from jaxtyping import Int

from medssl.files import atomic_file

RowT = TypeVar("RowT")
BATCH = 4096  # rows that are made at once


@dataclass(frozen=True, eq=False)
class ArrowRows(Sequence[RowT]):
    """Rows of an Arrow file, which is mapped into memory; each row is made at its access.

    A pickled object holds no rows: another process maps the file again.

    Attributes:
        path: The file.
        row_type: Dataclass of a row.
        selection: Numbers of the selected rows in their order; None for all.
    """

    path: Path
    row_type: type[RowT]
    selection: Int[np.ndarray, "n"] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        return self._table.num_rows if self.selection is None else len(self.selection)

    @overload
    def __getitem__(self, index: int) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> "ArrowRows[RowT]": ...
    def __getitem__(self, index: int | slice) -> "RowT | ArrowRows[RowT]":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        number = range(len(self))[index]
        return self._make_rows(self._table.slice(number if self.selection is None else self.selection[number], 1))[0]

    def __iter__(self) -> Iterator[RowT]:
        for start in range(0, len(self), BATCH):
            yield from self._make_rows(self._take(slice(start, start + BATCH)))

    def select(self, indices: Sequence[int]) -> "ArrowRows[RowT]":
        """Returns the rows at some places, in that order."""
        numbers = np.array(indices, np.int32)
        return ArrowRows(self.path, self.row_type, numbers if self.selection is None else self.selection[numbers])

    def column(self, name: str) -> list[Any]:
        """Returns the values of one column."""
        return _to_list(self._take(slice(None)).column(name))

    @cached_property
    def _table(self) -> Any:
        return _open_file(self.path).read_all()

    def _take(self, part: slice) -> Any:
        """Returns a part of the selected rows."""
        if self.selection is not None:
            return self._table.take(self.selection[part])
        first, last, _ = part.indices(len(self))
        return self._table.slice(first, last - first)

    def _make_rows(self, table: Any) -> list[RowT]:
        columns = [_to_list(table.column(field.name)) for field in fields(self.row_type)]  # type: ignore[arg-type]
        return [self.row_type(*values) for values in zip(*columns, strict=True)]


def write_rows(path: Path, rows: Sequence[Any], metadata: Mapping[str, str]) -> None:
    """Writes rows of one dataclass, at least one, atomically to an Arrow file, with a note about their origin."""
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
    pa = import_module("pyarrow")
    table = pa.table(columns, metadata=dict(metadata))
    with atomic_file(path) as part, pa.ipc.new_file(str(part), table.schema) as writer:
        writer.write_table(table)


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the note that `write_rows` wrote into a file; empty if there is no intact file."""
    try:
        metadata = _open_file(path).schema.metadata or {}
    except (OSError, ValueError):  # pyarrow's own error is a ValueError
        return {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def _open_file(path: Path) -> Any:
    """Opens an Arrow file; pyarrow is imported here, since small tables have none."""
    pa = import_module("pyarrow")
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _to_list(column: Any) -> list[Any]:
    """Returns the values of a column; those of a list become a tuple."""
    if column.type.num_fields:  # of all types of a row, only lists have a field
        return [tuple(values) for values in column.to_pylist()]
    return column.to_pylist()
