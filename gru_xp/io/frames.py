"""Tables from pandas objects, and from Parquet files."""

import re
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
    """Whether some data are a table, of pandas or another library, and not an array."""
    return hasattr(data, "iloc") or hasattr(data, "to_pandas")


def to_pandas(data: Any) -> Any:
    """Convert a table of another library, or an array, to a pandas object; a pandas object stays as it is.

    Raises
    ------
    DataError
        The other library lacks what it needs for that, or the array is not ``(N,)`` or ``(N, F)``.
    """
    import pandas as pd

    try:
        data = data.to_pandas() if hasattr(data, "to_pandas") else data
        if not is_table(data):
            data = np.ma.asarray(data)
            if data.ndim not in (1, 2) or data.dtype.kind == "c":
                raise ValueError(f"an array of {data.dtype}, shape={data.shape}")
            data = pd.Series(data) if data.ndim == 1 else pd.DataFrame(data).add_prefix("column ")
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        problem, expected = printable(str(error), 200), "a series is (N,) or (N, F) of real numbers"
        raise DataError(f"the data cannot be converted to pandas: {problem}; {expected}, or a table") from error
    return data


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
    header = pd.Index(frame.columns.tolist(), dtype=object)
    levels = [header.get_level_values(level) for level in range(header.nlevels)]
    names = [" ".join(name.split()) for name in join_levels(levels)]
    frame = frame.set_axis(names, axis=1)
    if frame.index.dtype.kind == "m":  # which counts the rows
        frame = frame.set_axis(pd.to_timedelta(frame.index).total_seconds())
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.step < 0 or frame.index.name is not None:
        frame = frame.rename_axis(index=lambda level: f"{level} (index)" if str(level) in names else level)
        frame = frame.reset_index(allow_duplicates=True)
    columns = tuple(_column(str(called), column) for called, column in frame.items())
    return Table(name, columns, range(len(frame)), "row", index=len(columns) - len(names))


def _column(name: str, column: "pd.Series[Any]") -> Column:
    dtype = str(column.dtype)
    if dtype.startswith("interval[datetime"):
        column = type(column)(column.array.left)
    elif re.match(r"period\[\d*[QY]-(?!DEC)", dtype):  # which are named by the year that they end in
        column = column.dt.start_time
    numbers = column.to_numpy(np.float64, na_value=np.nan) if column.dtype.kind in "iuf" else None
    is_dated = column.dtype.kind == "M" or dtype.startswith("period")
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
