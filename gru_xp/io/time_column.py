"""Which columns date the rows of a table, and what the table itself says against the order of its rows."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import combinations, pairwise, takewhile
from math import prod
from operator import ne
from typing import Any, NamedTuple

import numpy as np

from gru_xp.errors import DataError, printable
from gru_xp.io.dates import Dates, date_remedy, digit_formats, is_full_date, may_be_date, read_dates, short_year_formats
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.order import order_rows
from gru_xp.io.table import Column, Floats, Rows, Table, Where, stored_rows

_SAMPLE = 100
"""Cells, or columns, that are looked at first."""

_CLOCK = ("hour", "minute")
_SPREADS = (("year", "month", "day", *_CLOCK), ("year", "day of year", *_CLOCK), ("year", "quarter"))
_ORDER = ("year", "quarter", "month", "day of year", "day", *_CLOCK)
_FILLERS = {"ending", "end", "start", "of", "the", "local", "utc", "num", "number", "settlement", "iso"}
_NEEDLESS = ("  ", "\n", "\t", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f")
_MAX_KEYS = 8
_TIME_WORD = re.compile("date|time|stamp|epoch|unix|^ts$", re.IGNORECASE)
_YEAR_WEEK = re.compile(r"\d{4}[-/]\d\d?|\d\d?[-/]\d{4}")
_YEAR_POINT_MONTH = re.compile(r"(1[89]|2[01])\d\d\.(0?[1-9]|1[0-2])")
_WHOLE_HOUR = re.compile(r".* \d\d?:00")
_HOURS = [{*range(24)}, {*range(1, 25)}, {*range(0, 2400, 100)}, {*range(100, 2500, 100)}]
_SERIES_NAME = re.compile(
    r"(?i)(?:\b|_)(id|series|store|shop|station|sensor|unit|item|product|group|customer|meter|device|site)s?$"
)
_SOME_DIGITS = re.compile(r"\d{5,8}")
_PART_OF_DATE = re.compile(r"\d\d?\.?(?:1[89]|2[01])\d\d|(?:[0-2]\d|3[01])\.(?:0[1-9]|1[0-2])")
_MONTH_FIRST = re.compile(r"(0[1-9]|1[0-2])\.?(1[89]|2[01])\d\d")
_IN_ONE_COLUMN = "write it in one column, such as 2020-01-31 23:30 or 2020-W05"
_JOINTS = {"month": "{}-{}", "quarter": "{}-Q{}", "day of year": "{}-{:0>3}", "day": "{}-{}", "minute": "{}:{}"}
"""By the part of a time that a column has: how it is added to what is before it."""


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
    names = tuple(table.column(name).name for name in how.time) or _find(table, how, used)
    if not names:
        return None
    if not used and "close" not in map(str.casefold, table.names):
        refuse_wide(table, has_times=True)
    if how.time and (taken := [name for name in names if name in used]):
        raise table.refusal(f"column {quoted(taken[0])} is the target; name another one by {option('time')}")
    try:
        labels, form = _join(table, names, how.date_format)
        if how.date_format is None:
            _refuse_ambiguous(names[0], labels)
        is_time = bool(how.time or _TIME_WORD.search(names[0]))
        are_dates = form is not None or not _have_four_digits(labels) or _are_years(names[0], labels, is_time)
        form = form or _digit_format(labels)
        dates = read_dates(labels, form, table.where, is_time=is_time) if are_dates else None
        return Times(names, labels, dates, dates.keys if dates else _read_counter(names, labels))
    except CellError as error:
        raise table.cell_refusal(names[0], error) from error


def _find(table: Table, how: ReadOptions, used: Collection[str]) -> tuple[str, ...]:
    """The name of the column that dates the rows; empty if no column does."""
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if not free or len(table.columns) == 1:
        return ()
    named = [column for column in free if "time" in _meanings(column.name)]
    named.sort(key=lambda column: "date" not in _meanings(column.name))
    likely = [*named, *(free if how.date_format is not None else _first_columns(table, free))]
    found = [column for column in likely if _has_dates(column, how.date_format)]
    if not found:
        days = _columns_of_days(free)
        found = days if len(days) == 1 else named if how.date_format is None else likely
    if not found and how.order is None:
        refuse_wide(table, has_times=False)
        # if no target is named, a column of numbers may be it
        others = [c for c in free if used or _is_counter(c.name) or not may_be_number(c.cells[0])]
        if not tell_rows_apart(table, None, used).values and not any(_order_problems(table, others)):
            found = [c for c in free if _is_counter(c.name) and counts_rows(c)]
    return tuple(column.name for column in found[:1])


def _has_dates(column: Column, date_format: str | None) -> bool:
    """Whether a column has dates: most cells of a sample, or, where they are numbers, all cells."""
    sample = _labels(column.cells[:_SAMPLE])
    if date_format is not None or not all(may_be_number(label) or is_missing(label) for label in sample):
        may_be = _is_date if date_format is None else partial(may_be_date, date_format=date_format)
        return 2 * sum(map(may_be, sample)) > len(sample)
    labels = _labels(column.cells)
    if _have_four_digits(labels):
        return _are_years(column.name, labels, "time" in _meanings(column.name))
    is_epoch = _TIME_WORD.search(column.name) and len(sample[0]) >= 10 and may_be_date(sample[0], is_time=True)
    return bool(is_epoch or _are_months(labels) or _digit_format(labels))


def _have_four_digits(labels: Sequence[str]) -> bool:
    return all(len(label) == 4 and label.isdecimal() for label in labels)


def _are_years(name: str, labels: Sequence[str], is_time: bool) -> bool:
    """Whether numbers of four digits are years by their name, by their steps, or as likely ones that are a time."""
    if "year" in _meanings(name):
        return True
    steps = {later - label for label, later in pairwise(map(int, labels))}
    likely = [1800 <= int(label) < 2200 for label in labels]
    may_be_months = max(map(abs, steps), default=0) > 80 and all(may_be_date(label, "%y%m") for label in labels)
    return any(likely) and (steps in ({1}, {-1}) or (is_time and all(likely) and not may_be_months))


def _are_months(labels: Sequence[str]) -> bool:
    """Whether numbers may be years and months: 1950.01, or 1950.9 and 1950.10."""
    return all(map(_YEAR_POINT_MONTH.fullmatch, labels)) and any(len(label) == 7 for label in labels)


def _refuse_ambiguous(name: str, labels: Sequence[str]) -> None:
    """Raise CellError where all labels may be months, or else weeks or numbers."""
    if "week" in _meanings(name) and all(map(_YEAR_WEEK.fullmatch, labels)):
        raise CellError(0, f"{quoted(labels[0])} may be a week or a month; write weeks as 2024-W01")
    if _are_months(labels):
        remedy = f"for months, give {option('date_format', '%Y.%m')}"
        raise CellError(0, f"{quoted(labels[0])} may be a month or a fraction of a year; {remedy}")


def _join(table: Table, names: Sequence[str], date_format: str | None) -> tuple[list[str], str | None]:
    """What the columns say of each row, one after the other, and the format that reads it."""
    unknown = len(_ORDER) if any("year" in _meanings(name) for name in names) else -1  # a date is before a clock
    names = sorted(names, key=lambda name: max(map(_ORDER.index, _meanings(name) & {*_ORDER}), default=unknown))
    first, *others = (table.column(name) for name in names)
    labels, date_format = _labels(first.cells), None if first.is_dated else date_format
    for column in others:
        cells, parts = _labels(column.cells), _meanings(column.name)
        if cells[0].isdecimal() and not parts.isdisjoint(("week", "period")):
            raise CellError(0, f"{quoted(f'{labels[0]} {cells[0]}')} is not read as a time; {_IN_ONE_COLUMN}")
        has_day = may_be_date(labels[0], date_format) if date_format else _is_day(labels[0])
        if has_day and "minute" in parts and all(map(_WHOLE_HOUR.fullmatch, labels)):
            labels = [f"{label[:-2]}{cell:0>2}" for label, cell in zip(labels, cells, strict=True)]
        elif has_day and ("hour" in parts or (not parts and ":" not in labels[0])):
            labels, date_format = _add_clocks(labels, cells, date_format, table.where), None
        else:
            is_month = re.fullmatch(r"\d{4}(-\d\d?)?", labels[0]) and cells[0].isdecimal()
            joint = next((joint for part, joint in _JOINTS.items() if part in parts), "{}-{}" if is_month else "{} {}")
            labels = [joint.format(label, cell.removeprefix("Q")) for label, cell in zip(labels, cells, strict=True)]
            date_format = date_format or ("%Y-%j" if "day of year" in parts else None)
    return labels, date_format


def _add_clocks(days: Sequence[str], cells: Sequence[str], date_format: str | None, where: Where) -> list[str]:
    """Days with times of day: numbers of hours, HHMM, or HH:MM, the first of two; 24:00 is at the end of the day."""
    if date_format or ":" in days[0] or days[0].isdecimal() or short_year_formats(days[:1]):
        dates = read_dates(days, date_format or _digit_format(days), where)
        if dates is None:
            raise CellError(0, f"{quoted(days[0])} was not read as a date; {date_remedy(days)}")
        days = [str(date).removesuffix(" 00:00:00") for date in dates.values]
    clocks = _clocks(cells)
    if all(map(str.isdecimal, clocks)):
        width = (max(map(len, clocks)) + 1) // 2 * 2
        clocks = [":".join(re.findall("..", clock.zfill(width) + "00" * (width == 2))) for clock in clocks]
    return list(map("{} {}".format, days, clocks))


def _clocks(cells: Iterable[str]) -> list[str]:
    """The first of two times of day, with colons; hours as numbers."""
    starts = (re.sub("(?i)^h(?=\\d)| ?(h|uhr)$| ?[-–].*", "", cell.strip()) for cell in cells)
    return [re.sub(r"(?<!:\d\d)(?<=\d)[.hH](?=\d)", ":", start) for start in starts]


def _read_counter(names: Sequence[str], labels: Sequence[str]) -> Sequence[Any]:
    """What sorts labels that are no dates: times of one day, which rise, or numbers, unless they may be dates."""
    clocks = read_dates([f"2000-01-01 {label}" for label in labels]) if ":" in labels[0] else None
    is_for_days = "date" in _meanings(names[0])
    keys: Sequence[Any] = clocks.values if clocks else _numbers(labels).tolist()
    unread = [row for row, key in enumerate(keys) if key != key]  # NaN
    if is_for_days:
        unread += [row for row, label in enumerate(labels) if _SOME_DIGITS.fullmatch(label)]
    must_rise = bool(clocks) or is_for_days
    rows = unread or _turns(keys, must_rise=must_rise)
    if not rows or not (unread or must_rise or digit_formats(labels) or all(map(_PART_OF_DATE.fullmatch, labels))):
        return keys
    row, remedy = min(rows), date_remedy(labels) if len(names) == 1 else _IN_ONE_COLUMN
    if all(map(_MONTH_FIRST.fullmatch, labels)):
        remedy = f"give {option('date_format', '%m.%Y' if '.' in labels[0] else '%m%Y')}"
    after = f" and comes after {quoted(labels[row - 1])}" if not unread else ""
    remedy += ", or, for numbers, sort the rows" if after and not clocks else ""
    raise CellError(row, f"{quoted(labels[row])} was not read as a date{after}; {remedy}")


def _turns(keys: Sequence[Any], *, must_rise: bool) -> list[int]:
    """The rows where keys that must rise do not, or where others turn."""
    if must_rise:
        return [row for row in range(1, len(keys)) if keys[row] <= keys[row - 1]]
    first = np.sort(np.unique(keys, return_index=True)[1])  # as several series may repeat a time
    steps = np.diff(np.array(keys)[first])
    return [int(row) for row in first[1:][steps * steps[:1] < 0]]


# --- what tells rows apart ----------------------------------------------------------------------------------------


class Apart(NamedTuple):
    """What tells rows apart that seem to be of the same time: what to say, and the option that takes it into account.

    All are empty where nothing does; the option is empty where the columns must be joined in the file.
    """

    message: str = ""
    option: str = ""
    values: Sequence[str] = ()


def tell_rows_apart(table: Table, times: Times | None, used: Collection[str]) -> Apart:
    """Find columns that the time is spread over, or else those that tell several series apart."""
    names, labels = (times.names, times.labels) if times else ((), ())
    free = [column for column in table.columns if column.name not in used]
    may_be_part = [c.name for c in free if c.name in names or not is_full_date(" ".join(c.cells[0].split()))]
    if parts := _parts_of_time(may_be_part, names) or (_have_four_digits(labels) and _beside_year(table, free)):
        return _spread(parts)
    free = [column for column in free if column.name not in names][:_SAMPLE]
    forms = (None, times.dates.form) if times and times.dates else (None,)
    for column in free if times else ():
        is_part = _has_parts(column) and any(_read_joined(table, [*names, column.name], form) for form in forms)
        is_other = not _meanings(column.name).isdisjoint(("week", "period"))
        moments = len({*zip(labels, column.cells, strict=True)})
        if is_part and column.cells[0].strip().isdecimal():
            if moments == len(table):
                joined, one = _spread([*names, column.name]).message, _several([column]).message
                return Apart(f"{joined}, or, if these are no times: {one}")
        elif (is_part or is_other) and moments > len({*labels}):
            return _spread([*names, column.name], can_join=is_part)
    kinds = {column: len(set(column.cells)) for column in free if all(map(_may_tell, column.cells[:_SAMPLE]))}
    ids = [key for key, count in kinds.items() if 1 < count <= len(table) / 2 and not is_calendar(key.name)][:_MAX_KEYS]
    if not times:
        if any(counts_rows(column) for column in free if _meanings(column.name).isdisjoint(("row", "id"))):
            return Apart()
        if blocks := [key for key in ids if _is_in_blocks(key, may_be_numbers=True)]:
            return _several(blocks[:1])
        counters = [column for column in kinds if _is_counter(column.name)]
        likely = (column for column in (*counters, *kinds) if 1 < kinds[column] < len(table))
        time = next((column for column in likely if column in counters or _order_problem(column)), None)
        if time is None:
            return Apart()
        ids, labels = [key for key in ids if key is not time], time.cells
    for some in (some for size in (1, 2, 3) for some in combinations(ids, size)):
        most = len({*labels}) * prod(kinds[key] for key in some)
        is_panel = len(table) <= most and (times or most <= 2 * len(table))  # and not unique by chance
        if is_panel and len({*zip(labels, *(key.cells for key in some), strict=True)}) == len(table):
            return _several(some)
    one_row = f"keep one row of each time, or give {option('on_duplicate', 'first', 'last', 'mean')}"
    return Apart(one_row, "on_duplicate") if times else Apart()


def blocks_notices(table: Table, times: Times, used: Collection[str]) -> Iterator[str]:
    """What to say of columns that may tell several series apart whose dates follow each other."""
    free = [column for column in table.columns if column.name not in (*used, *times.names)][:_SAMPLE]
    for column in free:
        if _is_in_blocks(column, may_be_numbers=times.dates is None) and not is_calendar(column.name):
            found = f"column {printable(column.name)} has {listed(dict.fromkeys(column.cells), 3)}, one after the other"
            yield f"{found}; if these are several series, keep one by {options('where', _several([column]).values)}"


def _is_in_blocks(column: Column, *, may_be_numbers: bool) -> bool:
    """Whether a column has a few texts, or numbers as identifiers, each of them in rows that follow each other."""
    cells, is_number = column.cells, may_be_number(column.cells[0])
    if is_number and not (may_be_numbers and _may_tell(cells[0]) and not _have_four_digits(cells)):
        return False
    ends = [row for row, (cell, later) in enumerate(pairwise(cells)) if cell != later]
    sizes = set(np.diff([-1, *ends, len(cells) - 1]).tolist())
    is_id = not is_number or (min(sizes) > 7 and _SERIES_NAME.search(column.name) is not None)
    return is_id and 0 < 2 * len(ends) < len(cells) - 1 and len(set(cells)) == len(ends) + 1


def _may_tell(cell: str) -> bool:
    """Whether a cell may tell series apart: it is a text, a whole number, or missing."""
    return not may_be_number(cell) or cell.strip().removesuffix(".0").isdecimal()


def _several(keys: Sequence[Column]) -> Apart:
    kinds = listed(dict.fromkeys(keys[0].cells), 3)
    found = f"several series found (column{'s' * (len(keys) > 1)} {listed(key.name for key in keys)}: {kinds})"
    values = [f"{key.name}={key.cells[0].strip()}" for key in keys]
    together = f"learn from all of them with {option('id', keys[0].name)}, or " if len(keys) == 1 else ""
    return Apart(f"{found}; {together}keep one by {options('where', values)}", "where", values)


def _spread(parts: Sequence[str], *, can_join: bool = True) -> Apart:
    if not can_join:
        return Apart(f"the time is spread over {listed(parts)}; {_IN_ONE_COLUMN}")
    found = f"the time is spread over {len(parts)} columns ({listed(parts)})"
    return Apart(f"{found}; give {options('time', parts)}", "time", parts)


def _has_parts(column: Column) -> bool:
    """Whether the first cell is a time of day or the name of a month; of numbers, whether all hours of a day occur."""
    hours = [clock.partition(":")[0] for clock in _clocks(set(column.cells))]
    if ":" not in column.cells[0] and all(map(str.isdecimal, hours)):
        return set(map(int, hours)) in _HOURS
    return _is_time(_clocks(column.cells[:1])[0], is_part=True)


def _read_joined(table: Table, names: Sequence[str], date_format: str | None = None) -> Dates | None:
    """The dates that columns are together, if they are."""
    with suppress(CellError, DataError):  # as of two columns of one name
        labels, form = _join(table, names, date_format)
        return read_dates(labels, form)
    return None


def _beside_year(table: Table, columns: Sequence[Column]) -> list[str]:
    """Neighbouring columns that are year, month and day, or year and month, by their cells, mostly in order."""
    four_digits = [n for n, column in enumerate(columns) if _have_four_digits(column.cells)]
    years = [n for n in four_digits if 2 * sum(map(ne, columns[n].cells, columns[n].cells[1:])) < len(table)]
    for some in [columns[year : year + size] for year in years for size in (3, 2)]:
        if len(some) > 1 and may_be_date("-".join(column.cells[0].strip() for column in some)):
            names = [column.name for column in some]
            is_complete = len(some) == 3 or (len(set(some[1].cells)) == 12 and names[1][:1] in "mM")
            dates = _read_joined(table, names) if is_complete else None
            if dates and 10 * min(len(order_rows(keys).late) for keys in (dates.keys, dates.keys[::-1])) < len(table):
                return names
    return []


def _parts_of_time(names: Sequence[str], times: Sequence[str]) -> list[str]:
    """The columns that a time is spread over: year, month and so on, or a date, such as in `times`, and hours."""
    parts = max((_first_parts(names, spread) for spread in _SPREADS), key=len)
    if not set(times) <= set(parts):
        parts = [*times, *_first_parts([name for name in names if name not in times], _CLOCK)]
    return parts if len(parts) > max(len(times), 1) else []


def _first_parts(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The columns of the first parts of a time, as far as there are any."""
    by_part = {part: name for name in reversed(names) for part in _meanings(name)}
    return list(dict.fromkeys(by_part[part] for part in takewhile(by_part.__contains__, parts)))


# --- what speaks against the order --------------------------------------------------------------------------------


def check_order(table: Table, used: Collection[str]) -> Iterator[str]:
    """See whether rows without a time may be in chronological order, and what to say of them.

    Of a pandas object, whose rows are in the order that their owner gave them, nothing is said unless there are dates.

    Raises
    ------
    DataError
        A counter falls or repeats, or several series are one below the other.
    """
    as_is = f"if the rows are in chronological order, give {option('order', 'oldest-first')}"
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if apart := tell_rows_apart(table, None, used).message:
        raise table.refusal(f"{apart}; {as_is}")
    for name, error in _order_problems(table, free):
        raise table.cell_refusal(name, CellError(error.row, f"{error}, or, {as_is}"))
    days, looked, remedy = _columns_of_days(free), "", f"if not, give {option('order', 'newest-first')}"
    if free:
        looked = f" (column {quoted((_first_columns(table, free) or free)[-1].name)} was not read as dates)"
        remedy = f"name one with {option('time', 'NAME')}"
    if len(days) > 1:
        looked = f" ({len(days)} columns look like dates: {listed(column.name for column in days)})"
    if table.name or days:
        yield f"no time column found{looked}; rows are taken as oldest first; {remedy}"


def _order_problems(table: Table, free: Sequence[Column]) -> Iterator[tuple[str, CellError]]:
    """The columns that count or date the rows, but fall or repeat, in which row, and what to do."""
    first = _first_columns(table, free)
    likely = [column for column in free if column in first or _meanings(column.name) & {"row", "step", "id"}]
    return ((column.name, error) for column in likely if (error := _order_problem(column)))


def _order_problem(column: Column) -> CellError | None:
    """Where a column falls or repeats that counts or dates the rows, in whatever words."""
    cells = [cell.strip().removesuffix(".0") for cell in column.cells]
    newest = f"give {option('order', 'newest-first')} if the rows are newest-first"
    falling = f"falls, from {quoted(cells[0])} to {quoted(cells[-1])}; {newest}"
    if len(cells) > 7 and (np.diff(_numbers(cells)) < 0).all():
        return CellError(1, falling)
    if (steps := _steps(column.name, cells)) is None:
        return None
    falls, rises = (steps < 0).sum(axis=0), (steps > 0).sum(axis=0)
    late = int((steps < 0).any(axis=1).argmax()) + 1
    if (falls > 2 * rises).any() and not (rises > 2 * falls).any():
        return CellError(late, falling)
    if repeats := order_rows(cells).repeats.tolist():
        what = f"{quoted(cells[repeats[0]])} repeats, so that the column does not date the rows"
        return CellError(repeats[0], f"{what}; name one by {option('time', 'NAME')}")
    if not falls.any() or _meanings(column.name).isdisjoint(("row", "step")):
        return None
    what = f"{quoted(cells[late])} comes after {quoted(cells[late - 1])}"
    return CellError(late, f"{what}; to sort the rows by it, give {option('time', column.name)}")


def _steps(name: str, cells: Sequence[str]) -> Rows | None:
    """The steps from row to row of the numbers in cells that count or date the rows; None for values."""
    runs = [re.findall(r"\d{1,15}", cell) for cell in cells]
    has_fractions = re.search(r"\d[.,]\d", cells[0]) and not is_calendar(name)
    if len(runs) < 3 or not runs[0] or len(set(map(len, runs))) > 1 or has_fractions:
        return None
    numbers: Rows = np.array(runs, dtype=np.int64)
    steps = numbers[1:] - numbers[:-1]
    (usual, count), *_ = Counter(steps[:, 0].tolist()).most_common(1)
    is_index = "row" in _meanings(name) and len(set(cells)) == len(cells)
    counts = (usual != 0 and 2 * count > len(steps)) or is_index or (_is_counter(name) and (steps >= 0).all())
    return steps if counts or steps.shape[1] > 1 else None


# --- times as the names of columns --------------------------------------------------------------------------------


def refuse_wide(table: Table, *, has_times: bool) -> None:
    """Raise DataError where several columns are times, and perhaps the rows are, too."""
    if len(table.columns) < 3:
        return
    texts = [c for c in table.columns[:3] if not any(map(may_be_number, c.cells[:_SAMPLE]))]
    named = [column for column in texts if len(set(column.cells)) == len(table)]
    numeric = [c.name for c in table.columns if is_missing(c.cells[0]) or may_be_number(c.cells[0])]
    times = [name for name in numeric if _is_time(re.sub(r"[\[(].*", "", name).strip(), has_times or named != [])]
    if len(times) < 3 and named and not has_times:  # d_1, d_2, ...
        stems = {name: re.sub(r"\d+", "#", name) for name in table.names[1:]}
        alike = Counter(stems.values())
        times = [name for name, stem in stems.items() if stem != name and 2 * alike[stem] > len(stems) + 1]
    if len(times) >= 3:
        other = f", as the rows are; use pandas.melt, or choose one by {option('target', times[0])}"
        alone = ": one series a row; transpose the table, or, if the rows are times, too, use pandas.melt"
        found = f"{len(times)} columns are times ({listed(times, 3)})"
        raise table.refusal(found + (other if has_times else alone))


def _is_time(name: str, is_part: bool) -> bool:
    """Whether the name of a column is a date or a period with its year, or, if it `is_part`, a month or time of day."""
    if name.isdecimal():
        return name.startswith(("19", "20")) and may_be_date(name)
    texts = (name, f"1 {name} 2000", f"2000-01-01 {name}") if is_part else (name,)
    return any(map(_is_date, texts))


# --- names --------------------------------------------------------------------------------------------------------


@lru_cache
def _words() -> dict[str, set[str]]:
    """The words of each meaning."""
    return {meaning: set(words) for meaning, *words in stored_rows("time_words.csv")}


@lru_cache(maxsize=4096)
def _meanings(name: str) -> frozenset[str]:
    """What a column has, by its name: times, numbers of rows or steps, identifiers, or parts of a time."""
    folded = name.strip().lower()
    letters = re.sub(r"^(unnamed|level)\d+$", r"\1", re.sub("[^a-z0-9]", "", folded)) or folded
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)} - _FILLERS
    if not words or re.search(r"\d|[^\x00-\x7f]", name):
        words = {folded}
    found = {meaning for meaning, known in _words().items() if words <= known or letters in known}
    return frozenset(found - {"minute"} if name == "MM" else found)


def _is_counter(name: str) -> bool:
    """Whether a column counts the rows or their times, by its name."""
    return not _meanings(name) <= {"id"}


def is_calendar(name: str) -> bool:
    """Whether a column has a part of a time, by its name."""
    return not _meanings(name) <= {"date", "time", "row", "id", "step"}


def counts_rows(column: Column) -> bool:
    """Whether a column counts the rows or their times, by its name and its whole numbers, which rise."""
    numbers = _numbers(column.cells) if _meanings(column.name) else np.array([np.nan])
    return bool((np.floor(numbers) == numbers).all() and (np.diff(numbers) > 0).all())


# --- cells --------------------------------------------------------------------------------------------------------


def _labels(cells: Sequence[str]) -> list[str]:
    """The cells with single spaces."""
    text = " ".join(cells)
    if text.isascii() and text == text.strip() and not any(sign in text for sign in _NEEDLESS):
        return list(cells)
    return [" ".join(cell.split()) for cell in cells]


def _numbers(cells: Sequence[str]) -> Floats:
    """The numbers of cells, NaN for others."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return numbers.replace([np.inf, -np.inf], np.nan).to_numpy(np.float64)


def _digit_format(labels: Sequence[str]) -> str | None:
    """The one format of dates in digits alone that reads all labels, if it has the year first."""
    forms = digit_formats(labels)
    return forms[0] if len(forms) == 1 and forms[0].startswith("%Y") else None


def _is_date(label: str) -> bool:
    """Whether a label is a date or a period with its year, which may have two digits."""
    return may_be_date(label) or short_year_formats([label]) != ()


def _is_day(label: str) -> bool:
    """Whether a label is a day with its year, which may have two digits if there are others than digits."""
    return is_full_date(label) or bool(short_year_formats([label]) or (len(label) > 7 and _digit_format([label])))


def _columns_of_days(columns: Sequence[Column]) -> list[Column]:
    """The columns that have days, by a sample."""
    return [column for column in columns if all(map(_is_day, _labels(column.cells[:_SAMPLE])))]


def _first_columns(table: Table, free: Sequence[Column]) -> list[Column]:
    """The first column, and the first one that varies and does not number the rows, if they are free."""
    others = (c for c in table.columns if _meanings(c.name).isdisjoint(("row", "id")))
    first, others = table.columns[0], (c for c in others if any(map(c.cells[0].__ne__, c.cells)))
    return [column for column in dict.fromkeys((first, next(others, first))) if column in free]
