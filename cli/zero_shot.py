"""Forecasts of the pretrained network: of a CSV file with no run, and beside those of a model in its tables."""

from typing import TYPE_CHECKING, Any

from .messages import choose_device, note, seasons_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gru_xp.devices import Device
    from gru_xp.forecasting.backtest import Backtest, OtherForecast
    from gru_xp.forecasting.windows import Floats
    from gru_xp.io.series import TimeSeries
    from gru_xp.pretrained import ZeroShotForecaster

    from .options import DeviceRequest

MAX_BESIDE = 5000
"""Windows of a table up to which the zero-shot forecast, which takes about half a second for a thousand, is in it."""


def open_zero_shot(season: Any, weights: str | None, device: "DeviceRequest", *, quiet: bool) -> "ZeroShotForecaster":
    """The pretrained network, on the CPU unless another device is asked for."""
    from gru_xp.pretrained import ZeroShotForecaster

    if device.name == "auto":
        reason = "fast enough for zero-shot forecasts; --device chooses another"
        device = device._replace(name="cpu", reason=reason)
    return ZeroShotForecaster(season=season, weights=weights, device=choose_device(device, quiet=quiet))


def note_no_training(
    forecaster: "ZeroShotForecaster",
    series: "TimeSeries",
    weights: str | None,
    steps: int,
    *,
    rolling: bool = False,
    quiet: bool,
) -> "Sequence[int]":
    """Say on stderr what forecasts, with which seasons and weights, and what is doubtful about it; the seasons.

    Forecasts from a `rolling` origin find the seasons in the rows before each.
    """
    from gru_xp.forecasting.season import is_unseen
    from gru_xp.pretrained.features import HEAD

    seasons = forecaster.seasons_of(series)
    how = "given"
    if forecaster.season == "auto":
        how = "found in all rows (each forecast: in the rows before it)" if rolling else "found"
    elif unseen := [season for season in seasons if is_unseen(series.values[:, 0], season)]:
        note(
            f"the values show no clear season of {seasons_text(unseen)}, which is used as given; --season auto looks "
            "for others",
            quiet=quiet,
        )
    whose = "gru-xp's own" if weights is None else weights
    note(f"no training: a pretrained GRU; season {how}: {seasons_text(seasons)}; weights: {whose}", quiet=quiet)
    if seasons and seasons[-1] > len(series):
        note(f"warning: {len(series)} rows are less than a season of {seasons[-1]}; give a shorter --season, or none")
    if steps > HEAD:
        note(f"after step {HEAD}, the last cycle of the forecast repeats, with its drift", quiet=quiet)
    return seasons


def naive_forecasts(series: "TimeSeries", seasons: "Sequence[int]", steps: int) -> "dict[str, Floats]":
    """The last value, and for each season the last one again and again, of shape ``(steps,)``, by column."""
    import numpy as np

    from gru_xp.forecasting.backtest import column_name
    from gru_xp.forecasting.baselines import baselines

    target, origins = series.values[:, 0], np.array([len(series)])
    named = baselines(target, seasons)
    return {
        column_name(name): baseline(target, origins, steps)[0]
        for name, baseline in named.items()
        if name not in ("mean", "drift")
    }


def backtest_zero_shot(
    forecaster: "ZeroShotForecaster",
    series: "TimeSeries",
    steps: int,
    windows: int | None = None,
    stride: int | None = None,
    split_ratio: float | None = None,
    others: "Mapping[str, OtherForecast] | None" = None,
) -> "Backtest":
    """Zero-shot forecasts from a rolling origin, beside a ridge regression if there are enough rows to fit it to."""
    from gru_xp.forecasting.backtest import SPLIT_RATIO, first_origin
    from gru_xp.forecasting.data import naming
    from gru_xp.pretrained.predicting import MIN_VALUES

    split_ratio = SPLIT_RATIO if split_ratio is None else split_ratio
    with naming(series):
        first = first_origin(len(series), steps, stride or steps, windows, split_ratio, least=MIN_VALUES)
        return forecaster.backtest(
            series,
            steps,
            windows=windows,
            stride=stride,
            split_ratio=split_ratio,
            others={**_ridge(series.head(first), forecaster.seasons_of(series.head(first)), steps), **(others or {})},
        )


def _ridge(training: "TimeSeries", seasons: "Sequence[int]", horizon: int) -> "dict[str, OtherForecast]":
    """A ridge regression by name; none where it has too few rows to fit."""
    from gru_xp.errors import DataError
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.backtest import RIDGE

    season: Any = seasons[0] if seasons else "none"
    ridge = Forecaster(model="ridge", season=season, horizon=horizon, guard=False, dtype="float64", hidden_size=1)
    try:
        ridge.fit(training.values[:, 0], device="cpu")
    except DataError:
        return {}
    return {RIDGE: lambda values, origins, horizon, _: ridge.forecasts(values, origins.tolist(), horizon)}


def zero_shot_beside(
    series: "TimeSeries", season: Any, device: "Device", windows: int, *, quiet: bool
) -> "dict[str, OtherForecast]":
    """The zero-shot forecast for the table of a model, by name.

    Empty where the package has no weights, or, with a line on stderr, where there are too many windows or the season is
    too long.
    """
    from gru_xp.forecasting.backtest import ZERO_SHOT
    from gru_xp.pretrained.weights import has_default_weights

    if not has_default_weights():
        return {}
    if windows > MAX_BESIDE:
        note(f"no zero-shot forecast in the table, of {windows} windows: it has up to {MAX_BESIDE}", quiet=quiet)
        return {}
    from gru_xp.pretrained.choosing import zero_shot_for
    from gru_xp.pretrained.rolling import fast_forecast

    forecaster = zero_shot_for(season, None, device)
    if forecaster is None:
        note(f"no zero-shot forecast in the table: a season of {season} rows is too long for it", quiet=quiet)
        return {}
    return {ZERO_SHOT: fast_forecast(forecaster, series.reading.freq)}
