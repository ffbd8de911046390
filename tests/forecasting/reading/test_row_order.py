from itertools import groupby

import numpy as np
import pytest

from gru_xp.forecasting.reading.cells import CellError
from gru_xp.forecasting.reading.row_order import order_rows


def order(keys, how=None):
    return order_rows("Date", list(map(str, keys)), keys, how, "line {}".format)


@pytest.mark.parametrize("how", ["first", "last", "mean"])
def test_each_date_once_as_in_plain_python(rng, how):
    for _ in range(50):
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
        np.testing.assert_allclose(taken, expected, rtol=1e-12, atol=1e-15)
        assert [keys[row] for row in rows] == sorted(set(keys))


@pytest.mark.parametrize("keys", [[3], [1, 2, 5], [-1.5, 0.0, 2.0]])
def test_rows_in_order_stay(rng, keys):
    values = rng.standard_normal((len(keys), 2))
    rows, notices = order(keys)
    taken, chosen = rows.take(values, None)
    np.testing.assert_array_equal(taken, values)
    assert chosen.tolist() == list(range(len(keys)))
    assert notices == []


@pytest.mark.parametrize(
    ("keys", "rows", "notice"),
    [
        ([3, 2, 1], [2, 1, 0], "the rows run from new to old; they are turned round"),
        ([2, 1, 3], [1, 0, 2], "1 row(s) come after a later one, first in line 1 ('1'); the rows are sorted"),
        (
            [2, 4, 3, 1, 5],
            [3, 0, 2, 1, 4],
            "2 row(s) come after a later one, first in line 2 ('3'); the rows are sorted",
        ),
    ],
)
def test_rows_in_another_order(keys, rows, notice):
    found, notices = order(keys)
    assert found.rows.tolist() == rows
    assert notices == [notice]


@pytest.mark.parametrize(
    ("keys", "row", "before", "count"), [([1, 1], 1, 0, 1), ([1, 5, 3, 5, 3, 3], 3, 1, 3), ([3, 2, 2, 1], 2, 1, 1)]
)
def test_repeated_keys_are_refused(keys, row, before, count):
    with pytest.raises(CellError, match=rf"is in line {before} already \({count} row\(s\) repeat a date\)") as error:
        order(keys)
    assert error.value.row == row


def test_what_to_do_about_repeated_keys():
    with pytest.raises(CellError, match=r"\(1 row\(s\) repeat a date\); join the columns$"):
        order_rows("Date", ["a", "b"], [1, 1], None, "line {}".format, lambda: "join the columns")
