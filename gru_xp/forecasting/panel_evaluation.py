"""How good forecasts of several series are: of each series, and of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.backtest import RIDGE, column_name, fit_ridge_like
from gru_xp.forecasting.baselines import needs_no_training
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.metrics import MEASURES, losses_of_utilsforecast, quantile_accuracy, rounding
from gru_xp.forecasting.outputs import quantile_column
from gru_xp.forecasting.panels import baselines_of, find_common_seasons, least_ages, series_numbers
from gru_xp.forecasting.predicting import forecast_origins
from gru_xp.forecasting.windows import Floats
from gru_xp.io.panel import Panel
from gru_xp.io.table import Rows

if TYPE_CHECKING:
    import pandas as pd

WORST = 5
"""Series with the largest errors that are named."""


@dataclass(frozen=True, eq=False)
class PanelBacktest:
    """Forecasts of several series, each from several origins.

    Attributes
    ----------
    panel
        All rows of all series.
    origins : array, shape ``(n,)``
        The first row of each forecast, in `panel`.
    forecasts
        Arrays ``(n, horizon)`` in the data's units, by name, as of `Backtest`.
    stops : array, shape ``(S,)``
        The rows of each series before these are the unit of MASE and RMSSE.
    season
        Rows of a season; 1 for none.
    fallback
        The forecast without training that the model's guard had chosen instead of it; None where it had not.
    """

    panel: Panel
    origins: Rows
    forecasts: Mapping[str, Floats]
    stops: Rows
    season: int = 1
    fallback: str | None = None

    @property
    def model(self) -> str:
        """Name of the model that is measured."""
        return next(iter(self.forecasts))

    @property
    def horizon(self) -> int:
        """Number of steps ahead."""
        return int(self.forecasts[self.model].shape[1])

    @property
    def rows(self) -> Rows:
        """The rows that are forecast, shape ``(n, horizon)``."""
        rows: Rows = self.origins[:, None] + np.arange(self.horizon)
        return rows

    @property
    def y_true(self) -> Floats:
        """Their actual values, NaN where they are missing, shape ``(n, horizon)``."""
        return self._target[self.rows]

    @cached_property
    def _target(self) -> Floats:
        target = self.panel.values[:, 0]
        return target if self.panel.observed is None else np.where(self.panel.observed[:, 0], target, np.nan)

    @property
    def points(self) -> dict[str, Floats]:
        """The forecasts that are no quantiles, by name."""
        return {name: forecast for name, forecast in self.forecasts.items() if quantile_column(name) is None}

    @cached_property
    def by_series(self) -> "pd.DataFrame":
        """The errors of each series.

        Returns
        -------
        pandas.DataFrame
            A row for each series that is forecast and each forecast: the name of the series, ``forecast``, such as
            ``GRU`` and ``LastValue``, ``windows``, and the measures of `accuracy`, NaN where there is no such number.
        """
        import pandas as pd

        losses, there, numbers = losses_of_utilsforecast(), ~np.isnan(self.y_true), self._numbers
        names = {name: column_name(name) for name in self.points}
        of_rows = np.broadcast_to(numbers[:, None], there.shape)[there]
        columns = {names[name]: forecast[there] for name, forecast in self.points.items()}
        frame = pd.DataFrame({"unique_id": of_rows, "y": self.y_true[there], **columns})
        offsets = self.panel.offsets[:-1]
        learned = np.arange(len(self._target)) < np.repeat(self.stops, self.panel.lengths)
        train = pd.DataFrame(
            {"unique_id": np.repeat(np.arange(len(self.panel)), self.stops - offsets), "y": self._target[learned]}
        )
        models, found = list(names.values()), []
        with np.errstate(all="ignore"):
            for measure in MEASURES:
                extra: Any = {}
                if measure in ("mase", "rmsse"):
                    extra = {"seasonality": self.season, "train_df": train}
                of_measure = getattr(losses, measure)(frame, models, id_col="unique_id", **extra)
                found.append(of_measure.set_index("unique_id").stack().rename(measure))
        table = pd.concat(found, axis=1).replace([np.inf, -np.inf], np.nan)
        table.index.names = ["number", "forecast"]
        table = table.reset_index()
        flat = self._flat_series()
        table.loc[table["number"].isin(flat), ["mase", "rmsse"]] = np.nan
        windows = pd.Series(numbers[there.any(axis=1)]).value_counts()
        table.insert(0, self.panel.id, [self.panel.names[number] for number in table["number"]])
        table.insert(2, "windows", windows.reindex(table["number"]).to_numpy())
        found_table: pd.DataFrame = table.drop(columns="number")
        return found_table

    @property
    def _numbers(self) -> Rows:
        """Of the series of each origin."""
        return series_numbers(self.panel, self.origins)

    def _flat_series(self) -> list[int]:
        """The series whose seasonal naive forecast has no errors in the rows before `stops`, but for rounding."""
        flat = []
        for number, (first, stop) in enumerate(zip(self.panel.offsets.tolist(), self.stops.tolist(), strict=False)):
            train = self._target[first:stop]
            changes = np.abs(train[self.season :] - train[: -self.season])
            if np.nansum(changes) <= rounding(train) * np.count_nonzero(~np.isnan(changes)):
                flat.append(number)
        return flat

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """How good the forecasts are, as JSON holds it.

        ``series``, ``windows``, ``horizon``, ``season``, ``model`` and ``fallback`` as of `Backtest`; ``models``: for
        each forecast the ``mean`` and the ``median`` over all series of each measure of `accuracy`; ``scaled_series``:
        how many series have a MASE, whose unit is 0 for others; ``best_baseline``: the forecast without training that
        has the smallest mean MASE, or MAE where there is no MASE; ``skill``: by which share that of the model is
        smaller; ``better_in``: in how many series the model errs less than it; ``worst``: the series with the largest
        errors of the model, the worst first, with its measures; ``coverage`` and ``expected_coverage`` of all rows,
        where there are quantiles.
        """
        table, model = self.by_series, column_name(self.model)
        grouped = table.groupby("forecast", sort=False)[list(MEASURES)]
        found = {kind: getattr(grouped, kind)() for kind in ("mean", "median")}
        models: dict[str, Any] = {
            name: {kind: _numbers(values.loc[name]) for kind, values in found.items()}
            for name in map(column_name, self.points)
        }
        own = table[table["forecast"] == model].set_index(self.panel.id)
        measure = "mase" if own["mase"].notna().any() else "mae"
        free = [name for name in self.points if needs_no_training(name)]
        best = min(map(column_name, free), key=lambda name: _or_infinite(models[name]["mean"][measure]))
        of_best = table[table["forecast"] == best].set_index(self.panel.id)
        error, least = models[model]["mean"][measure], models[best]["mean"][measure]
        worst = own.sort_values(measure, ascending=False, kind="stable").head(WORST)
        result = {
            "series": len(own),
            "windows": int(own["windows"].sum()),
            "horizon": self.horizon,
            "season": self.season,
            "model": model,
            "fallback": None if self.fallback is None else column_name(self.fallback),
            "models": models,
            "scaled_series": int(own["mase"].notna().sum()),
            "measure": measure,
            "best_baseline": best,
            "skill": None if not least or error is None else 1.0 - error / least,
            "better_in": int((own["mae"] < of_best["mae"]).sum()),
            "worst": [
                {"series": name, "windows": int(row["windows"]), **_numbers(row), "best_baseline": _numbers(other)}
                for name, row, other in ((name, own.loc[name], of_best.loc[name]) for name in worst.index)
            ],
        }
        quantiles = {
            column[1]: forecast
            for name, forecast in self.forecasts.items()
            if (column := quantile_column(name)) is not None and column[0] == self.model
        }
        if quantiles:
            measures = quantile_accuracy(self.y_true, {self.model: quantiles}, self.forecasts)[self.model]
            result |= {name: measures[name] for name in ("coverage", "expected_coverage") if name in measures}
        return result

    def to_frame(self) -> "pd.DataFrame":
        """The forecasts as the functions of utilsforecast take them.

        Returns
        -------
        pandas.DataFrame
            As of `Backtest.to_frame`; the first column has the names of the series.
        """
        import pandas as pd

        there, rows, firsts = ~np.isnan(self.y_true), self.rows, self.panel.offsets[self._numbers]
        times = self.panel.dates
        cutoffs = np.broadcast_to(self.origins[:, None] - 1, rows.shape)
        counted = np.broadcast_to(firsts[:, None], rows.shape)
        return pd.DataFrame(
            {
                self.panel.id: np.array(self.panel.names, dtype=object)[
                    np.broadcast_to(self._numbers[:, None], rows.shape)[there]
                ],
                "ds": (rows - counted)[there] if times is None else times[rows[there]],
                "cutoff": (cutoffs - counted)[there] if times is None else times[cutoffs[there]],
                "y": self.y_true[there],
                **{column_name(name): forecast[there] for name, forecast in self.forecasts.items()},
            }
        )


def _numbers(values: Any) -> dict[str, float | None]:
    """The measures among some values, as JSON holds them."""
    return {name: float(values[name]) if np.isfinite(values[name]) else None for name in MEASURES}


def _or_infinite(number: float | None) -> float:
    return np.inf if number is None else number


def evaluate_panel(
    forecaster: Forecaster,
    panel: Panel,
    parts: Mapping[str, tuple[Rows, Rows]],
    horizon: int,
    *,
    learned: Rows | None = None,
    training: Panel | None = None,
) -> dict[str, PanelBacktest]:
    """Predict the rows of `parts` of each series by blocks of `horizon`, each from the actual rows before it.

    The last block of a series ends with its part.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    panel
        All rows of the series.
    parts
        The first row of each part in each series and the row after its last one, ``(S,)`` each; parts without a row to
        forecast are left out.
    horizon
        Steps ahead.
    learned : array, shape ``(S,)``
        Rows of each series before these make mean, season and the units of errors, and a ridge is fitted to them. If
        None, the forecaster has learned from others: all rows make means and units, and there is no ridge.
    training
        The rows that a ridge is fitted to, where the forecaster has learned from more series than these.

    Raises
    ------
    DataError
        There is no row to forecast.
    """
    starts, own = panel.offsets[:-1], least_ages(panel.lengths, forecaster.window_length, horizon)
    origins = {}
    for name, (firsts, stops) in parts.items():
        first = np.where(firsts == starts, starts + own, firsts)
        origins[name] = np.concatenate(
            [np.arange(stop - horizon, least - 1, -horizon)[::-1] for least, stop in zip(first, stops, strict=True)]
        ).astype(np.int64)
    every = np.concatenate(list(origins.values()))
    if not len(every):
        raise DataError(
            f"{len(panel)} series of up to {panel.lengths.max()} row(s) are too short for forecasts of {horizon} "
            "step(s); give longer series or fewer steps"
        )
    stops = panel.offsets[1:] if learned is None else learned
    seasons = list(_seasons(forecaster, panel, stops, is_other=learned is None))
    named = forecaster.named_forecasts(forecast_origins(forecaster, panel, every, horizon))
    ridge = None
    if learned is not None:
        rows = panel.head(learned) if training is None else training
        ridge = fit_ridge_like(forecaster, rows.target_alone(), horizon)
    if ridge is not None:
        named[RIDGE] = forecast_origins(ridge, panel.target_alone(), every, horizon)[:, 0]
    for name, baseline in baselines_of(panel, stops, seasons).items():
        named[name] = baseline(panel.values[:, 0], every, horizon)
    found, start = {}, 0
    for name, some in origins.items():
        held = {model: forecast[start : start + len(some)] for model, forecast in named.items()}
        start += len(some)
        result = PanelBacktest(panel, some, held, stops, seasons[0] if seasons else 1, forecaster.fallback)
        if len(some) and not np.isnan(result.y_true).all():
            found[name] = result
    return found


def _seasons(forecaster: Forecaster, panel: Panel, stops: Rows, *, is_other: bool) -> tuple[int, ...]:
    """See `seasons_of`."""
    if isinstance(forecaster.season, int):
        return (forecaster.season,)
    if forecaster.season == "none" or (forecaster.seasons and not is_other):
        return forecaster.seasons
    found = find_common_seasons(panel, stops, panel.reading.freq)
    return (*found, *(season for season in forecaster.seasons if season not in found))
