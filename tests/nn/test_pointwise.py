import math
import operator

import numpy as np
import pytest

from gru_xp.devices import to_host
from gru_xp.nn.pointwise import add, divide, multiply, only_valid


def test_two_arrays_or_an_array_and_a_number(xp, draw):
    for body, operation in ((add, operator.add), (divide, operator.truediv), (multiply, operator.mul)):
        for other in ((3, 4), (4,), 0.75):
            a = draw(xp, (3, 4))
            b = other if isinstance(other, float) else draw(xp, other)
            (result,) = body(xp, a, b)
            a, result = to_host(a), to_host(result)
            b = np.broadcast_to(b if isinstance(b, float) else to_host(b), a.shape)
            for where in np.ndindex(a.shape):
                expected = operation(float(a[where]), float(b[where]))
                assert float(result[where]) == pytest.approx(expected, rel=1e-15), (body.__name__, other)


def test_invalid_rows_become_zero(xp, draw):
    """Rows that hold NaN or infinity become zero like all others."""
    for number in (2.5, 0.0, math.nan, math.inf):
        a, valid = draw(xp, (3, 4)), xp.asarray([[1.0], [0.0], [1.0]])
        a[1, :] = number
        (result,) = only_valid(xp, a, valid)
        expected = to_host(a).copy()
        expected[1] = 0.0
        assert to_host(result).tolist() == expected.tolist(), number
