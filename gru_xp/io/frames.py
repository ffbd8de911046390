"""Tables from pandas objects, and from Parquet files."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.io.table import Column, Table

if TYPE_CHECKING:
    import pandas as pd

PARQUET_SUFFIXES = (".parquet", ".pq")
UNNAMED = "value"
"""The name of a column that has none."""

_MAX_FREE = 2**26  # bytes that any Parquet file may unpack to
_MAX_RATIO = 100  # or times its own size


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
    names = [" ".join(text.split()) for text in _flat_names(list(frame.columns))]
    index = frame.index
    levels = [] if isinstance(index, pd.RangeIndex) and index.step > 0 else range(index.nlevels)
    columns = [_column(str(index.names[i] or "index"), index.get_level_values(i).to_series()) for i in levels]
    columns += [_column(text, frame.iloc[:, i]) for i, text in enumerate(names)]
    return Table(name, tuple(columns), range(len(frame)), "row", index=len(levels))


def _flat_names(names: Sequence[Hashable]) -> list[str]:
    """Names of several levels joined, without the levels that are alike everywhere."""
    if not all(isinstance(name, tuple) for name in names):
        return [str(name) for name in names]
    levels = list(zip(*names, strict=True))  # type: ignore[call-overload]
    telling = [level for level in levels if len(set(level)) > 1] or levels[:1]
    return [" ".join(map(str, parts)) for parts in zip(*telling, strict=True)]


def _column(name: str, column: "pd.Series[Any]") -> Column:
    import pandas as pd
    from pandas.api import types

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    numbers = None
    if types.is_bool_dtype(column.dtype) or (types.is_numeric_dtype(column.dtype) and column.dtype.kind != "c"):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
    return Column(name, lambda: _cells(column), numbers)


def _cells(column: "pd.Series[Any]") -> list[str]:
    """The cells as text; days without a time of day, as ISO 8601."""
    missing = column.isna()
    if not hasattr(column, "dt") or not hasattr(column.dt, "normalize"):
        return ["" if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    is_days = column.dt.tz is None and (missing | (column == column.dt.normalize())).all()
    stamps = zip(column, missing, strict=True)
    return ["" if gone else stamp.isoformat(" ")[: 10 if is_days else None] for stamp, gone in stamps]


def read_parquet(path: Path, name: str) -> Table:
    """Read a Parquet file.

    Raises
    ------
    DataError
        pyarrow is not installed, or the file cannot be read.
    """
    try:
        import pandas as pd
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f'{name}: Parquet files need pyarrow; install it by pip install "gru-xp[parquet]"') from error
    try:
        with path.open("rb") as file:  # open, so that nothing takes the name for an address in a network
            metadata = parquet.read_metadata(file)
            numbers = metadata.num_rows * metadata.num_columns
            if 8 * numbers > max(_MAX_FREE, _MAX_RATIO * path.stat().st_size):
                raise DataError(f"{name}: claims to hold {numbers:,} numbers, too many for its size")
            file.seek(0)
            return table_of_frame(pd.read_parquet(file, engine="pyarrow"), name)
    except DataError:
        raise
    except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be read as Parquet ({printable(' '.join(str(what).split()), 200)})") from error
