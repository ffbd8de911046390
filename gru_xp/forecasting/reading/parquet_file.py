"""Tables from Parquet files, by pandas and pyarrow, which are imported when such a file is read."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.forecasting.reading.cells import quoted
from gru_xp.forecasting.reading.table import Table
from gru_xp.forecasting.reading.text_file import LARGEST_RATIO

SUFFIXES = (".parquet", ".pq")
_LARGEST_FREE = 2**26  # bytes that any file may unpack to


class _Texts(Mapping[str, Sequence[str]]):
    """Columns of a DataFrame as text, each made when it is asked for."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __getitem__(self, name: str) -> Sequence[str]:
        column = self._frame[name]
        texts: Sequence[str] = column.astype(str).where(column.notna(), "").tolist()
        return texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._frame.columns)

    def __len__(self) -> int:
        return len(self._frame.columns)


def read_parquet(path: Path, name: str) -> Table:
    """Read a Parquet file; its rows are counted from 0, and an index that it holds is a column.

    Raises
    ------
    DataError
        pyarrow is not there, or the file cannot be read.
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
            if 8 * numbers > max(_LARGEST_FREE, LARGEST_RATIO * path.stat().st_size):
                raise DataError(f"{name}: says that it holds {numbers:,} numbers, too many for its size")
            file.seek(0)
            frame = pd.read_parquet(file, engine="pyarrow")
    except (ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be read as Parquet ({printable(' '.join(str(what).split()), 200)})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        names = ["index" if name is None else name for name in frame.index.names]
        frame = frame.reset_index(names=names, allow_duplicates=True)
    frame.columns = [" ".join(str(column).split()) for column in frame.columns]
    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{name}: two columns are called {quoted(repeated)}; rename one of them")
    if frame.empty:
        raise DataError(f"{name}: has no rows; it must have rows of numbers")
    numeric = frame.select_dtypes("number", exclude=["complex", "timedelta"])
    numbers = {column: numeric[column].to_numpy(np.float64, na_value=np.nan) for column in numeric.columns}
    return Table(name, _Texts(frame), range(len(frame)), "row", numbers)
