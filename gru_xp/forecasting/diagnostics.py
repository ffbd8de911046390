"""Whether a model's errors have a pattern: tests of its one-step-ahead residuals, by statsmodels (extra ``stats``).

Where a model has used all that there is to use, its errors are about as large everywhere, and say nothing about each
other. Three tests look for a deviation from that:

- Breusch and Pagan [1]_, with the studentised statistic of Koenker [2]_: is the square of the error a linear function
  of the forecast?
- Engle's test for autoregressive conditional heteroscedasticity, ARCH-LM [3]_: do large errors follow large ones?
- Ljung and Box [4]_: are the errors correlated with those before?

Only errors of one step ahead, from every row, are tested: those of further steps overlap, and are correlated anyway.
There are three tests, so each finds something where its p-value is below a third of 0.05 (Bonferroni): of models whose
errors have no pattern, at most one in twenty is said to have one.

References
----------
.. [1] T. S. Breusch and A. R. Pagan, "A simple test for heteroscedasticity and random coefficient variation",
   Econometrica 47 (1979), 1287-1294.
.. [2] R. Koenker, "A note on studentizing a test for heteroscedasticity", Journal of Econometrics 17 (1981), 107-112.
.. [3] R. F. Engle, "Autoregressive conditional heteroscedasticity with estimates of the variance of United Kingdom
   inflation", Econometrica 50 (1982), 987-1007.
.. [4] G. M. Ljung and G. E. P. Box, "On a measure of lack of fit in time series models", Biometrika 65 (1978), 297-303;
   the number of lags is that of Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.4.
"""

import warnings
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from gru_xp.errors import GruXpError, first_line
from gru_xp.forecasting.backtest import SIGNIFICANCE, rolling_origins
from gru_xp.forecasting.data import observed_values
from gru_xp.forecasting.forecaster import Forecaster
from gru_xp.forecasting.metrics import rounding
from gru_xp.forecasting.significance import p_value_text
from gru_xp.forecasting.windows import Floats
from gru_xp.io.messages import option
from gru_xp.io.series import TimeSeries

MIN_RESIDUALS = 20
"""With fewer, nothing is tested."""

LEVEL = SIGNIFICANCE / 3
"""A test finds something where its p-value is below this."""

MOST_LAGS = 10
"""Of the tests that look at errors before; of Ljung and Box two seasons, where there is one."""

LEAST_PER_LAG = 5
"""Residuals for each lag, at least."""


@dataclass(frozen=True)
class ResidualTest:
    """What one test says of residuals.

    Attributes
    ----------
    name : {"breusch_pagan", "arch_lm", "ljung_box"}
    statistic
        Follows the chi-squared distribution with `degrees` degrees of freedom if the errors have no pattern.
    p_value
        Probability of a statistic at least this large if the errors have no pattern.
    degrees
        Lags, or 1 for the forecast.
    found
        Whether the p-value is below `LEVEL`.
    sentence
        What that means, in plain words.
    """

    name: str
    statistic: float
    p_value: float
    degrees: int
    found: bool
    sentence: str


@dataclass(frozen=True)
class LogComparison:
    """The errors of a model, and of the same one that learns the logarithm of the target, in the same windows.

    Attributes
    ----------
    mae, mae_log
        Mean absolute errors in the data's units.
    windows, horizon
        Number of forecasts, and steps ahead of each.
    """

    mae: float
    mae_log: float
    windows: int
    horizon: int

    @property
    def sentence(self) -> str:
        """Whether the logarithm helps."""
        given = option("transform", "log")
        if not self.mae:
            return f"{given} cannot help: the model has no errors in these rows."
        gain = 1 - self.mae_log / self.mae
        advice = f"Train with {given}" if gain > 0 else f"{given} would not help"
        size = f"{abs(gain):.1%} {'lower' if gain > 0 else 'higher'}"
        return (
            f"{advice}: with otherwise the same settings, the MAE in these rows would have been {self.mae_log:.4g} "
            f"instead of {self.mae:.4g}, {size}."
        )


@dataclass(frozen=True)
class Diagnostics:
    """What is left in the one-step-ahead residuals of a model.

    Attributes
    ----------
    residuals
        How many there are.
    tests
        Those that could be made.
    problem
        Why no test could be made; None if any was made.
    unequal_variance
        Whether errors grow with the forecasts, or large ones follow each other.
    suggests_log
        Whether that is so, and a model of the logarithm of the target is still to be tried.
    log
        That model beside this one, if it was tried.
    """

    residuals: int
    tests: tuple[ResidualTest, ...] = ()
    problem: str | None = None
    unequal_variance: bool = False
    suggests_log: bool = False
    log: LogComparison | None = None

    @property
    def sentences(self) -> list[str]:
        """All that is to be said."""
        if self.problem is not None:
            return [self.problem]
        found = [test.sentence for test in self.tests]
        if self.log is not None:
            found.append(self.log.sentence)
        elif self.suggests_log:
            found.append(
                f"Where the size of the errors is unequal, training with {option('transform', 'log')} may help."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The diagnostics as JSON holds them, with the tests by name."""
        tests = {test.name: {key: value for key, value in asdict(test).items() if key != "name"} for test in self.tests}
        return asdict(self) | {"level": LEVEL, "tests": tests}


def diagnose(forecaster: Forecaster, series: TimeSeries, start: int | None = None) -> Diagnostics:
    """Test the errors of a forecaster, one step ahead, in the rows of a series from `start` on.

    Parameters
    ----------
    forecaster
        A forecaster that has learned.
    series
        Of its columns; see `read_series`.
    start
        The first row to forecast, which is the number of rows that it was fitted to; the first one with a whole window
        before it if None.

    Returns
    -------
    Diagnostics

    Raises
    ------
    GruXpError
        statsmodels is not installed.
    DataError
        As for `Forecaster.forecasts`.
    """
    first = max(start or 0, forecaster.window_length)
    origins = range(first, len(series))
    forecasts = forecaster.forecasts(series, origins, 1)[:, 0] if len(origins) else np.empty(0)
    season = forecaster.seasons[0] if forecaster.seasons else 1
    found = examine(_known_target(series)[first:], forecasts, season)
    is_untried = forecaster.transform == "none" and bool((series.values[:, 0] > 0).all())
    return replace(found, suggests_log=found.unequal_variance and is_untried)


def examine(y_true: Floats, y_pred: Floats, season: int = 1) -> Diagnostics:
    """Test the residuals of one-step-ahead forecasts.

    Parameters
    ----------
    y_true, y_pred : array, shape ``(n,)``
        Actual values and forecasts, in the order of time; where one is no number, the row is left out.
    season
        Rows of a season; 1 for none.

    Returns
    -------
    Diagnostics

    Raises
    ------
    GruXpError
        statsmodels is not installed.
    """
    tests = _statsmodels()
    there = np.isfinite(y_true) & np.isfinite(y_pred)
    y_true, y_pred = y_true[there], y_pred[there]
    n = len(y_true)
    if n < MIN_RESIDUALS:
        rows = "1 error is" if n == 1 else f"{n} errors are"
        return Diagnostics(n, problem=f"{rows} too few to look for a pattern; at least {MIN_RESIDUALS} are needed.")
    with np.errstate(over="ignore", invalid="ignore"):
        errors = y_true - y_pred
        errors = errors - errors.mean()
        largest = float(np.abs(errors).max())
    if not largest > rounding(y_true) or not np.isfinite(largest):
        return Diagnostics(n, problem="The errors are the same in all rows: there is no pattern to look for.")
    errors = errors / largest  # squares of very large or small ones would be no numbers
    lags = min(MOST_LAGS, n // LEAST_PER_LAG)
    seasonal = min(2 * season if season > 1 else MOST_LAGS, n // LEAST_PER_LAG)
    found: list[ResidualTest] = []
    grows = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if np.ptp(y_pred) > rounding(y_pred):
            level = (y_pred - y_pred.mean()) / np.abs(y_pred - y_pred.mean()).max()
            design = np.stack([np.ones(n), level], axis=1)
            statistic, p_value, *_ = tests.het_breuschpagan(errors, design)
            grows = float(errors**2 @ level) > 0
            found.append(_result("breusch_pagan", statistic, p_value, 1, _of_level(grows=grows)))
        statistic, p_value, *_ = tests.het_arch(errors, nlags=lags)
        found.append(_result("arch_lm", statistic, p_value, lags, _OF_CLUSTERS))
        ljung_box = tests.acorr_ljungbox(errors, lags=[seasonal]).iloc[0]
        found.append(_result("ljung_box", ljung_box["lb_stat"], ljung_box["lb_pvalue"], seasonal, _OF_CORRELATION))
    names = {test.name for test in found if test.found}
    return Diagnostics(n, tuple(found), None, "arch_lm" in names or ("breusch_pagan" in names and grows))


def compare_with_log(forecaster: Forecaster, series: TimeSeries, start: int, steps: int) -> LogComparison | None:
    """Train the same settings on the logarithm of the target, and compare the errors from row `start` on.

    Parameters
    ----------
    forecaster
        A forecaster that was fitted to the first `start` rows of the series.
    series, start
        As for `diagnose`.
    steps
        Steps ahead of each forecast; the next one begins after so many rows.

    Returns
    -------
    LogComparison or None
        None where there is nothing to forecast.

    Raises
    ------
    ArgumentError
        The settings do not go with the logarithm.
    DataError
        A value has none.
    """
    origins = rolling_origins(start, len(series), steps, steps)
    actual = _known_target(series)[origins[:, None] + np.arange(steps)]
    there = ~np.isnan(actual)
    if not there.any():
        return None
    other = Forecaster(**(forecaster.settings() | {"transform": "log"}))
    other.fit(series.head(start), device=forecaster.device)
    mae, mae_log = (
        float(np.abs(model.forecasts(series, origins.tolist(), steps) - actual)[there].mean())
        for model in (forecaster, other)
    )
    return LogComparison(mae, mae_log, int(there.any(axis=1).sum()), steps)


_OF_CLUSTERS = (
    "ARCH-LM test",
    "Large errors come in clusters: after a large one, the next ones are larger than usual. An interval that is "
    "as wide at all times is too narrow in restless ones",
    "No clear sign of calm and restless times, in which large errors would follow each other",
)
_OF_CORRELATION = (
    "Ljung-Box test",
    "The errors follow a pattern that the model has not used: the last ones say something about the next. A longer "
    "window, the right season or a further column may help",
    "No clear sign of a pattern in the errors, by which the last ones would say something about the next",
)


def _of_level(*, grows: bool) -> tuple[str, str, str]:
    size, wrong = ("larger", "narrow") if grows else ("smaller", "wide")
    return (
        "Breusch-Pagan test",
        f"The errors are {size} where the forecasts are higher: an interval that is as wide at all levels is too "
        f"{wrong} for high values",
        "No sign that the errors grow or shrink with the forecasts",
    )


def _result(name: str, statistic: float, p_value: float, degrees: int, texts: tuple[str, str, str]) -> ResidualTest:
    title, yes, no = texts
    found = bool(p_value < LEVEL)
    sentence = f"{yes if found else no} ({title}, {p_value_text(float(p_value))})."
    return ResidualTest(name, float(statistic), float(p_value), degrees, found, sentence)


def _known_target(series: TimeSeries) -> Floats:
    """The target, NaN where it was missing."""
    return np.where(observed_values(series)[:, 0], series.values[:, 0], np.nan)


def _statsmodels() -> ModuleType:
    """The tests of statsmodels.

    Raises
    ------
    GruXpError
        It is not installed, or does not start.
    """
    try:
        from statsmodels.stats import diagnostic
    except Exception as error:  # a broken install fails in many ways
        if isinstance(error, ModuleNotFoundError) and error.name in ("statsmodels", "statsmodels.stats"):
            raise GruXpError(
                "the diagnostics need statsmodels, which is not installed; pip install 'gru-xp[stats]'"
            ) from error
        raise GruXpError(f"statsmodels is installed but cannot be imported ({first_line(error)}); repair it") from error
    module: ModuleType = diagnostic
    return module
