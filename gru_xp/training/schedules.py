"""Schedules: the learning rate of each step, as a factor of the one that is given."""

import math

SCHEDULES = ("constant", "cosine", "one-cycle")

DEFAULT_WARMUPS = {"constant": 0.0, "cosine": 0.0, "one-cycle": 0.2}
"""Which share of the steps the rate rises in, where nothing is said."""

_FIRST = 1e-3
"""Share of all steps by which the rise is ahead, so that the first step is one."""


def rate_factor(schedule: str, warmup: float, step: int, total: int) -> float:
    """Factor of the learning rate of one of `total` steps, the first of which is 0.

    Parameters
    ----------
    schedule : {"constant", "cosine", "one-cycle"}
        What comes after the rise: 1, or half a wave of the cosine, from 1 to 0 after the last step.
    warmup
        Share of the steps, from 0 to 1, in which the factor rises, along a straight line.

    Notes
    -----
    Sources: Loshchilov and Hutter (2016), arXiv:1608.03983, the cosine; Smith and Topin (2017), arXiv:1708.07120, one
    rise and one fall.
    """
    share = step / total
    if share < warmup:
        return min(1.0, (share + _FIRST) / warmup)
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (share - warmup) / (1.0 - warmup)))
