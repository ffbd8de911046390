"""Sums of products over all windows of a series, without looking at each window."""

import numpy as np

from gru_xp.io.table import Floats


def sum_products(values: Floats, length: int) -> Floats:
    """Sum ``v v^T`` over all windows ``v`` of `length` values.

    The sum of the products of values `a` and `b` of all windows becomes that of `a + 1` and `b + 1` when the first
    product is taken off and the one after the last is added.

    Parameters
    ----------
    values : array, shape ``(N,)``

    Returns
    -------
    array, shape ``(length, length)``
    """
    n = len(values) - length + 1
    total = np.empty((length, length))
    total[0] = np.correlate(values, values[:n])
    leaving, coming = values[: length - 1], values[n:]
    for a in range(length - 1):
        total[a + 1, a + 1 :] = total[a, a:-1] + (coming[a] * coming[a:] - leaving[a] * leaving[a:])
    upper = np.triu(total)
    return upper + np.triu(total, 1).T


def sum_relative_products(changes: Floats, length: int, reference: int) -> Floats:
    """Sum ``v v^T`` over all windows of `length` values, each relative to its value number `reference`.

    Values are sums of changes from row to row, and so their products are sums of products of changes: unlike the
    difference of large sums, that loses nothing where the level is far from 0, or moves.

    Parameters
    ----------
    changes : array, shape ``(N - 1,)``
        From each value to the next one.
    length
        At least 2.

    Returns
    -------
    array, shape ``(length, length)``
    """
    total = np.zeros((length, length))
    total[1:, 1:] = sum_products(changes, length - 1)  # row and column k: the change from value k - 1 to value k
    for _ in range(2):  # rows, then columns
        summed = np.zeros_like(total)
        np.cumsum(total[reference + 1 :], axis=0, out=summed[reference + 1 :])
        summed[:reference] = -np.cumsum(total[reference:0:-1], axis=0)[::-1]
        total = summed.T
    return total
