"""The ZeroShotForecaster: forecasts of a pretrained network for series that it has never seen."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gru_xp.devices import Device, device_for_caller
from gru_xp.errors import ArgumentError, DataError, printable
from gru_xp.forecasting.data import (
    check_magnitude,
    coming_index,
    naming,
    observed_values,
    series_to_learn,
    target_alone,
    warn_of_notices,
    with_coming_index,
)
from gru_xp.forecasting.outputs import Outputs, column_suffix
from gru_xp.forecasting.season import calendar_seasons, has_season
from gru_xp.forecasting.settings import MAX_STEPS
from gru_xp.forecasting.windows import Floats, rows_are
from gru_xp.io.series import Reading, TimeSeries
from gru_xp.io.spacing import find_spacing
from gru_xp.io.table import Rows
from gru_xp.nn.checks import shown, whole_number
from gru_xp.pretrained.features import CONTEXT, LEVELS, MEDIAN
from gru_xp.pretrained.predicting import MIN_VALUES, Periods, forecast_quantiles, periods_of
from gru_xp.pretrained.weights import Weights, default_weights, load_weights

if TYPE_CHECKING:
    import pandas as pd

    from gru_xp.forecasting.backtest import Backtest, OtherForecast

NAME = "ZeroShot"
"""Name of the point forecast, and start of those of its quantiles, in tables and files."""

SPLIT_RATIO = 0.7
"""Fraction of the rows before the first forecast that is measured, unless it is given."""

Season = int | tuple[int, int] | Literal["auto", "none"]


class ZeroShotForecaster:
    """Forecast series with a pretrained network, which is not trained on them.

    Only the target of a series is looked at: its last 512 values, and where it has dates, all values before the
    forecast, for the season.

    Parameters
    ----------
    season : int, tuple of two int, {"auto", "none"}
        Rows of the season, or of two, each less than 512. ``"auto"`` finds up to two: those that the spacing of the
        dates suggests and the values before the forecast have, as `has_season` says, or else those of `find_periods`.
    weights
        A file of the network's weights, such as ``python -m gru_xp.pretrained`` writes, or what `load_weights` gave;
        those of the package if None.
    device
        A name for `resolve_device`, or its result.

    Attributes
    ----------
    season, weights, device
        As above, the weights loaded and the device found.

    Raises
    ------
    ArgumentError
        The season is out of range.
    CheckpointError
        The weights cannot be read.
    DataError
        The package has no weights.

    Notes
    -----
    The network forecasts 64 values at once, with the quantiles 0.1 to 0.9, of which the median is the point forecast;
    `forecast_quantiles` says how they continue. Missing values before a forecast are interpolated, those at the end
    are the last one that was there; that is also so with the option ``missing="mask"``.

    Examples
    --------
    >>> import numpy as np
    >>> forecaster = ZeroShotForecaster(season=12)
    >>> forecaster.forecast(10 + np.sin(np.arange(100) * np.pi / 6), steps=24).shape
    (24,)
    """

    model = "zero-shot"
    seasons: tuple[int, ...] = ()
    fallback = None
    outputs = Outputs("quantile", LEVELS)

    def __init__(
        self,
        *,
        season: int | Sequence[int] | Literal["auto", "none"] = "auto",
        weights: str | os.PathLike[str] | Weights | None = None,
        device: str | Device = "auto",
    ) -> None:
        self.season: Season = _checked_season(season)
        if weights is None:
            weights = default_weights()
        self.weights = weights if isinstance(weights, Weights) else load_weights(weights)
        self.device = device if isinstance(device, Device) else device_for_caller(device)

    def __repr__(self) -> str:
        return f"ZeroShotForecaster(season={self.season!r}, device={self.device.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, with the device by its name, for pickle and copy."""
        return vars(self) | {"device": (self.device.name, self.device.threads)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes over, on the device they were on, or on the CPU, with a warning, if it does not work."""
        name, threads = state["device"]
        vars(self).update(state, device=device_for_caller(name, threads=threads))

    def forecast(self, series: Any, steps: int, *, target: str | None = None, **how: Any) -> Any:
        """Forecast the values after the last row.

        Parameters
        ----------
        series : TimeSeries, pandas.DataFrame, pandas.Series or array
            As for `Forecaster.fit`; features are not looked at.
        steps
            How many values.
        target, **how
            The column of a DataFrame to forecast, and how to read it; see `Forecaster.fit`.

        Returns
        -------
        array, shape ``(steps,)``, or pandas.Series
            The medians, in the data's units. A pandas object and a `TimeSeries` with dates give a pandas.Series with
            the coming dates, at the usual spacing of the rows; a RangeIndex goes on.

        Raises
        ------
        ArgumentError
            An argument is out of range.
        DataError
            The data cannot be read, have fewer than two values, or values that are too large.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = _read(series, target, how)
        return with_coming_index(series, checked, self._after(checked, steps)[0, :, MEDIAN], checked.target)

    def forecast_all(
        self, series: Mapping[Any, Any] | Sequence[Any], steps: int, *, target: str | None = None, **how: Any
    ) -> Any:
        """Forecast the values after the last row of each of several series, together.

        Parameters
        ----------
        series
            A dict of series by name, or a list, each as for `forecast`.
        steps, target, **how
            As for `forecast`.

        Returns
        -------
        dict or list
            What `forecast` returns for each, by name where the series have names.

        Raises
        ------
        ArgumentError
            The series are neither, or an argument is out of range.
        DataError
            As for `forecast`, with the name of the series, or its number in the list.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        if not isinstance(series, Mapping | list | tuple):
            raise ArgumentError(
                f"series is {shown(series)}; it must be a dict of series by name, or a list; see forecast for one"
            )
        is_named = isinstance(series, Mapping)
        every = list(series.values() if isinstance(series, Mapping) else series)
        names = list(series) if is_named else [f"series {number}" for number in range(len(every))]
        checked = []
        for name, data in zip(names, every, strict=True):
            with _naming(name):
                checked.append(_read(data, target, how))
        known = [_Known(one, name) for one, name in zip(checked, names, strict=True)]
        points = self._quantiles([(one, len(one)) for one in known], steps)[:, :, MEDIAN]
        forecasts = [
            with_coming_index(data, one, forecast, one.target)
            for data, one, forecast in zip(every, checked, points, strict=True)
        ]
        return dict(zip(names, forecasts, strict=True)) if is_named else forecasts

    def forecast_distribution(
        self, series: Any, steps: int, *, target: str | None = None, **how: Any
    ) -> "pd.DataFrame":
        """Forecast the values after the last row, and quantiles of them.

        Parameters
        ----------
        series, steps, target, **how
            As for `forecast`.

        Returns
        -------
        pandas.DataFrame, shape ``(steps, 10)``
            In the data's units, with the coming dates, or numbers of rows, as the index. The first column,
            ``ZeroShot``, is `forecast`. The quantiles follow, with the names that Nixtla's libraries use:
            ``ZeroShot-lo-80``, the quantile 0.1, to ``ZeroShot-hi-80``, the quantile 0.9. They never cross.

        Raises
        ------
        ArgumentError, DataError
            As for `forecast`.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        import pandas as pd

        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = _read(series, target, how)
        named = _named(self._after(checked, steps))
        index = coming_index(series, checked, steps)
        if index is None:
            index = pd.RangeIndex(len(checked), len(checked) + steps)
        return pd.DataFrame({name: values[0] for name, values in named.items()}, index=index)

    def forecasts(
        self, series: Any, origins: Sequence[int], steps: int, *, target: str | None = None, **how: Any
    ) -> Floats:
        """Forecast from several origins at once, each time as if the rows from the origin on were not known yet.

        Parameters
        ----------
        series
            As for `forecast`.
        origins : sequence of int, shape ``(n,)``
            As for `Forecaster.forecasts`; two rows before each must be known.
        steps, target, **how
            As for `forecast`.

        Returns
        -------
        array, shape ``(n, steps)``
            The medians, in the data's units.

        Raises
        ------
        ArgumentError, DataError
            As for `forecast`.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        return self._from_origins(_read(series, target, how), origins, steps)[:, :, MEDIAN]

    def forecast_distributions(
        self, series: Any, origins: Sequence[int], steps: int, *, target: str | None = None, **how: Any
    ) -> dict[str, Floats]:
        """Forecast from several origins at once, as `forecasts` does, with the quantiles.

        Parameters
        ----------
        series, origins, steps, target, **how
            As for `forecasts`.

        Returns
        -------
        dict
            Arrays ``(n, steps)`` by the names of the columns of `forecast_distribution`.

        Raises
        ------
        ArgumentError, DataError
            As for `forecasts`.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        return _named(self._from_origins(_read(series, target, how), origins, steps))

    def seasons_of(self, series: Any, *, target: str | None = None, **how: Any) -> tuple[int, ...]:
        """The seasons by which the values after the last row are forecast, in rows, the shorter first; none if empty.

        Parameters
        ----------
        series, target, **how
            As for `forecast`.

        Raises
        ------
        DataError
            As for `forecast`.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        checked = _read(series, target, how)
        known = _Known(checked)
        pair = self._periods(known, len(checked)) or periods_of(known.before(len(checked)), known.name)
        return tuple(sorted({period for period in pair if period > 1}))

    def evaluate(
        self,
        series: Any,
        steps: int = 1,
        *,
        start: int | None = None,
        others: "Mapping[str, OtherForecast] | None" = None,
        target: str | None = None,
        **how: Any,
    ) -> "Backtest":
        """Measure forecasts of the last rows of a series, beside forecasts that need no training.

        Parameters
        ----------
        series
            As for `forecast`.
        steps, others
            As for `Forecaster.evaluate`.
        start
            The first row to forecast; that after 70 % of the rows if None. The mean and the season of the rows before
            it make the forecasts that need no training.
        target, **how
            As for `forecast`.

        Returns
        -------
        Backtest

        Raises
        ------
        ArgumentError, DataError
            As for `forecast`, or there is no row to forecast.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        from gru_xp.forecasting.backtest import first_origin, roll

        steps = whole_number("steps", steps, 1, MAX_STEPS)
        checked = _read(series, target, how)
        with naming(checked):
            if start is None:
                first = first_origin(len(checked), steps, steps, None, SPLIT_RATIO, least=MIN_VALUES)
            else:
                first = whole_number("start", start, MIN_VALUES, len(checked))
            return roll(lambda _: self, checked, first, steps, learned=first, others=others)

    def backtest(
        self,
        series: Any,
        steps: int = 1,
        *,
        windows: int | None = None,
        stride: int | None = None,
        split_ratio: float = SPLIT_RATIO,
        others: "Mapping[str, OtherForecast] | None" = None,
        target: str | None = None,
        **how: Any,
    ) -> "Backtest":
        """Measure how well a series is forecast from a rolling origin, beside forecasts that need no training.

        Parameters
        ----------
        steps, windows, stride, split_ratio, others
            As for `Forecaster.backtest`, which has more to set.
        series, target, **how
            As for `forecast`.

        Returns
        -------
        Backtest

        Raises
        ------
        ArgumentError, DataError
            As for `Forecaster.backtest`.

        Warns
        -----
        DataWarning
            As for `Forecaster.fit`.
        """
        from gru_xp.forecasting.backtest import first_origin, roll

        steps = whole_number("steps", steps, 1, MAX_STEPS)
        stride = steps if stride is None else whole_number("stride", stride, 1)
        windows = None if windows is None else whole_number("windows", windows, 1)
        if not isinstance(split_ratio, Real) or not 0 < split_ratio < 1:
            raise ArgumentError(f"split_ratio is {shown(split_ratio)}; it must be above 0 and below 1")
        checked = _read(series, target, how)
        with naming(checked):
            first = first_origin(len(checked), steps, stride, windows, float(split_ratio), least=MIN_VALUES)
            return roll(
                lambda _: self, checked, first, steps, windows=windows, stride=stride, learned=first, others=others
            )

    def other_forecast(self, freq: str | None = None) -> "OtherForecast":
        """These forecasts as another row of a table of errors, such as that of `Forecaster.backtest`.

        Parameters
        ----------
        freq
            The spacing of the rows, as a pandas offset; None if it is not known.

        Returns
        -------
        callable
            See `OtherForecast`. It finds the seasons as this forecaster does, not as the table.
        """

        def forecast(values: Floats, origins: Rows, horizon: int, season: int) -> Floats:
            series = TimeSeries(np.asarray(values, dtype=np.float64)[:, None], ("series",), reading=Reading(freq=freq))
            return self._from_origins(series, origins.tolist(), horizon)[:, :, MEDIAN]

        return forecast

    def _after(self, series: TimeSeries, steps: int) -> Floats:
        """Quantiles ``(1, steps, Q)`` after the last row."""
        return self._quantiles([(_Known(series), len(series))], steps)

    def _from_origins(self, series: TimeSeries, origins: Sequence[int], steps: int) -> Floats:
        """Quantiles ``(n, steps, Q)`` from each origin."""
        steps = whole_number("steps", steps, 1, MAX_STEPS)
        known = _Known(series)
        numbers = [whole_number("origin", origin, MIN_VALUES, len(known)) for origin in origins]
        return self._quantiles([(known, origin) for origin in numbers], steps)

    def _quantiles(self, sought: "Sequence[tuple[_Known, int]]", steps: int) -> Floats:
        return forecast_quantiles(
            self.weights,
            [known.before(origin) for known, origin in sought],
            [self._periods(known, origin) for known, origin in sought],
            steps,
            device=self.device,
            names=[known.name for known, _ in sought],
        )

    def _periods(self, known: "_Known", origin: int) -> Periods | None:
        """The seasons by what is known before an origin; None where they are to be found in the last values."""
        if self.season == "none":
            return 1, 1
        if isinstance(self.season, tuple):
            return self.season
        if isinstance(self.season, int):
            return self.season, self.season
        return known.calendar_periods(origin)


class _Known:
    """What is known of the target of a series before an origin."""

    def __init__(self, series: TimeSeries, name: object = None) -> None:
        self.series, self.name = series, series.name if name is None else name
        self._found: dict[int, Periods | None] = {}

    def __len__(self) -> int:
        return len(self.series)

    @cached_property
    def target(self) -> Floats:
        """All values, NaN where one was missing."""
        there = observed_values(self.series)[:, 0]
        if self.series.interpolated is not None:
            there = there & ~self.series.interpolated[:, 0]
        values: Floats = np.where(there, self.series.values[:, 0], np.nan)
        return values

    def before(self, origin: int) -> Floats:
        """The values that a forecast from this row on is based on."""
        return self.target[max(origin - CONTEXT, 0) : origin]

    def calendar_periods(self, origin: int) -> Periods | None:
        """The seasons that the dates suggest and the values before a row have.

        They are found anew after each sixteenth of the rows, so that many origins take little time, and each has the
        same seasons as without the others.
        """
        if not self._suggested:
            return None
        size = 2 ** max(origin.bit_length() - 5, 0)
        rows = origin // size * size
        if rows not in self._found:
            values = self.series.head(rows).values[:, 0]
            held = [season for season in self._suggested if has_season(values, season)]
            self._found[rows] = (held[0], held[-1]) if held else None
        return self._found[rows]

    @cached_property
    def _suggested(self) -> list[int]:
        freq = self.series.reading.freq
        if freq is None and self.series.dates is not None:
            freq = find_spacing(self.series.dates).freq
        return [] if freq is None else [season for season in calendar_seasons(freq) if season < CONTEXT]


def _read(series: Any, target: str | None, how: Mapping[str, Any]) -> TimeSeries:
    """The series, without its features; warnings name the caller of the method that calls this function."""
    with naming(series):
        taken = target_alone(series_to_learn(series, target, (), how))
        check_magnitude(taken)
        if len(taken) < MIN_VALUES:
            raise DataError(f"{rows_are(len(taken))} too few; at least {MIN_VALUES} are needed")
    warn_of_notices(series, taken, stacklevel=3)
    return taken


@contextmanager
def _naming(name: object) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{printable(str(name), 1000)}: {error}") from error


def _named(quantiles: Floats) -> dict[str, Floats]:
    """Quantiles ``(n, steps, Q)`` by name of the column, the point forecast first."""
    named = {NAME: quantiles[:, :, MEDIAN]}
    for number, level in enumerate(LEVELS):
        named[f"{NAME}-{column_suffix(level)}"] = quantiles[:, :, number]
    return named


def _checked_season(season: object) -> Season:
    if isinstance(season, str) and season in ("auto", "none"):
        return "auto" if season == "auto" else "none"
    given = season if isinstance(season, list | tuple) else [season]
    if not 1 <= len(given) <= 2 or not all(_is_season(each) for each in given):
        raise ArgumentError(
            f"season is {shown(season)}; it must be 'auto', 'none', or one or two numbers of rows from 2 to "
            f"{CONTEXT - 1}, as the network looks back on {CONTEXT} rows"
        )
    short, long = min(map(int, given)), max(map(int, given))
    return short if short == long else (short, long)


def _is_season(season: object) -> bool:
    return isinstance(season, Integral) and not isinstance(season, bool) and 2 <= int(season) < CONTEXT
