import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError
from gru_xp.forecasting.reading.missing import treat_missing

pytestmark = pytest.mark.compat


def place(row, column):
    return f"line {row + 2}, column {'abc'[column]}"


@pytest.fixture
def gappy(rng):
    """A third of the values is missing, those at the ends among them; in the last row none is."""
    values = rng.standard_normal((60, 3))
    values[rng.random(values.shape) < 1 / 3] = np.nan
    values[:2, 1] = values[-4:-1, 2] = np.nan
    values[-1] = rng.standard_normal(3)
    return values


def test_the_ways_are_those_of_pandas(gappy):
    frame = pd.DataFrame(gappy)
    np.testing.assert_array_equal(treat_missing(gappy, "drop", place).values, frame.dropna().to_numpy())
    np.testing.assert_array_equal(treat_missing(gappy, "ffill", place).values, frame.ffill().dropna().to_numpy())
    np.testing.assert_array_equal(treat_missing(gappy, "mask", place).values, frame.ffill().bfill().to_numpy())
    expected = frame.interpolate(limit_direction="both").to_numpy()
    np.testing.assert_allclose(treat_missing(gappy, "interpolate", place).values, expected, rtol=1e-12)


def test_values_that_are_there_stay(gappy):
    before = gappy.copy()
    for how in ("drop", "ffill", "interpolate", "mask"):
        treated = treat_missing(gappy, how, place)
        np.testing.assert_array_equal(gappy, before, err_msg=how)
        assert np.isfinite(treated.values).all(), how
        left = gappy[treated.rows]
        there = ~np.isnan(left)
        np.testing.assert_array_equal(treated.values[there], left[there], err_msg=how)
        assert treated.record["values"] == np.isnan(gappy).sum(), how
        if how == "mask":
            np.testing.assert_array_equal(treated.observed, ~np.isnan(gappy))
        else:
            assert treated.observed is None, how


def test_nothing_looks_ahead_but_for_what_says_so(gappy, rng):
    """From the first row in which every column has had a value."""
    start = int((~np.isnan(gappy)).argmax(axis=0).max())
    changed = gappy.copy()
    changed[40:] = rng.standard_normal(changed[40:].shape)
    for how in ("ffill", "mask", "drop"):
        series, other = (treat_missing(values, how, place) for values in (gappy, changed))
        rows = np.arange(60)[series.rows]
        count = np.count_nonzero(rows < 40)
        first = np.count_nonzero(rows < start)
        np.testing.assert_array_equal(series.values[first:count], other.values[first:count], err_msg=how)
    assert "later ones" in treat_missing(gappy, "interpolate", place).notices[0]


def test_nothing_is_missing(rng):
    values = rng.standard_normal((5, 2))
    treated = treat_missing(values, "refuse", place)
    assert treated.values is values
    assert (treated.rows, treated.observed, treated.record, treated.notices) == (slice(None), None, None, ())


def test_refused(gappy, refusal):
    count, (row, column) = np.isnan(gappy).sum(), np.argwhere(np.isnan(gappy))[0]
    refusal(lambda: treat_missing(gappy, "refuse", place), f"{place(row, column)}: ", "first of", f"{count} missing")
    order = np.arange(60)[::-1].tolist()
    with pytest.raises(DataError, match=r"^line 58, column|^line 60, column"):
        treat_missing(gappy, "refuse", place, order)


def test_nothing_but_missing_values(gappy, refusal):
    gappy[:, 1] = np.nan
    for how in ("refuse", "drop", "ffill", "interpolate", "mask"):
        refusal(lambda how=how: treat_missing(gappy, how, place), "line 2, column b: ", "all values are missing")


def test_no_row_is_whole(refusal):
    values = np.array([[1.0, np.nan], [np.nan, 2.0]])
    refusal(lambda: treat_missing(values, "drop", place), "every row", "fewer columns")
