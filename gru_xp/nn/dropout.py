"""Random factors that make a network learn with parts of it missing, drawn on the host from a seed."""

import math
import random
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from array_api_compat import array_namespace, device, is_array_api_obj

from gru_xp.errors import ArgumentError
from gru_xp.nn.checks import generator, rate, shown, whole_number
from gru_xp.nn.scan import Array, on_its_device

_BITS = 32


class DropoutRates(NamedTuple):
    """How often what is left out in training, from 0, never, to below 1.

    Attributes
    ----------
    between
        Elements of what one layer hands on to the next, at each step anew.
    recurrent
        Elements of the candidate, the same at all steps of a sequence; see `gru_forward`, `candidate_mask`.
    zoneout
        Updates of elements of the state, at each step anew; see `gru_forward`, `update_mask`.
    """

    between: float = 0.0
    recurrent: float = 0.0
    zoneout: float = 0.0

    def check(self) -> None:
        """Raise ValueError unless each is at least 0 and below 1."""
        for name, value in zip(("dropout", "recurrent_dropout", "zoneout"), self, strict=True):
            rate(name, value)


@on_its_device
def dropout_mask(shape: tuple[int, ...], dropout: float, *, seed: int | random.Random, like: Array) -> Array:
    """Factors that leave out elements at random: 0 with probability `dropout`, else ``1 / (1 - dropout)``.

    So their mean is 1 and a prediction needs none (*inverted* dropout). Source: Srivastava et al. (2014), Journal of
    Machine Learning Research 15:1929-1958, section 10.

    Parameters
    ----------
    shape
        Of the factors.
    dropout
        From 0 to below 1.
    seed
        A seed, or a generator to draw from. One seed gives the same factors in every namespace.
    like
        An array with the namespace, dtype and device of the result.

    Returns
    -------
    array

    Raises
    ------
    ArgumentError
        `dropout`, `seed` or `shape` is out of range, or `like` is not a floating-point array.

    Examples
    --------
    >>> import numpy as np
    >>> dropout_mask((2, 3), 0.5, seed=0, like=np.ones(1)).max()
    np.float64(2.0)
    """
    dropout = rate("dropout", dropout)
    return keep_mask(shape, dropout, seed=seed, like=like) / (1.0 - dropout)


@on_its_device
def keep_mask(shape: tuple[int, ...], zoneout: float, *, seed: int | random.Random, like: Array) -> Array:
    """Factors of updates: 0 with probability `zoneout`, else 1; see `dropout_mask` for the rest."""
    zoneout = rate("zoneout", zoneout)
    rng = generator(seed)
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        raise ArgumentError(f"shape is {shown(shape)}; it must be a tuple of whole numbers")
    shape = tuple(whole_number("shape", size, 0) for size in shape)
    if not is_array_api_obj(like):
        raise ArgumentError(f"like is a {type(like).__name__}; it must be an array")
    xp = array_namespace(like)
    if like.dtype not in (xp.float32, xp.float64):
        raise ArgumentError(f"like has dtype {like.dtype}; it must be float32 or float64")
    try:
        drawn = array("i", rng.randbytes(math.prod(shape) * _BITS // 8))
    except (MemoryError, OverflowError) as error:
        raise ArgumentError(f"shape is {shown(shape)}, which does not fit into memory; use a smaller one") from error
    numbers = xp.reshape(xp.asarray(drawn, dtype=xp.int32, device=device(like)), shape)
    zeros = min(round(zoneout * 2**_BITS), 2**_BITS - 1)  # of 2**_BITS numbers
    return xp.astype(numbers >= zeros - 2 ** (_BITS - 1), like.dtype)
