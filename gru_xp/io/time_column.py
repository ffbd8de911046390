"""Which columns date the rows of a table, and what the table itself says against the order of its rows."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from itertools import combinations, takewhile
from operator import ne
from typing import Any, NamedTuple

import numpy as np

from gru_xp.io.dates import Dates, digit_formats, is_full_date, may_be_date, read_dates, short_year_formats
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Floats, Table

_DAY_NAMES = ("date", "dates", "datetime")
_TIME_NAMES = (*_DAY_NAMES, "timestamp", "ds", "time")
_COUNTER_NAMES = (*_TIME_NAMES, "", "index", "unnamed", "no", "nr", "row", "level", "t", "step", "period")
_TIME_WORD = re.compile("date|time|stamp|epoch|unix", re.IGNORECASE)
_PARTS = {"year": "year yr yyyy", "month": "month mo mon quarter qtr", "day": "day dy dd"}
_PARTS |= {"hour": "hour hours hr hh he time clock", "minute": "minute min"}
_CLOCK = {"hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
_QUARTER = re.compile("quarter|qtr", re.IGNORECASE)
_WEEK = re.compile(r"(?<![a-z])(weeks?|wk)(?![a-z])", re.IGNORECASE)
_YEAR_WEEK = re.compile(r"\d{4}[-/]\d\d?|\d\d?[-/]\d{4}")
_DOTTED_CLOCK = re.compile(r"([01]?\d|2[0-3])\.[0-5]\d(\.[0-5]\d)?")
_SAMPLE, _MAX_KEYS = 100, 8


class Times(NamedTuple):
    """What dates the rows: columns, what they say of each row, the dates that it means, and what sorts the rows."""

    names: tuple[str, ...]
    labels: Sequence[str]
    dates: Dates | None
    keys: Sequence[Any]


# --- the column ---------------------------------------------------------------------------------------------------


def find_times(table: Table, how: ReadOptions, used: Collection[str]) -> Times | None:
    """Find what dates the rows, among the columns that are not `used` otherwise.

    It is the column that the options name; else the one called date, datetime, timestamp, ds or time; else the first
    one, if all of its cells are dates; else the only one whose cells are all days with their year; else one that its
    name and its numbers show to count the rows.

    Raises
    ------
    DataError
        The column has dates that are not certain, or neither dates nor numbers.
    """
    names = tuple(table.column(name).name for name in how.time) or _find(table, how.date_format, used)
    if not names:
        return None
    try:
        labels, form = _join(table, names, how.date_format)
        if how.date_format is None and _WEEK.search(names[0]) and all(map(_YEAR_WEEK.fullmatch, labels)):
            raise CellError(0, f"{quoted(labels[0])} may be a week or a month; write weeks as 2024-W01")
        is_time = bool(how.time or _TIME_WORD.search(names[0]))
        dates = read_dates(labels, form or _digit_format(labels), table.where, is_time=is_time)
        if dates is None and not how.time:
            refuse_wide(table)
        return Times(names, labels, dates, dates.keys if dates else _counter(names[0], labels))
    except CellError as error:
        raise table.cell_refusal(names[0], error) from error


def _find(table: Table, date_format: str | None, used: Collection[str]) -> tuple[str, ...]:
    """The name of the column that dates the rows; none if there is no saying."""
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if not free or len(table.columns) == 1:
        return ()
    named = [column for name in _TIME_NAMES for column in free if _letters(column.name) == name]
    others = [column for column in free if column is table.columns[0] or date_format is not None]
    found = [column for column in (*named, *others) if _has_dates(column, date_format)]
    if not found:
        days = _columns_of_days(free)
        found = days if len(days) == 1 else named if date_format is None else [*named, *others]
    if not found and not tell_rows_apart(table, None, used).values:
        found = [column for column in free if _is_counter_name(column.name) and _counts_up(column)]
    return tuple(column.name for column in found[:1])


def _has_dates(column: Column, date_format: str | None) -> bool:
    """Whether a column has dates: most cells of a sample, or, where they are numbers, all cells."""
    sample = _labels(column.cells[:_SAMPLE])
    if date_format is not None or not all(may_be_number(label) or is_missing(label) for label in sample):
        return 2 * sum(may_be_date(label, date_format) for label in sample) > len(sample)
    labels = _labels(column.cells)
    if all(re.fullmatch(r"\d{4}", label) for label in labels):
        return _letters(column.name) in ("year", *_TIME_NAMES) or set(np.diff(_numbers(labels))) in ({1}, {-1})
    is_epoch = _TIME_WORD.search(column.name) and len(sample[0]) >= 10 and may_be_date(sample[0], is_time=True)
    return bool(is_epoch) or _digit_format(labels) is not None


def _columns_of_days(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.numbers is None and all(map(is_full_date, _labels(column.cells)))]


def _counts_up(column: Column) -> bool:
    """Whether a column has whole numbers that rise, so that they may count or date the rows."""
    numbers = _numbers(column.cells)
    return bool((np.floor(numbers) == numbers).all() and (np.diff(numbers) > 0).all())


def _join(table: Table, names: Sequence[str], date_format: str | None) -> tuple[list[str], str | None]:
    """What the columns say of each row, one after the other, and the format that reads it.

    Hours and minutes that are numbers are added to the date, which then is in ISO 8601.
    """
    labels = _labels(table.column(names[0]).cells)
    for name in names[1:]:
        cells, part = _labels(table.column(name).cells), _part(name)
        unit = _CLOCK.get(part, timedelta())
        is_count = unit and all(cell.isdecimal() and int(cell) * unit <= timedelta(days=1) for cell in cells)
        if is_count and (dates := read_dates(labels, date_format, table.where)):
            labels = [str(date + int(cell) * unit) for date, cell in zip(dates.values, cells, strict=True)]
            date_format = None
            continue
        if all(map(_DOTTED_CLOCK.fullmatch, cells)):
            cells = [cell.replace(".", ":") for cell in cells]
        sign = " " if unit or not part else "-Q" if _QUARTER.search(name) and cells[0].isdecimal() else "-"
        labels = [f"{label}{sign}{cell}" for label, cell in zip(labels, cells, strict=True)]
    return labels, date_format


def _digit_format(labels: Sequence[str]) -> str | None:
    """The one format of dates in digits alone that reads all labels, if it has the year first."""
    forms = digit_formats(labels) if digit_formats(labels[:_SAMPLE]) else ()
    return forms[0] if len(forms) == 1 and forms[0].startswith("%Y") else None


def _counter(name: str, labels: Sequence[str]) -> Sequence[Any]:
    """What sorts labels that are no dates: numbers, or times of one day, which rise."""
    clocks = read_dates([f"2000-01-01 {label}" for label in labels]) if ":" in labels[0] else None
    keys: Sequence[Any] = clocks.values if clocks else _numbers(labels).tolist()
    forms = short_year_formats(labels) or digit_formats(labels[:_SAMPLE])
    by_format = f"say how to read them by {option('date_format')}"
    remedy = f"give {option('date_format', *forms)}" if forms else f"write dates as 2020-01-31, or {by_format}"
    is_day = _letters(name) in _DAY_NAMES
    for row, key in enumerate(keys):
        if key != key or (is_day and re.fullmatch(r"\d{5,8}", labels[row])):  # NaN, or not to be told from a date
            raise CellError(row, f"{quoted(labels[row])} was not read as a date; {remedy}")
        if row and (is_day or clocks) and key <= keys[row - 1]:
            what = f"{quoted(labels[row])} comes after {quoted(labels[row - 1])}"
            raise CellError(row, f"{what}, so that the column does not date the rows; {remedy}")
    return keys


# --- what tells rows apart ----------------------------------------------------------------------------------------


class Apart(NamedTuple):
    """What tells rows apart that seem to be of the same time: what to say, and the option that takes it into account.

    All are empty where nothing does.
    """

    message: str = ""
    option: str = ""
    values: Sequence[str] = ()


def tell_rows_apart(table: Table, times: Times | None, used: Collection[str]) -> Apart:
    """Find columns that the time is spread over, or else those that tell several series apart."""
    names = times.names if times else ()
    free = [column for column in table.columns if column.name not in used]
    if parts := _parts_of_time([column.name for column in free], names):
        found = f"the time is spread over {len(parts)} columns ({listed(parts)})"
        return Apart(f"{found}; give {options('time', parts)}", "time", parts)
    keys = _keys([column for column in free if column.name not in names])
    labels = times.labels if times else ()
    if not times and keys:  # the time is the one that counts, or changes most often
        time = max(keys, key=lambda key: (_is_counter_name(key.name), sum(map(ne, key.cells, key.cells[1:]))))
        keys.remove(time)
        labels = time.cells
    for some in (*combinations(keys, 1), *combinations(keys, 2)):
        if not all(_part(key.name) for key in some) and _are_unique([labels, *(key.cells for key in some)]):
            kinds = listed(dict.fromkeys(some[0].cells), 3)
            found = f"several series found (column{'s' * (len(some) > 1)} {listed(key.name for key in some)}: {kinds})"
            values = [f"{key.name}={key.cells[0].strip()}" for key in some]
            return Apart(f"{found}; keep one by {options('where', values)}", "where", values)
    return Apart()


def repeats_remedy(table: Table, times: Times, used: Collection[str]) -> str:
    """What to do about rows of the same time."""
    one_row = f"keep one row of each time, or give {option('on_duplicate', 'first', 'last', 'mean')}"
    return tell_rows_apart(table, times, used).message or one_row


def _keys(columns: Sequence[Column]) -> list[Column]:
    """The columns that may tell series apart: texts or whole numbers, each several times."""

    def is_key(cell: str) -> bool:
        return not is_missing(cell) and (cell.strip().isdecimal() or not may_be_number(cell))

    keys = [column for column in columns[:_SAMPLE] if all(map(is_key, column.cells[:_SAMPLE]))]
    return [column for column in keys if 1 < len(set(column.cells)) <= len(column.cells) / 2][:_MAX_KEYS]


def _are_unique(columns: Sequence[Sequence[str]]) -> bool:
    """Whether no two rows are alike in all columns; the first thousand are looked at first."""
    parts = ([cells[:end] for cells in columns] for end in (1000, None))
    return all(len({*zip(*part, strict=True)}) == len(part[0]) for part in parts)


def _parts_of_time(names: Sequence[str], times: Sequence[str]) -> list[str]:
    """The columns that a time is spread over: year, month and so on, or a date, such as in `times`, and hours."""
    calendar = _first_parts(names, _PARTS)
    clock = _first_parts([name for name in names if name not in times], _CLOCK)
    parts = calendar if set(times) <= set(calendar) else [*times, *clock]
    return parts if len(parts) > max(len(times), 1) else []


def _first_parts(names: Sequence[str], parts: Iterable[str]) -> list[str]:
    """The columns of the first parts of a time, as far as there are any; of a month rather than a quarter."""
    preferred = sorted(names, key=lambda name: bool(_QUARTER.search(name)))
    by_part = {_part(name): name for name in reversed(preferred)}
    return [by_part[part] for part in takewhile(by_part.__contains__, parts)]


# --- what speaks against the order --------------------------------------------------------------------------------


def check_order(table: Table, used: Collection[str]) -> str:
    """See whether rows without dates may be in chronological order; the result is what to say of them.

    Raises
    ------
    DataError
        The columns are times, a counter falls or repeats, or several series are one below the other.
    """
    as_is = f"if the rows are in chronological order, give {option('order', 'oldest-first')}"
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    refuse_wide(table)
    if apart := tell_rows_apart(table, None, used).message:
        raise table.refusal(f"{apart}; {as_is}")
    for column in free:
        row, problem = _order_problem(column) if column is table.columns[0] or is_index(column.name) else (0, "")
        if problem:
            raise table.cell_refusal(column.name, CellError(row, f"{problem}, or, {as_is}"))
    looked = f"column {quoted(free[0].name)} was not read as dates" if free else "there is no other column"
    if len(days := [column.name for column in _columns_of_days(free)]) > 1:
        looked = f"{len(days)} columns look like dates: {listed(days)}"
    return f"no column dates the rows ({looked}); they are taken as oldest first; {option('time', 'NAME')} names one"


def refuse_wide(table: Table) -> None:
    """Raise DataError where columns are times: one series a row."""
    others = table.names[1:]
    times = [name for name in table.names if is_full_date(name) or short_year_formats([name])]
    if len(times) < 3 and len(set(table.columns[0].cells)) == len(table):  # each row has a name, and numbers after it
        numbered = Counter(re.sub(r"\d+$", "", name) for name in others if name[-1:].isdecimal())
        times = [name for name in others if 2 * numbered[re.sub(r"\d+$", "", name)] > len(others) + 1]
    if len(times) >= 3:
        what = f"{len(times)} columns are times ({listed(times, 3)}): one series a row"
        raise table.refusal(f"{what}; transpose the table, so that there is one row for each time")


def _order_problem(column: Column) -> tuple[int, str]:
    """What a column shows that counts or dates the rows, in whatever words, but falls or repeats, and in which row."""
    cells = [cell.strip().removesuffix(".0") for cell in column.cells]
    runs = [re.findall(r"\d{1,15}", cell) for cell in cells]
    has_fractions = re.search(r"\d[.,]\d", cells[0]) and not _part(column.name)
    if len(runs) < 3 or not runs[0] or len(set(map(len, runs))) > 1 or has_fractions:
        return 0, ""
    steps = np.diff(np.array(runs, dtype=np.int64), axis=0)
    (usual, count), *_ = Counter(steps[:, -1].tolist()).most_common(1)
    if steps.shape[1] == 1 and (usual == 0 or 2 * count <= len(steps)):
        return 0, ""  # such as whole numbers that are values
    falls, rises = (steps < 0).sum(axis=0), (steps > 0).sum(axis=0)
    if (falls > 2 * rises).any() and not (rises > 2 * falls).any():
        what = f"falls, from {quoted(cells[0])} to {quoted(cells[-1])}"
        remedy = f"give {option('order', 'newest-first')} if the rows are newest-first"
        return int((steps < 0).any(axis=1).argmax()) + 1, f"{what}; {remedy}"
    first = {cell: row for row, cell in reversed([*enumerate(cells)])}
    row = next((row for row, cell in enumerate(cells) if first[cell] < row), 0)
    what = f"{quoted(cells[row])} repeats, so that the column does not date the rows"
    return row, f"{what}; name one by {option('time', 'NAME')}" if row else ""


# --- cells and names ----------------------------------------------------------------------------------------------


def _labels(cells: Sequence[str]) -> list[str]:
    """The cells with single spaces."""
    return [" ".join(cell.split()) for cell in cells]


def _numbers(cells: Sequence[str]) -> Floats:
    """The numbers of cells, NaN for others."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return numbers.replace([np.inf, -np.inf], np.nan).to_numpy(np.float64)


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower()) or name


def is_index(name: str) -> bool:
    """Whether a column numbers or dates the rows, as its name has it."""
    return _letters(name) == "id" or _is_counter_name(name)


def _is_counter_name(name: str) -> bool:
    return _letters(name) in _COUNTER_NAMES or bool(_part(name) or _WEEK.search(name))


def _part(name: str) -> str:
    """The part of a time that a column says, as its name has it; empty for none."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    return next((part for part, known in _PARTS.items() if not words.isdisjoint(known.split())), "")
