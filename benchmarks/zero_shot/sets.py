"""The series to forecast: those of ``benchmarks.accuracy``, and sets in files of the person who measures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.own import WEEKS
from benchmarks.accuracy.series import Series

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MIN_KNOWN = 8
"""Values before a forecast that each model needs."""

ID, VALUE = "unique_id", "y"
"""Columns of a file with several series, as Nixtla's libraries name them."""

_SET = re.compile(r"(?P<path>.+):(?P<horizon>\d+):(?P<seasons>\d+(?:,\d+)?)(?::(?P<freq>[A-Za-z0-9-]+))?")


@dataclass(frozen=True)
class SetFile:
    """A file or folder, and how its series are forecast.

    Attributes
    ----------
    path
        A CSV file, or a folder of them.
    horizon, seasons
        In rows; no season if empty, the shorter of two first.
    freq
        Spacing of the rows, as a pandas offset; None if it is not known.
    """

    path: Path
    horizon: int
    seasons: tuple[int, ...]
    freq: str | None


@dataclass(frozen=True)
class ForecastSet:
    """Series that are forecast with the same horizon.

    Attributes
    ----------
    name
        Of the set.
    horizon, seasons
        In rows; no season if empty, the shorter of two first.
    freq
        Spacing of the rows, as a pandas offset; None if it is not known.
    series : tuple of arrays, each of shape ``(N,)``
        All values finite.
    origins : tuple of arrays, each of shape ``(n,)``
        By series: the first row of each forecast. The rows before it are known to it.
    units
        By series: the unit of MASE.
    left_out
        Number of series that are too short, or whose unit is 0.
    tuned
        Whether settings of gru-xp may be chosen by this set; None if that is not known.
    """

    name: str
    horizon: int
    seasons: tuple[int, ...]
    freq: str | None
    series: tuple[Floats, ...]
    origins: tuple[NDArray[np.int64], ...]
    units: tuple[float, ...]
    left_out: int = 0
    tuned: bool | None = None

    @property
    def season(self) -> int:
        """The shorter season, 1 for none."""
        return self.seasons[0] if self.seasons else 1

    @property
    def naive_seasons(self) -> list[int]:
        """The seasons of seasonal naive forecasts; hours and half hours have those of a day and of a week."""
        return sorted({*self.seasons, *(WEEKS[season] for season in self.seasons if season in WEEKS)})

    @cached_property
    def known(self) -> list[Floats]:
        """The rows before each origin, series by series."""
        return [values[:origin] for values, origin in self._windows()]

    @cached_property
    def actual(self) -> Floats:
        """The values to forecast, shape ``(n, horizon)``."""
        return np.stack([values[origin : origin + self.horizon] for values, origin in self._windows()])

    @cached_property
    def window_units(self) -> Floats:
        """The unit of MASE of each forecast, shape ``(n, 1)``."""
        return np.repeat(self.units, [len(origins) for origins in self.origins])[:, None]

    def _windows(self) -> Iterator[tuple[Floats, int]]:
        for values, origins in zip(self.series, self.origins, strict=True):
            for origin in origins.tolist():
                yield values, origin

    def mase(self, y_pred: Floats) -> float:
        """Mean absolute error of forecasts ``(n, horizon)``, in units of the series."""
        return float(np.mean(np.abs(y_pred - self.actual) / self.window_units))

    def coverage(self, low: Floats, high: Floats) -> float:
        """Fraction of the actual values from `low` to `high`, both of shape ``(n, horizon)``."""
        return float(np.mean((low <= self.actual) & (self.actual <= high)))


def public_set(series: Series, most: int) -> ForecastSet:
    """A series of ``accuracy``, with its rolling origins, or `most` of them at equal distances if there are more."""
    source, origins = series.source, series.origins
    if len(origins) > most:
        origins = origins[np.linspace(0, len(origins) - 1, most).round().astype(np.int64)]
    return ForecastSet(
        source.name,
        source.horizon,
        (source.season,) if source.season > 1 else (),
        source.freq,
        (series.values,),
        (origins,),
        (series.scale,),
        tuned=source.tuned,
    )


def parse_set(text: str) -> SetFile:
    """Read ``PATH:HORIZON:SEASON[:FREQ]``; ValueError if it is something else."""
    from gru_xp.pretrained.features import CONTEXT

    match = _SET.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not PATH:HORIZON:SEASON or PATH:HORIZON:SEASON:FREQ, such as loads.csv:24:24:h")
    horizon = int(match["horizon"])
    seasons = sorted({int(season) for season in match["seasons"].split(",")} - {1})
    if horizon < 1:
        raise ValueError(f"{text!r} has a horizon of {horizon}; give at least 1 row")
    if seasons and not 2 <= seasons[0] <= seasons[-1] < CONTEXT:
        raise ValueError(f"{text!r} has a season out of range; give 1 for none, or up to {CONTEXT - 1} rows")
    if match["freq"] is not None:
        from pandas.tseries.frequencies import to_offset

        try:
            to_offset(match["freq"])
        except ValueError:
            raise ValueError(f"{match['freq']!r} is no pandas offset; give one such as MS, D or h") from None
    return SetFile(Path(match["path"]), horizon, tuple(seasons), match["freq"])


def read_set(file: SetFile, id_column: str = ID, value_column: str | None = None) -> ForecastSet:
    """Read the series of a set, whose last rows are forecast from those before.

    Parameters
    ----------
    file
        A CSV file of one series, or of several if it has the column `id_column`; or a folder, each of whose CSV files
        is a series. Rows are oldest first, and equally spaced. Missing values are interpolated.
    id_column
        The column that tells series apart.
    value_column
        The column of the values. If None, ``y``, or else the only column of numbers.

    Raises
    ------
    click.ClickException
        The file cannot be read, or has no series that is long enough.
    """
    learned, all_values = 0, list(_read_all(file.path, id_column, value_column))
    season = file.seasons[0] if file.seasons else 1
    kept = []
    for values in all_values:
        learned = len(values) - file.horizon
        if learned >= max(MIN_KNOWN, season + 1):
            unit = float(np.mean(np.abs(values[season:learned] - values[: learned - season])))
            if unit > 0:
                kept.append((values, np.array([learned]), unit))
    if not kept:
        raise click.ClickException(
            f"{file.path}: none of its {len(all_values)} series has {file.horizon} rows to forecast, and at least "
            f"{max(MIN_KNOWN, season + 1)} that are not constant before them; give a shorter horizon or season"
        )
    series, origins, units = zip(*kept, strict=True)
    left_out = len(all_values) - len(kept)
    name = file.path.stem or str(file.path)
    return ForecastSet(name, file.horizon, file.seasons, file.freq, series, origins, units, left_out)


def _read_all(path: Path, id_column: str, value_column: str | None) -> Iterator[Floats]:
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise click.ClickException(f"{path} has no files that end in .csv; give a folder of them, or one file")
    else:
        files = [path]
    for file in files:
        frame = _read_frame(file)
        column = value_column or _value_column(file, frame, id_column)
        if column not in frame:
            raise click.ClickException(f"{file} has no column {column!r}, but {_names(frame)}; give --value")
        groups = frame.groupby(id_column, sort=False) if id_column in frame else [(None, frame)]
        for _, rows in groups:
            yield _values(rows[column])


def _read_frame(file: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read ({error.strerror or error}); give another file") from error
    except ValueError as error:  # of pandas' parser, too
        raise click.ClickException(f"{file} is no CSV file ({' '.join(str(error).split())})") from error


def _value_column(file: Path, frame: "pd.DataFrame", id_column: str) -> str:
    if VALUE in frame:
        return VALUE
    numeric = [name for name in frame.select_dtypes("number") if name != id_column]
    if len(numeric) != 1:
        raise click.ClickException(f"{file} has no column {VALUE!r}, but {_names(frame)}; give one of them by --value")
    return str(numeric[0])


def _names(frame: "pd.DataFrame") -> str:
    return ", ".join(map(repr, frame.columns))


def _values(column: "pd.Series[Any]") -> Floats:
    import pandas as pd

    values = pd.to_numeric(column, errors="coerce").replace([np.inf, -np.inf], np.nan)
    return values.interpolate(limit_area="inside").dropna().to_numpy(dtype=np.float64)


def repeated(names: Sequence[str]) -> list[str]:
    """The names that are there more than once."""
    return sorted({name for name in names if names.count(name) > 1})
