"""Tests of residuals: the numbers of statsmodels, false alarms, and what is found."""

import sys

import numpy as np
import pytest

from gru_xp.errors import GruXpError
from gru_xp.forecasting.diagnostics import LEVEL, LogComparison, compare_with_log, diagnose, examine
from gru_xp.io.messages import command_line
from gru_xp.io.series import TimeSeries

ROWS, SERIES = 200, 40
NAMES = ["breusch_pagan", "arch_lm", "ljung_box"]


@pytest.fixture
def stats():
    return pytest.importorskip("statsmodels.stats.diagnostic")


def equal(rng, level):
    return rng.standard_normal(ROWS)


def growing(rng, level):
    return level * rng.standard_normal(ROWS)


def shrinking(rng, level):
    return rng.standard_normal(ROWS) / level**2


def clustered(rng, level):
    errors = np.zeros(ROWS)
    for row, noise in enumerate(rng.standard_normal(ROWS)):
        errors[row] = noise * np.sqrt(0.2 + 0.8 * errors[row - 1] ** 2)
    return errors


def correlated(rng, level):
    errors = rng.standard_normal(ROWS)
    for row in range(1, ROWS):
        errors[row] += 0.5 * errors[row - 1]
    return errors


def found_in(rng, errors_of, **options):
    """How many of the series each test finds something in, and how many any test does, with the last result."""
    counts = dict.fromkeys([*NAMES, "any"], 0)
    for _ in range(SERIES):
        level = 2 + np.abs(rng.standard_normal(ROWS))
        result = examine(level + errors_of(rng, level), level, **options)
        names = [test.name for test in result.tests if test.found]
        for name in [*names, *["any"] * bool(names)]:
            counts[name] += 1
    return counts, result


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::FutureWarning:statsmodels")
def test_numbers_are_those_of_statsmodels(stats, rng):
    y_pred = 1e5 + 300 * rng.standard_normal(ROWS)
    y_true = y_pred + 7 + 20 * correlated(rng, y_pred)
    y_true[[5, 90]] = np.nan
    result = examine(y_true, y_pred, season=12)
    there = ~np.isnan(y_true)
    errors = (y_true - y_pred)[there]
    errors -= errors.mean()
    expected = [
        stats.het_breuschpagan(errors, np.stack([np.ones(ROWS - 2), y_pred[there] - 1e5], axis=1))[:2],
        stats.het_arch(errors, nlags=10)[:2],
        stats.acorr_ljungbox(errors, lags=[24]).iloc[0].to_list(),
    ]
    assert result.residuals == ROWS - 2
    assert [test.name for test in result.tests] == NAMES
    assert [test.degrees for test in result.tests] == [1, 10, 24]
    np.testing.assert_allclose([(test.statistic, test.p_value) for test in result.tests], expected, rtol=1e-6)
    assert [test.found for test in result.tests] == [p_value < LEVEL for _, p_value in expected]


@pytest.mark.peer
def test_false_alarms_and_findings(stats, rng):
    """Of errors without a pattern, at most one in twenty is said to have one, but for chance; others have theirs."""
    counts, result = found_in(rng, equal)
    assert counts["any"] <= 6  # of 40, with a probability of 99.7 %
    assert not result.unequal_variance
    for errors_of, name, words in (
        (growing, "breusch_pagan", "larger where the forecasts are higher"),
        (shrinking, "breusch_pagan", "smaller where"),
        (clustered, "arch_lm", "clusters"),
        (correlated, "ljung_box", "pattern that the model has not used"),
    ):
        counts, result = found_in(rng, errors_of)
        assert counts[name] >= 0.6 * SERIES, (errors_of, counts)
        if next(test for test in result.tests if test.name == name).found:
            assert any(words in sentence for sentence in result.sentences), errors_of


@pytest.mark.peer
def test_what_cannot_be_tested(stats, rng):
    y_pred = rng.standard_normal(30)
    few = examine(np.append(y_pred[:19], np.inf), y_pred[:20])
    assert (few.residuals, few.tests) == (19, ())
    assert "19" in few.sentences[0]
    assert examine(y_pred[:0], y_pred[:0]).residuals == 0
    constant = examine(y_pred + 3, y_pred)
    assert constant.tests == ()
    assert "same" in constant.problem
    flat = examine(y_pred, np.ones(30))
    assert [test.name for test in flat.tests] == NAMES[1:]
    huge = examine(1e160 * y_pred, np.zeros(30) + 1e150 * y_pred[::-1])
    assert np.isfinite([test.p_value for test in huge.tests]).all()
    assert huge.to_dict()["tests"]["arch_lm"]["degrees"] == 6


@pytest.mark.peer
def test_a_forecaster(stats, small, rng, cpu):
    """Each row from the test rows on is forecast one step ahead; what it would have been with logarithms is trained."""
    values = np.exp(np.linspace(0, 4, 120) + 0.3 * rng.standard_normal(120))[:, None]
    series = TimeSeries(values, ("Sales",))
    forecaster = small(horizon=2, seq_length=6, validation_ratio=0.0, patience=None, dtype="float64")
    forecaster.fit(series.head(60), device=cpu)
    found = diagnose(forecaster, series, 60)
    expected = examine(values[60:, 0], forecaster.forecasts(series, range(60, 120), 1)[:, 0])
    assert found.residuals == 60
    assert found.tests == expected.tests
    assert found.suggests_log == found.unequal_variance
    assert not diagnose(forecaster, TimeSeries(values - 1e3, ("Sales",)), 60).suggests_log
    assert diagnose(forecaster, series).residuals == 114

    compared = compare_with_log(forecaster, series, 60, 2)
    errors = np.abs(forecaster.forecasts(series, range(60, 120, 2), 2) - values[60:, 0].reshape(30, 2))
    assert (compared.windows, compared.horizon) == (30, 2)
    assert compared.mae == pytest.approx(errors.mean())
    logs = small(**{**forecaster.settings(), "transform": "log"}).fit(series.head(60), device=cpu)
    again = logs.forecasts(series, range(60, 120, 2), 2)
    assert compared.mae_log == pytest.approx(np.abs(again - values[60:, 0].reshape(30, 2)).mean())
    assert compare_with_log(forecaster, series, 120, 2) is None


def test_the_comparison_in_words():
    with command_line():
        assert "20.0% lower" in LogComparison(10.0, 8.0, 5, 1).sentence
        assert "--transform log would not help" in LogComparison(10.0, 11.0, 5, 1).sentence
        assert "no errors" in LogComparison(0.0, 1.0, 5, 1).sentence


def test_without_statsmodels(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("statsmodels.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(GruXpError, match=r"statsmodels, .*pip install 'gru-xp\[stats\]'$"):
        examine(np.arange(30.0), np.zeros(30))
