"""What to do about missing values: five ways, of which refusing them is the default."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gru_xp.errors import DataError
from gru_xp.forecasting.windows import Floats

Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Treated(NamedTuple):
    """Values without gaps: the rows of them that are left, what is marked as missing, and what was done."""

    values: Floats
    rows: slice | Flags = slice(None)
    observed: Flags | None = None
    record: dict[str, Any] | None = None
    notices: tuple[str, ...] = ()


def treat_missing(
    values: Floats,
    how: str,
    place: Callable[[int, int], str],
    order: Sequence[int] | None = None,
    remedy: str = "fill it in, or give --missing drop, ffill, interpolate or mask",
) -> Treated:
    """Do what `how` says about missing values.

    Parameters
    ----------
    values : array, shape ``(N, F)``
        Rows in the order of time; missing values are NaN.
    how : {"refuse", "drop", "ffill", "interpolate", "mask"}
        See `ReadOptions`.
    place
        How to call row and column, by number, in a message.
    order
        The position of each row in its file, to tell which missing value is the first there; None for that of `values`.
    remedy
        What to do where they are refused.

    Raises
    ------
    DataError
        Values are missing, and `how` is to refuse them; or a column has no others.
    """
    observed = ~np.isnan(values)
    if observed.all():
        return Treated(values)
    gaps = np.argwhere(~observed).tolist()
    first = place(*min(gaps, key=lambda gap: (gap[0] if order is None else order[gap[0]], gap[1])))
    if not observed.any(axis=0).all():
        raise DataError(
            f"{place(0, int(observed.any(axis=0).argmin()))}: all values are missing; choose another column"
        )
    if how == "refuse":
        which = f"the first of {len(gaps)} missing values" if len(gaps) > 1 else "the only missing one"
        raise DataError(f"{first}: the value is missing, {which}; {remedy}")
    what = f"{len(gaps)} missing values, the first in" if len(gaps) > 1 else "1 missing value, in"
    record = {"how": how, "values": len(gaps), "first": first}
    treated, done = _WAYS[how](values, observed)
    return treated._replace(record=record, notices=(f"{what} {first}: {done}",))


def _drop(values: Floats, observed: Flags) -> tuple[Treated, str]:
    rows = np.asarray(observed.all(axis=1))
    if not rows.any():
        raise DataError("every row has a missing value; choose fewer columns, or fill the values in")
    return Treated(values[rows], rows), f"{np.count_nonzero(~rows)} row(s) left out"


def _ffill(values: Floats, observed: Flags) -> tuple[Treated, str]:
    start = int(observed.argmax(axis=0).max())
    done = "the last value before is taken"
    if start:
        done += f"; {start} row(s) at the start, with none before, are left out"
    return Treated(_last_known(values, observed)[start:], slice(start, None)), done


def _interpolate(values: Floats, observed: Flags) -> tuple[Treated, str]:
    rows = np.arange(len(values))
    filled = values.copy()
    for column, known in zip(filled.T, observed.T, strict=True):
        column[~known] = np.interp(rows[~known], rows[known], column[known])
    return Treated(filled), "filled in between the values before and after, so that these rows know later ones"


def _mask(values: Floats, observed: Flags) -> tuple[Treated, str]:
    return Treated(_last_known(values, observed), observed=observed), "marked as missing"


def _last_known(values: Floats, observed: Flags) -> Floats:
    """Each value, or the last known one before it, or the first known one."""
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(observed, rows, -1), axis=0)
    filled: Floats = np.take_along_axis(values, np.where(last < 0, observed.argmax(axis=0), last), axis=0)
    return filled


_WAYS: dict[str, Callable[[Floats, Flags], tuple[Treated, str]]] = {
    "drop": _drop,
    "ffill": _ffill,
    "interpolate": _interpolate,
    "mask": _mask,
}
