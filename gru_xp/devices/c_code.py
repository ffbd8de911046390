"""The functions that a recorded body may call, in CUDA C++, and its numbers."""

from collections.abc import Callable

import numpy as np

C_CODE: dict[str, Callable[..., str]] = {
    "add": "{} + {}".format,
    "divide": "{} / {}".format,
    "exp": "exp({})".format,
    "greater": "{} > {}".format,  # 1 or 0
    "multiply": "{} * {}".format,
    "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}".format,  # not a number if either is not
    "negative": "-{}".format,
    "sqrt": "sqrt({})".format,
    "subtract": "{} - {}".format,
    "tanh": "tanh({})".format,
    "where": "{} ? {} : {}".format,
}


def rounded(number: float, dtype: str) -> float:
    """The nearest number of a type; infinite beyond the largest one."""
    with np.errstate(over="ignore"):
        return float(np.dtype(dtype).type(number))
