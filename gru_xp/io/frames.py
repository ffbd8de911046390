"""Tables from pandas objects, and from Parquet files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.io.table import Column, Table, join_levels

if TYPE_CHECKING:
    import pandas as pd

PARQUET_SUFFIXES = (".parquet", ".pq")
UNNAMED = "value"
"""The name of a column that has none."""


def is_table(data: Any) -> bool:
    """Whether `to_pandas` gives a pandas object for it."""
    return hasattr(data, "iloc") or hasattr(data, "to_pandas")


def to_pandas(data: Any) -> Any:
    """Convert a table of another library; anything else stays as it is.

    Raises
    ------
    DataError
        The other library lacks what it needs for that.
    """
    try:
        return data.to_pandas() if hasattr(data, "to_pandas") else data
    except ImportError as error:
        raise DataError(f"the table cannot be converted to pandas: {printable(str(error), 200)}") from error


def table_of_frame(data: "pd.DataFrame | pd.Series[Any]", name: str = "") -> Table:
    """Take a pandas object as a table; an index that says more than the order of the rows becomes columns.

    Raises
    ------
    DataError
        It has no rows or no columns.
    """
    import pandas as pd

    frame = data if isinstance(data, pd.DataFrame) else data.to_frame(UNNAMED if data.name is None else data.name)
    if not frame.size:
        raise DataError(f"{name or 'the table'} has shape {frame.shape}; it must have at least one row and one column")
    is_count = isinstance(frame.index, pd.RangeIndex) and frame.index.step > 0
    levels = [] if is_count else _levels(frame.index)
    texts = join_levels(_levels(pd.Index(frame.columns.tolist(), dtype=object)))
    names = [" ".join(text.split()) for text in texts]
    columns = []
    for i, level in enumerate(levels):
        called = str(level.name) if level.name is not None else "index" if len(levels) == 1 else f"level_{i}"
        columns.append(_column(f"{called} (index)" if called in names else called, level.to_series()))
    columns += [_column(text, frame.iloc[:, i]) for i, text in enumerate(names)]
    return Table(name, tuple(columns), range(len(frame)), "row", index=len(levels))


def _levels(index: "pd.Index[Any]") -> "list[pd.Index[Any]]":
    return [index.get_level_values(i) for i in range(index.nlevels)]


def _column(name: str, column: "pd.Series[Any]") -> Column:
    import pandas as pd
    from pandas.api import types

    is_real = types.is_numeric_dtype(column.dtype) and column.dtype.kind not in "cb"
    numbers = column.to_numpy(np.float64, na_value=np.nan) if is_real else None
    is_dated = types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype)
    return Column(name, lambda: column.astype(str).where(column.notna(), "").tolist(), numbers, is_dated)


def read_parquet(path: Path, name: str) -> Table:
    """Read a Parquet file.

    Raises
    ------
    DataError
        pyarrow is not installed, or the file cannot be read.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f'{name}: Parquet files need pyarrow; install it by pip install "gru-xp[parquet]"') from error
    try:
        with path.open("rb") as file:  # open, so that nothing takes the name for an address in a network
            content = parquet.ParquetFile(file)
            numbers = content.metadata.num_rows * content.metadata.num_columns
            if 8 * numbers > max(2**26, 100 * path.stat().st_size):
                raise ValueError(f"it claims to hold {numbers:,} numbers, too many for its size")
            frame = content.read().to_pandas()
    except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be read as Parquet ({printable(' '.join(str(what).split()), 200)})") from error
    return table_of_frame(frame, name)
