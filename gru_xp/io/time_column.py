"""Which columns date the rows of a table, and what the table itself says against the order of its rows."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from gru_xp.io.dates import Dates, digit_formats, is_full_date, may_be_date, read_dates, short_year_formats
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Table

INDEX_NAMES = {"", "index", "unnamed", "id", "no", "nr", "row", "step", "t", "year", "period"}
"""Names of columns that number or date the rows, as `_letters` gives them."""

_TIME_NAMES = ("date", "dates", "datetime", "timestamp", "ds", "time")
_TIME_WORD = re.compile("date|time|stamp|epoch|unix", re.IGNORECASE)
_PARTS = ("year yr yyyy", "quarter qtr", "month mo mon", "week wk", "day dy dd", "hour hours hr hh he", "minute min")
_PART_WORDS = {word: rank for rank, words in enumerate(_PARTS) for word in words.split()} | {"time": 5, "clock": 5}
_YEAR, _QUARTER, _MONTH, _WEEK, _DAY, _HOUR, _MINUTE = range(7)
_DIGITS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_LIKELY_YEARS = range(1800, 2200)
_SAMPLE, _MAX_KEYS = 100, 8


class Times(NamedTuple):
    """The columns that date the rows: their names, what they say of each row, the dates that it means, and sort keys."""

    names: tuple[str, ...]
    labels: Sequence[str]
    dates: Dates | None
    keys: Sequence[Any]


def find_times(table: Table, how: ReadOptions, used: Iterable[str]) -> Times | None:
    """Find what dates the rows, among the columns that are not `used` otherwise.

    It is the column that the options name; else the one called date, datetime, timestamp, ds or time; else the first
    one, if all of its cells are dates; else the only one whose cells are all days with their year.

    Raises
    ------
    DataError
        The column has dates that are not certain, or no dates and no numbers.
    """
    names = tuple(table.column(name).name for name in how.time) or _find(table, how.date_format, set(used))
    if not names:
        return None
    try:
        labels = _join(table, names)
        form = how.date_format or _digit_format(labels)
        dates = read_dates(labels, form, table.where, is_time=bool(_TIME_WORD.search(names[0]) or how.time))
        keys = dates.keys if dates else _counter(table, names[0], labels)
    except CellError as error:
        raise table.cell_refusal(names[0], error) from error
    return Times(names, labels, dates, keys)


def repeats_remedy(table: Table, times: Times, used: Iterable[str]) -> str:
    """What to do about rows of the same time."""
    free = [column for column in table.columns if column.name not in {*times.names, *used}]
    rank = min(map(_part, times.names), default=_DAY)
    if parts := [column.name for column in free if _part(column.name) > (rank if rank < _DAY else _DAY)]:
        return _spread([*times.names, *parts])
    for keys in (*combinations(_keys(free), 1), *combinations(_keys(free), 2)):
        if _are_unique([times.labels, *(column.cells for column in keys)]):
            return _several(keys)
    return f"keep one row of each time, or give {option('on_duplicate', 'first', 'last', 'mean')}"


def check_order(table: Table, used: Iterable[str]) -> str:
    """Look for what says that rows without dates are not in chronological order; give the notice if there is nothing.

    Raises
    ------
    DataError
        The columns are dates, a counter falls or repeats, or several series are one below the other.
    """
    free = [column for column in table.columns if column.name not in set(used)]
    as_is = f"if the rows are in chronological order, give {option('order', 'oldest-first')}"
    _refuse_wide(table, free)
    for column in free[:_SAMPLE]:
        if not (column is table.columns[0] or _is_index(column.name)):
            continue
        falls = _falls(column)
        if falls is not None:
            first, last = quoted(column.cells[0].strip()), quoted(column.cells[-1].strip())
            raise table.cell_refusal(
                column.name,
                CellError(
                    falls,
                    f"falls, from {first} to {last}; for newest-first rows, give "
                    f"{option('order', 'newest-first')}; {as_is}",
                ),
            )
    keys = _keys(free)
    for some in (*combinations(keys, 2), *combinations(keys, 3)):
        if _are_unique([column.cells for column in some]):
            parts = [column.name for column in some if _part(column.name) >= 0]
            by_time = sorted(
                some, key=lambda column: (_part(column.name) < 0, not _is_index(column.name), _runs(column))
            )
            raise table.refusal(f"{_spread(parts) if len(parts) == len(some) else _several(by_time[1:])}; {as_is}")
    for column in free[:_SAMPLE]:
        if (column is table.columns[0] or _is_index(column.name)) and _is_counter(column):
            repeat = next(row for row, count in enumerate(_occurrence(column.cells)) if count > 1)
            raise table.cell_refusal(
                column.name,
                CellError(
                    repeat,
                    f"{quoted(column.cells[repeat])} repeats, so that it does not date the "
                    f"rows; write dates as 2020-01-31, or, {as_is}",
                ),
            )
    looked = f"column {quoted(table.names[0])} was not read as dates" if free else "there is no other column"
    dated = [column.name for column in free[:_SAMPLE] if _is_all_days(column)]
    if dated:
        looked = f"{len(dated)} columns look like dates ({listed(dated)})"
    return f"no column dates the rows ({looked}); they are taken as oldest first; {option('time', 'NAME')} names one"


# --- finding it -------------------------------------------------------------------------------------------------


def _find(table: Table, date_format: str | None, used: set[str]) -> tuple[str, ...]:
    free = [column for column in table.columns if column.name not in used]
    if not free or len(table.columns) == 1:
        return ()
    named = [column for name in _TIME_NAMES for column in free if _letters(column.name) == name]
    candidates = [*named, *(free[:1] if free[0] is table.columns[0] else [])]
    if date_format is not None:
        candidates += [column for column in free[:_SAMPLE] if _has_dates(column, date_format)]
        return (next((c for c in candidates if _has_dates(c, date_format)), free[0]).name,)
    days = [column for column in free[:_SAMPLE] if _is_all_days(column)]
    found = next((column for column in candidates if _has_dates(column)), days[0] if len(days) == 1 else None)
    found = found or (named[0] if named else None)
    return () if found is None else (found.name,)


def _has_dates(column: Column, date_format: str | None = None) -> bool:
    """Whether a column is one of dates, as most of its first cells say; of digits alone, all cells must."""
    sample = _labels(column.cells[:_SAMPLE])
    if date_format is None and all(map(str.isdecimal, sample)):
        labels = _labels(column.cells)
        if all(len(label) == 4 for label in labels) and len(set(labels)) == len(labels):
            steps = {int(b) - int(a) for a, b in pairwise(labels)}
            return _letters(column.name) in ("year", "ds", *_TIME_NAMES) or steps in ({1}, {-1})
        return _digit_format(labels) is not None or (_TIME_WORD.search(column.name) is not None and len(sample[0]) > 9)
    if date_format is None and all(may_be_number(label) or is_missing(label) for label in sample):
        return False
    return 2 * sum(may_be_date(label, date_format) for label in sample) > len(sample)


def _is_all_days(column: Column) -> bool:
    return column.numbers is None and all(map(is_full_date, _labels(column.cells)))


def _digit_format(labels: Sequence[str]) -> str | None:
    """The format of dates in digits alone, where there is one that reads all of them."""
    form = _DIGITS.get(len(labels[0])) if labels[0].isdecimal() else None
    if form is None or not all(label.isdecimal() and len(label) == len(labels[0]) for label in labels):
        return None
    try:
        if not all(datetime.strptime(label, form).year in _LIKELY_YEARS for label in set(labels)):
            return None
    except ValueError:
        return None
    others = digit_formats(labels)
    if len(others) > 1:
        raise CellError(0, f"{quoted(labels[0])} is a date in digits alone; give {option('date_format', *others)}")
    return form


def _join(table: Table, names: Sequence[str]) -> Sequence[str]:
    """What the columns say of each row: the cell of one, or date and time of several."""
    columns = [_labels(table.column(name).cells) for name in names]
    if len(columns) == 1:
        return columns[0]
    numeric = [all(map(str.isdecimal, labels)) for labels in columns]
    parts = [_part(name) for name in names]
    if all(numeric) and parts[0] == _YEAR:
        return [_moment(row, parts, [int(labels[row]) for labels in columns]) for row in range(len(table))]
    days = read_dates(columns[0], None, table.where) if len(columns) == 2 and numeric[1] and parts[1] == _HOUR else None
    if days is not None and all(int(hour) <= 24 for hour in columns[1]):
        hours = map(int, columns[1])
        return [str(day + timedelta(hours=hour)) for day, hour in zip(days.values, hours, strict=True)]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]


def _moment(row: int, parts: Sequence[int], numbers: Sequence[int]) -> str:
    """Year, month, day, hour and minute, or year and week or quarter, as ISO 8601; hour 24 ends the day."""
    given = dict(zip(parts, numbers, strict=True))
    try:
        if _WEEK in given:
            day = datetime.fromisocalendar(given[_YEAR], given[_WEEK], 1)
        else:
            month = 3 * given[_QUARTER] - 2 if _QUARTER in given else given.get(_MONTH, 1)
            day = datetime(given[_YEAR], month, given.get(_DAY, 1))
        if given.get(_HOUR, 0) > 24 or given.get(_MINUTE, 0) > 59 or min(parts) < 0:
            raise ValueError(numbers)
    except ValueError:
        raise CellError(
            row,
            f"{', '.join(map(str, numbers))} is no date; give {option('time')} for each part of it, from the year on",
        ) from None
    label = str(day + timedelta(hours=given.get(_HOUR, 0), minutes=given.get(_MINUTE, 0)))
    return label if _HOUR in given else label[:10]


def _counter(table: Table, name: str, labels: Sequence[str]) -> Sequence[Any]:
    """Sort keys of labels that are no dates: numbers, or times of one day, which rise."""
    remedy = f"give {option('date_format', '%d/%m/%Y')} or the like, or name another column by {option('time')}"
    spread = _spread([name, *parts]) if (parts := [n for n in table.names if n != name and _part(n) >= 0]) else ""
    try:
        numbers = [float(label.replace("_", "?")) for label in labels]
        bad = next((row for row, number in enumerate(numbers) if not abs(number) < float("inf")), None)
    except ValueError:
        clocks = read_dates([f"2000-01-01 {label}" for label in labels]) if ":" in labels[0] else None
        if clocks is None:
            row = next(row for row, label in enumerate(labels) if not may_be_number(label))
            if is_missing(labels[row]):
                raise CellError(row, "the date is missing; fill it in or remove the row") from None
            if forms := short_year_formats(labels):
                remedy = f"its year has two digits; give {option('date_format', *forms)}"
            raise CellError(row, f"{quoted(labels[row])} was not read as a date; {spread or remedy}") from None
        numbers, bad = clocks.values, None
    is_clock = ":" in labels[0]
    late = next((row for row, (a, b) in enumerate(pairwise(numbers), start=1) if not a < b), None)
    if late is not None and (is_clock or _letters(name) in ("date", "dates", "datetime")):
        raise CellError(
            late,
            f"{quoted(labels[late])} comes after {quoted(labels[late - 1])}, so that the column does "
            f"not date the rows; {spread or remedy}",
        )
    if bad is not None:
        raise CellError(bad, f"{quoted(labels[bad])} is no time; correct or remove the row")
    return numbers


# --- what speaks against the order of the rows ----------------------------------------------------------------------


def _refuse_wide(table: Table, free: Sequence[Column]) -> None:
    """Raise DataError where times are columns: one series a row."""
    names = [column.name for column in table.columns]
    dated = [name for name in names if is_full_date(name) or short_year_formats([name])]
    stems = Counter(re.sub(r"\d+$", "", name) for name in names if name[-1:].isdecimal())
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    labels = table.columns[0].cells
    has_ids = table.columns[0] in free and len(set(labels)) == len(labels) and not any(map(may_be_number, labels))
    if len(dated) < 3 and count >= 3 and 2 * count > len(names) and (has_ids or stem == ""):
        dated = [name for name in names if re.fullmatch(re.escape(stem) + r"\d+", name)]
    if len(dated) >= 3:
        raise table.refusal(
            f"{len(dated)} columns are times ({listed(dated, 3)}): one series a row; transpose the "
            "table, so that there is one row for each time"
        )


def _falls(column: Column) -> int | None:
    """The first row that is lower than the one before, in a column of counters or texts with numbers that fall."""
    runs = [tuple(map(int, re.findall(r"\d{1,15}", cell))) for cell in column.cells]
    if (
        len({len(run) for run in runs}) != 1
        or len(runs) < 3
        or any(re.search(r"\d[.,]\d", c) for c in column.cells[:9])
    ):
        return None
    falling = rising = 0
    for numbers in zip(*runs, strict=True):
        falls, rises = sum(b < a for a, b in pairwise(numbers)), sum(b > a for a, b in pairwise(numbers))
        is_count = len(runs[0]) > 1 or Counter(b - a for a, b in pairwise(numbers)).most_common(1)[0][1] > 0.5 * len(
            runs
        )
        falling += falls > 2 * rises and is_count
        rising += rises > 2 * falls
    if not falling or rising:
        return None
    return next(row for row, (a, b) in enumerate(pairwise(runs), start=1) if b < a)


def _is_counter(column: Column) -> bool:
    """Whether a column counts by a constant step, and begins again."""
    try:
        numbers = list(map(int, column.cells))
    except ValueError:
        return False
    step, count = Counter(b - a for a, b in pairwise(numbers)).most_common(1)[0] if len(numbers) > 2 else (0, 0)
    return len(set(numbers)) < len(numbers) and ((step != 0 and 2 * count > len(numbers)) or numbers == sorted(numbers))


def _keys(free: Sequence[Column]) -> list[Column]:
    """The columns that may tell series apart: texts or whole numbers, each several times."""
    some = [column for column in free[:_SAMPLE] if column.numbers is None or not (column.numbers % 1).any()]
    keys = [column for column in some if all(map(_may_be_key, column.cells[:_SAMPLE]))]
    return [column for column in keys if 1 < len(set(column.cells)) <= len(column.cells) / 2][:_MAX_KEYS]


def _may_be_key(cell: str) -> bool:
    return not is_missing(cell.strip()) and (not may_be_number(cell) or cell.strip().isdecimal())


def _are_unique(columns: Sequence[Sequence[str]]) -> bool:
    """Whether no two rows are alike in all columns; the first thousand are looked at first."""
    head = list(zip(*(cells[:1000] for cells in columns), strict=True))
    return len(set(head)) == len(head) and len(set(zip(*columns, strict=True))) == len(columns[0])


def _runs(column: Column) -> int:
    """Minus the number of changes from row to row: an identifier of blocks has few."""
    return -sum(a != b for a, b in pairwise(column.cells))


def _occurrence(cells: Sequence[str]) -> Iterable[int]:
    seen: Counter[str] = Counter()
    for cell in cells:
        seen[cell] += 1
        yield seen[cell]


def _several(keys: Sequence[Column]) -> str:
    names = listed(column.name for column in keys)
    kinds = listed(dict.fromkeys(keys[0].cells), 3)
    remedy = options("where", [f"{column.name}={column.cells[0].strip()}" for column in keys])
    return f"several series found (column{'s' * (len(keys) > 1)} {names}: {kinds}); keep one by {remedy}"


def _spread(names: Sequence[str]) -> str:
    ordered = sorted(names, key=_part)
    return f"the time is spread over {len(names)} columns ({listed(ordered)}); give {options('time', ordered)}"


def _labels(cells: Sequence[str]) -> list[str]:
    return [" ".join(text.split()) for text in cells]


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _is_index(name: str) -> bool:
    return _letters(name) in INDEX_NAMES or _part(name) >= 0 or _letters(name) in _TIME_NAMES


def _part(name: str) -> int:
    """Which part of a time a column says, as its name has it: its rank from the year down; -1 for none."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)
    return max((_PART_WORDS.get(word.lower(), -1) for word in words), default=-1)
