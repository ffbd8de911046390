from itertools import groupby

import numpy as np
import pytest

from gru_xp.forecasting.reading.cells import CellError
from gru_xp.forecasting.reading.row_order import order_rows

pytestmark = pytest.mark.compat


def order(keys, how=None):
    return order_rows("Date", list(map(str, keys)), keys, how, "line {}".format)


def test_each_date_once_as_in_plain_python(rng):
    for number in range(60):
        how = ("first", "last", "mean")[number % 3]
        keys = rng.integers(0, 12, 20).tolist()
        values = rng.standard_normal((20, 2))
        values[rng.random(values.shape) < 0.2] = np.nan
        taken, rows = order(keys, how)[0].take(values, how)
        expected = []
        for _, group in groupby(sorted(enumerate(keys), key=lambda pair: pair[1]), key=lambda pair: pair[1]):
            block = values[[row for row, _ in group]]
            known = [column[~np.isnan(column)] for column in block.T]
            mean = [column.mean() if len(column) else np.nan for column in known]
            expected.append({"first": block[0], "last": block[-1], "mean": mean}[how])
        np.testing.assert_allclose(taken, expected, rtol=1e-12, atol=1e-15, err_msg=how)
        assert [keys[row] for row in rows] == sorted(set(keys)), how


def test_rows_in_order_stay(rng):
    for keys in ([3], [1, 2, 5], [-1.5, 0.0, 2.0]):
        values = rng.standard_normal((len(keys), 2))
        rows, notices = order(keys)
        taken, chosen = rows.take(values, None)
        np.testing.assert_array_equal(taken, values)
        assert chosen.tolist() == list(range(len(keys)))
        assert notices == [], keys


def test_rows_in_another_order():
    for keys, rows, *parts in (
        ([3, 2, 1], [2, 1, 0]),
        ([2, 1, 3], [1, 0, 2], "1 row", "line 1 ('1')", "sorted"),
        ([2, 4, 3, 1, 5], [3, 0, 2, 1, 4], "2 row", "line 2 ('3')", "sorted"),
    ):
        found, (notice,) = order(keys)
        assert found.rows.tolist() == rows, keys
        assert all(part in notice for part in parts), (keys, notice)
        assert ("sorted" in notice) == bool(parts), (keys, notice)


def test_repeated_keys_are_refused(refusal):
    for keys, row, before, count in (([1, 1], 1, 0, 1), ([1, 5, 3, 5, 3, 3], 3, 1, 3), ([3, 2, 2, 1], 2, 1, 1)):
        error = refusal(lambda keys=keys: order(keys), f"line {before} ", f"{count} row", error=CellError)
        assert error.row == row, keys


def test_what_to_do_about_repeated_keys(refusal):
    use = lambda: order_rows("Date", ["a", "b"], [1, 1], None, "line {}".format, lambda: "join the columns")  # noqa: E731
    assert str(refusal(use, "1 row", error=CellError)).endswith("; join the columns")
