import math

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.nn.ops import PLAIN_OPS
from gru_xp.nn.pointwise import add, add_into, divide, multiply, only_valid


@pytest.mark.parametrize(
    ("body", "expected"),
    [(add, lambda a, b: a + b), (divide, lambda a, b: a / b), (multiply, lambda a, b: a * b)],
    ids=["add", "divide", "multiply"],
)
@pytest.mark.parametrize("other", ["array", "row", "number"])
def test_two_arrays_or_an_array_and_a_number(xp, draw, body, expected, other):
    a = draw(xp, (3, 4))
    b = 0.75 if other == "number" else draw(xp, (3, 4) if other == "array" else (4,))
    (result,) = body(xp, a, b)
    a, result = to_host(a), to_host(result)
    b = np.broadcast_to(b if other == "number" else to_host(b), a.shape)
    for where in np.ndindex(a.shape):
        assert float(result[where]) == pytest.approx(expected(float(a[where]), float(b[where])), rel=1e-15)


@pytest.mark.parametrize("number", [2.5, 0.0, math.nan, math.inf])
def test_what_is_not_valid_is_zero_whatever_stands_there(xp, draw, number):
    a, valid = draw(xp, (3, 4)), xp.asarray([[1.0], [0.0], [1.0]])
    a[1, :] = number
    (result,) = only_valid(xp, a, valid)
    expected = to_host(a).copy()
    expected[1] = 0.0
    assert to_host(result).tolist() == expected.tolist()


def test_add_into_writes_into_the_first_array(xp, draw):
    total, a = draw(xp, (3, 4)), draw(xp, (3, 4))
    before = to_host(total).copy(), to_host(a).copy()
    add_into(total, a, PLAIN_OPS)
    np.testing.assert_allclose(to_host(total), before[0] + before[1], rtol=1e-15)
    assert to_host(a).tolist() == before[1].tolist()
