"""Tables as they are read: named columns of cells, and the place of each row in the source."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.io.messages import CellError, find_name

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
Where = Callable[[int], str]
"""How to name a row in a message."""


def stored_rows(name: str) -> list[list[str]]:
    """The rows of a CSV file in this package, none of whose cells is quoted."""
    text = resources.files("gru_xp.io").joinpath(name).read_text("utf-8")
    return [line.split(",") for line in text.splitlines()]


def join_levels(levels: Sequence[Iterable[Any]]) -> list[str]:
    """Join the names of columns of several levels, without the levels that are the same for all columns."""
    telling = [level for level in levels if len(set(level)) > 1] or levels[:1]
    return [" ".join(map(str, parts)) for parts in zip(*telling, strict=True)]


@dataclass(frozen=True, eq=False)
class Column:
    """The cells of a column.

    Attributes
    ----------
    name
        The name in the header; not necessarily unique.
    make_cells
        Makes the cells, as text, when they are first used.
    numbers : array, shape ``(N,)``, optional
        The numbers of a typed column, missing values as NaN.
    is_dated
        Whether the column is typed as dates or periods.
    """

    name: str
    make_cells: Callable[[], Sequence[str]]
    numbers: Floats | None = None
    is_dated: bool = False

    @cached_property
    def cells(self) -> Sequence[str]:
        """The cells as text."""
        return self.make_cells()

    def take(self, rows: Rows) -> "Column":
        """Return a column with the cells of some rows."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return Column(self.name, lambda: [self.cells[row] for row in rows], numbers, self.is_dated)


@dataclass(frozen=True)
class Table:
    """Named columns of cells.

    Attributes
    ----------
    name
        The name of the source in messages; empty for an object in memory.
    columns
        In the order of the source.
    lines
        For each row, the line of the file it ends in, or its number in the source.
    unit
        ``"line"`` or ``"row"``.
    delimiter
        The sign between the cells of a row in a text file; empty for other sources.
    index
        The number of columns, from the first, that were the index of a pandas object.
    """

    name: str
    columns: tuple[Column, ...]
    lines: Sequence[int]
    unit: str = "line"
    delimiter: str = ""
    index: int = 0

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def column(self, name: str) -> Column:
        """Return the column that `name` means; see `find_name`."""
        try:
            return self.columns[self.names.index(find_name(name, self.names))]
        except DataError as error:
            raise self.refusal(str(error)) from error

    def take(self, rows: Rows) -> "Table":
        """Return a table with some of the rows."""
        columns = tuple(column.take(rows) for column in self.columns)
        return replace(self, columns=columns, lines=[self.lines[row] for row in rows])

    def where(self, row: int) -> str:
        """Name a row in a message."""
        return f"{self.unit} {self.lines[row]}"

    def refusal(self, problem: str) -> DataError:
        """Return an error about the table."""
        return DataError(f"{self.name}: {problem}" if self.name else problem)

    def cell_refusal(self, column: str, error: CellError) -> DataError:
        """Return an error about a cell, with its place."""
        place = f"{self.where(error.row)}, column {printable(column) or 'without a name'}"
        return DataError(f"{self.name}, {place}: {error}" if self.name else f"{place}: {error}")
