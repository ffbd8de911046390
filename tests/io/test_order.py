from itertools import groupby

import numpy as np
import pandas as pd
import pytest

from gru_xp.errors import DataError
from gru_xp.io.messages import command_line
from gru_xp.io.order import fill_missing, order_rows
from gru_xp.io.table import Table

pytestmark = pytest.mark.compat

HOWS = ("drop", "ffill", "interpolate", "mask")


# --- order --------------------------------------------------------------------------------------------------------


def test_each_time_once_as_in_plain_python(rng):
    for number in range(60):
        how = ("first", "last", "mean")[number % 3]
        keys = rng.integers(0, 12, 20).tolist()
        values = rng.standard_normal((20, 2))
        values[rng.random(values.shape) < 0.2] = np.nan
        taken = order_rows(keys).take(pd.DataFrame(values), how)
        expected = []
        for _, group in groupby(sorted(enumerate(keys), key=lambda pair: pair[1]), key=lambda pair: pair[1]):
            block = values[[row for row, _ in group]]
            known = [column[~np.isnan(column)] for column in block.T]
            mean = [column.mean() if len(column) else np.nan for column in known]
            expected.append({"first": block[0], "last": block[-1], "mean": mean}[how])
        np.testing.assert_allclose(taken, expected, rtol=1e-12, atol=1e-15, err_msg=how)
        assert [keys[row] for row in taken.index] == sorted(set(keys)), how


def test_rows_in_order_stay(rng):
    for keys in ([3], [1, 2, 5], [-1.5, 0.0, 2.0]):
        values = rng.standard_normal((len(keys), 2))
        order = order_rows(keys)
        taken = order.take(pd.DataFrame(values), None)
        np.testing.assert_array_equal(taken, values)
        assert taken.index.tolist() == list(range(len(keys)))
        assert (order.name, len(order.late), len(order.repeats)) == ("oldest-first", 0, 0), keys


def test_rows_in_another_order():
    for keys, name, rows, late in (
        ([3, 2, 1], "newest-first", [2, 1, 0], [1, 2]),
        ([3, 2, 2, 1], "newest-first", [3, 1, 0], [1, 3]),
        ([2, 1, 3], "unsorted", [1, 0, 2], [1]),
        ([2, 4, 3, 1, 5], "unsorted", [3, 0, 2, 1, 4], [2, 3]),
    ):
        order = order_rows(keys)
        assert (order.name, order.rows().tolist(), order.late.tolist()) == (name, rows, late), keys


def test_rows_that_repeat_a_time():
    for keys, repeats in (([1, 1], [1]), ([1, 5, 3, 5, 3, 3], [3, 4, 5]), ([3, 2, 2, 1], [2]), ([1, 2], [])):
        assert order_rows(keys).repeats.tolist() == repeats, keys


# --- missing values -----------------------------------------------------------------------------------------------


def place(row, column):
    return f"line {row + 2}, column {'abc'[column]}"


def fill(values, how, rows=None):
    frame = pd.DataFrame(values, rows, list("abc")[: values.shape[1]])
    filled = fill_missing(frame, how, Table("", (), range(2, 62)))
    return filled._replace(values=filled.values.to_numpy()), filled.values.index.to_numpy()


@pytest.fixture
def gappy(rng):
    """A third of the values is missing, those at the ends among them; in the last row none is."""
    values = rng.standard_normal((60, 3))
    values[rng.random(values.shape) < 1 / 3] = np.nan
    values[:2, 1] = values[-4:-1, 2] = np.nan
    values[-1] = rng.standard_normal(3)
    return values


def test_values_that_are_there_stay(gappy):
    before, first = gappy.copy(), place(*np.argwhere(np.isnan(gappy))[0])
    for how in HOWS:
        filled, rows = fill(gappy, how)
        np.testing.assert_array_equal(gappy, before, err_msg=how)
        assert np.isfinite(filled.values).all(), how
        left = gappy[rows]
        there = ~np.isnan(left)
        np.testing.assert_array_equal(filled.values[there], left[there], err_msg=how)
        assert filled.record == {"how": how, "values": np.isnan(gappy).sum(), "first": first}, how
        if how == "mask":
            np.testing.assert_array_equal(filled.observed, ~np.isnan(gappy))
        else:
            assert filled.observed is None, how


def test_what_takes_their_place(gappy):
    for column in gappy.T:
        known = np.flatnonzero(~np.isnan(column))
        at = np.arange(60)
        before = np.array([column[known[known <= row][-1]] if (known <= row).any() else np.nan for row in at])
        between = np.interp(at, known, column[known])
        for how, expected in (("ffill", before[known[0] :]), ("interpolate", between)):
            np.testing.assert_allclose(fill(column[:, None], how)[0].values[:, 0], expected, rtol=1e-12, err_msg=how)
        masked = fill(column[:, None], "mask")[0].values[:, 0]
        np.testing.assert_array_equal(masked, np.where(np.isnan(before), column[known[0]], before))
    whole = pd.DataFrame(gappy).dropna().to_numpy()
    np.testing.assert_array_equal(fill(gappy, "drop")[0].values, whole)


def test_nothing_looks_ahead_but_interpolation(gappy, rng):
    """From the first row in which every column has had a value."""
    start = int((~np.isnan(gappy)).argmax(axis=0).max())
    changed = gappy.copy()
    changed[40:] = rng.standard_normal(changed[40:].shape)
    for how in ("ffill", "mask", "drop"):
        (series, rows), (other, _) = (fill(values, how) for values in (gappy, changed))
        count = np.count_nonzero(rows < 40)
        first = np.count_nonzero(rows < start)
        np.testing.assert_array_equal(series.values[first:count], other.values[first:count], err_msg=how)
    filled = fill(gappy, "interpolate")[0]
    np.testing.assert_array_equal(filled.interpolated, np.isnan(gappy))  # so that it can be undone


def test_nothing_is_missing(rng):
    values = rng.standard_normal((5, 2))
    filled, rows = fill(values, "refuse")
    np.testing.assert_array_equal(filled.values, values)
    assert (rows.tolist(), filled.observed, filled.record, filled.notices) == ([*range(5)], None, None, ())


def test_missing_values_are_refused(gappy, refusal):
    count, (row, column) = np.isnan(gappy).sum(), np.argwhere(np.isnan(gappy))[0]
    parts = f"{place(row, column)}: ", "first of", f"{count} missing"
    refusal(lambda: fill(gappy, "refuse"), *parts, "missing='drop' or 'ffill' or 'interpolate' or 'mask'")
    with command_line():
        refusal(lambda: fill(gappy, "refuse"), *parts, "--missing drop or ffill or interpolate or mask")
    with pytest.raises(DataError, match=r"^line 3, column c"):
        fill(gappy, "refuse", np.arange(60)[::-1])


def test_nothing_but_missing_values(gappy, refusal):
    gappy[:, 1] = np.nan
    for how in ("refuse", *HOWS):
        refusal(lambda how=how: fill(gappy, how), "line 2, column b: ", "all values are missing")


def test_no_row_is_whole(refusal):
    values = np.array([[1.0, np.nan], [np.nan, 2.0]])
    refusal(lambda: fill(values, "drop"), "every row", "fewer columns")
