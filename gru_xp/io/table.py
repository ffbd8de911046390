"""A table before anything is decided about it: named columns of cells, each row with its place in the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.io.messages import CellError, find_name

Floats = np.ndarray[Any, np.dtype[np.float64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Column:
    """The cells of a column.

    Attributes
    ----------
    name
        From the header; two columns may have the same one.
    make_cells
        The cells as text; of typed columns, they are made when they are asked for.
    numbers : array, shape ``(N,)``, optional
        The numbers of a column that has nothing else, missing ones as NaN, where the source is typed.
    """

    name: str
    make_cells: Callable[[], Sequence[str]]
    numbers: Floats | None = None

    @cached_property
    def cells(self) -> Sequence[str]:
        """The cells as text."""
        return self.make_cells()


@dataclass(frozen=True)
class Table:
    """Named columns of cells.

    Attributes
    ----------
    name
        What to call the source in messages; empty for an object in memory.
    columns
        In the order of the source.
    lines
        The line of the file, or the row, that each row ends in.
    unit
        ``"line"`` or ``"row"``.
    delimiter
        The sign between the cells of a row, of a text file.
    index
        The columns, from the first, that were the index of a pandas object.
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
        """The column that `name` means; see `find_name`."""
        try:
            return self.columns[self.names.index(find_name(name, self.names))]
        except DataError as error:
            raise self.refusal(str(error)) from error

    def take(self, rows: Rows) -> "Table":
        """Some of the rows."""

        def taken(column: Column) -> Column:
            return Column(
                column.name,
                lambda: [column.cells[row] for row in rows],
                None if column.numbers is None else column.numbers[rows],
            )

        return replace(self, columns=tuple(map(taken, self.columns)), lines=[self.lines[row] for row in rows])

    def where(self, row: int) -> str:
        """Row `row`, for a message."""
        return f"{self.unit} {self.lines[row]}"

    def refusal(self, problem: str) -> DataError:
        """An error about the table."""
        return DataError(f"{self.name}: {problem}" if self.name else problem)

    def cell_refusal(self, column: str, error: CellError) -> DataError:
        """An error about a cell, with its place."""
        place = f"{self.where(error.row)}, column {printable(column) or 'without a name'}"
        return DataError(f"{self.name}, {place}: {error}" if self.name else f"{place}: {error}")
