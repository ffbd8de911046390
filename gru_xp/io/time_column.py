"""Which columns date the rows of a table, and what the table itself says against the order of its rows."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import combinations, pairwise
from operator import lt
from string import ascii_letters, digits, punctuation
from typing import Any, NamedTuple

import numpy as np

from gru_xp.io.dates import Dates, digit_formats, is_full_date, may_be_date, read_dates, short_year_formats
from gru_xp.io.messages import CellError, listed, option, options, quoted
from gru_xp.io.numbers import is_missing, may_be_number
from gru_xp.io.options import ReadOptions
from gru_xp.io.table import Column, Table

_INDEX_NAMES = ("", "index", "unnamed", "id", "no", "nr", "row", "level")
_TIME_NAMES = ("date", "dates", "datetime", "timestamp", "ds", "time")
_TIME_WORD = re.compile("date|time|stamp|epoch|unix", re.IGNORECASE)
_PARTS = {"year": "year yr yyyy", "month": "month mo mon quarter qtr", "day": "day dy dd"}
_PARTS |= {"hour": "hour hours hr hh he time clock", "minute": "minute min"}
_WEEK = re.compile(r"(?<![a-z])(weeks?|wk)(?![a-z])", re.IGNORECASE)
_YEAR_WEEK = re.compile(r"\d{4}[-/]\d\d?|\d\d?[-/]\d{4}")
_DIGITS = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DAY_DIGITS = re.compile(r"\d{5,8}")
_DOTTED_CLOCK = re.compile(r"([01]?\d|2[0-3])\.[0-5]\d(\.[0-5]\d)?")
_PLAIN = set(f"{ascii_letters}{digits}{punctuation} \n")
_LIKELY_YEARS = range(1800, 2200)
_SAMPLE, _MAX_KEYS = 100, 8


class Times(NamedTuple):
    """What dates the rows: columns, what they say of each row, the dates that it means, and what sorts the rows."""

    names: tuple[str, ...]
    labels: Sequence[str]
    dates: Dates | None
    keys: Sequence[Any]


def find_times(table: Table, how: ReadOptions, used: Collection[str]) -> Times | None:
    """Find what dates the rows, among the columns that are not `used` otherwise.

    It is the column that the options name; else the one called date, datetime, timestamp, ds or time; else the first
    one, if all of its cells are dates; else the only one whose cells are all days with their year.

    Raises
    ------
    DataError
        The column has dates that are not certain, or neither dates nor numbers.
    """
    names = tuple(table.column(name).name for name in how.time) or _find(table, how.date_format, used)
    if not names:
        return None
    try:
        labels = _join(table, names)
        if how.date_format is None and _WEEK.search(names[0]) and all(map(_YEAR_WEEK.fullmatch, labels)):
            raise CellError(0, f"{quoted(labels[0])} may be a week or a month; write weeks as 2024-W01")
        form = how.date_format or _digit_format(labels)
        is_time = bool(how.time or _TIME_WORD.search(names[0]))
        dates = read_dates(labels, form, table.where, is_time=is_time)
        if dates is None and not how.time:
            refuse_wide(table)
        return Times(names, labels, dates, dates.keys if dates else _counter(table, names[0], labels))
    except CellError as error:
        raise table.cell_refusal(names[0], error) from error


def repeats_remedy(table: Table, times: Times, used: Collection[str]) -> str:
    """What to do about rows of the same time."""
    parts, keys = tell_repeats_apart(table, times, used)
    if parts or keys:
        return _spread(parts) if parts else _several(keys)
    return f"keep one row of each time, or give {option('on_duplicate', 'first', 'last', 'mean')}"


def tell_repeats_apart(table: Table, times: Times, used: Collection[str]) -> tuple[list[str], Sequence[Column]]:
    """The columns that the times are spread over, or else those that tell several series apart."""
    free = [column for column in table.columns if column.name not in {*times.names, *used}]
    coarsest = "hour" if _part(times.names[0]) != "year" else "month"
    ranks = list(_PARTS)
    if parts := [column.name for column in free if column.name and _rank(column.name) >= ranks.index(coarsest)]:
        return [*times.names, *parts], ()
    for count in (1, 2):
        for keys in combinations(_keys(free), count):
            if _are_unique([times.labels, *(column.cells for column in keys)]):
                return [], keys
    return [], ()


def tell_rows_apart(table: Table, used: Collection[str]) -> tuple[list[str], Sequence[Column]]:
    """As `tell_repeats_apart`, where no column dates the rows: the columns that make them unique only together."""
    free = [column for column in table.columns if column.name not in used]
    for some in (*combinations(_keys(free), 2), *combinations(_keys(free), 3)):
        if _are_unique([column.cells for column in some]):
            if all(_part(column.name) for column in some):
                parts = [c.name for c in free if _part(c.name) and all(map(str.isdecimal, c.cells[:_SAMPLE]))]
                return (parts if "year" in map(_part, parts) else []), ()
            time = max(some, key=lambda column: (bool(_part(column.name)), _counts(column.name), _changes(column)))
            return [], [column for column in some if column is not time]
    return [], ()


def check_order(table: Table, used: Collection[str]) -> str:
    """See whether rows without dates may be in chronological order; the result is what to say of them.

    Raises
    ------
    DataError
        The columns are times, a counter falls or repeats, or several series are one below the other.
    """
    as_is = f"if the rows are in chronological order, give {option('order', 'oldest-first')}"
    free = [column for column in table.columns if column.name not in used]
    refuse_wide(table)
    parts, keys = tell_rows_apart(table, used)
    if parts or keys:
        raise table.refusal(f"{_spread(parts) if parts else _several(keys)}; {as_is}")
    for column in free[:_SAMPLE]:
        what, row = _steps(column) if column is table.columns[0] or is_index(column.name) else ("", 0)
        ends = f"falls, from {quoted(column.cells[0].strip())} to {quoted(column.cells[-1].strip())}"
        repeat = f"{quoted(column.cells[row])} repeats, so that the column does not date the rows"
        newest = f"give {option('order', 'newest-first')} if the rows are newest-first"
        problem = f"{ends}; {newest}" if what == "falls" else f"{repeat}; name one by {option('time', 'NAME')}"
        if what:
            raise table.cell_refusal(column.name, CellError(row, f"{problem}, or, {as_is}"))
    looked = f"column {quoted(free[0].name)} was not read as dates" if free else "there is no other column"
    if len(dated := [column.name for column in free[:_SAMPLE] if _is_all_days(column)]) > 1:
        looked = f"{len(dated)} columns look like dates: {listed(dated)}"
    return f"no column dates the rows ({looked}); they are taken as oldest first; {option('time', 'NAME')} names one"


# --- the column -----------------------------------------------------------------------------------------------------


def _find(table: Table, date_format: str | None, used: Collection[str]) -> tuple[str, ...]:
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if not free or len(table.columns) == 1:
        return ()
    named = [column for name in _TIME_NAMES for column in free if _letters(column.name) == name]
    first = free[:1] if free[0] is table.columns[0] else []
    candidates = [*named, *(free if date_format is not None else first)]
    found = [column for column in candidates if _has_dates(column, date_format)]
    if not found and date_format is None:
        days = [column for column in free if _is_all_days(column)]
        found = (days if len(days) == 1 else []) or named
    if not found and date_format is None and not any(tell_rows_apart(table, used)):
        found = [c for c in free if is_index(c.name) and _letters(c.name) != "id" and _counts_up(c)]
    return tuple(column.name for column in (found or candidates[:1] if date_format is not None else found)[:1])


def _counts_up(column: Column) -> bool:
    """Whether a column has whole numbers that strictly rise, so that they may count or date the rows."""
    numbers = _whole([cell.strip().removesuffix(".0") for cell in column.cells])
    return len(numbers) > 0 and all(map(lt, numbers, numbers[1:]))


def _has_dates(column: Column, date_format: str | None) -> bool:
    """Whether most of the first cells are dates; of digits alone, all cells must be."""
    sample = _labels(column.cells[:_SAMPLE])
    if date_format is None and all(map(str.isdecimal, sample)):
        labels = _labels(column.cells)
        if all(len(label) == 4 for label in labels):
            steps = {int(b) - int(a) for a, b in pairwise(labels)}
            return _letters(column.name) in ("year", *_TIME_NAMES) or steps in ({1}, {-1})
        is_epoch = _TIME_WORD.search(column.name) is not None and len(sample[0]) >= 10
        return is_epoch or _digit_format(labels) is not None
    if date_format is None and all(may_be_number(label) or is_missing(label) for label in sample):
        return False
    return 2 * sum(may_be_date(label, date_format) for label in sample) > len(sample)


def _is_all_days(column: Column) -> bool:
    return column.numbers is None and all(map(is_full_date, _labels(column.cells)))


def _digit_format(labels: Sequence[str]) -> str | None:
    """The format of dates in digits alone, where one reads all of them."""
    form = _DIGITS.get(len(labels[0])) if labels[0].isdecimal() else None
    if form is None or not all(label.isdecimal() and len(label) == len(labels[0]) for label in labels):
        return None
    try:
        if not all(datetime.strptime(label, form).year in _LIKELY_YEARS for label in set(labels)):
            return None
    except ValueError:
        return None
    if len(others := digit_formats(labels)) > 1:
        raise CellError(0, f"{quoted(labels[0])} is a date in digits alone; give {option('date_format', *others)}")
    return form


def _join(table: Table, names: Sequence[str]) -> Sequence[str]:
    """What the columns say of each row: the cell of one, or year, month, day and hour, or date and time, together."""
    columns = [_labels(table.column(name).cells) for name in names]
    if len(columns) == 1:
        return columns[0]
    import pandas as pd

    parts = {_part(name): _whole(labels) for name, labels in zip(names, columns, strict=True)}
    if all(parts.values()) and "year" in parts and len(parts) == len(names) and "" not in parts:
        if any(_letters(name) in ("quarter", "qtr") for name in names):
            parts["month"] = [3 * quarter - 2 for quarter in parts["month"]]
        stamps = pd.to_datetime(pd.DataFrame({"month": 1, "day": 1} | parts), errors="coerce")
    elif len(names) == 2 and (hours := parts.get("hour", [])) and max(hours) <= 24:
        days = read_dates(columns[0], None, table.where)
        start = pd.to_datetime([] if days is None else list(days.values))
        stamps = pd.Series(start + pd.to_timedelta(hours, unit="h") if len(start) else pd.NaT, index=range(len(table)))
    else:
        return [" ".join(parts) for parts in zip(columns[0], *map(_clocks, columns[1:]), strict=True)]
    if stamps.isna().any():
        row = int(stamps.isna().argmax())
        raise CellError(row, f"{' '.join(labels[row] for labels in columns)} is no time; correct or remove the row")
    return [str(stamp) for stamp in stamps]


def _whole(labels: Sequence[str]) -> list[int]:
    """The numbers of labels that are all whole numbers; none otherwise."""
    return list(map(int, labels)) if all(map(str.isdecimal, labels)) else []


def _clocks(labels: Sequence[str]) -> Sequence[str]:
    """Times of day with colons, where all have points."""
    return [label.replace(".", ":") for label in labels] if all(map(_DOTTED_CLOCK.fullmatch, labels)) else labels


def _counter(table: Table, name: str, labels: Sequence[str]) -> Sequence[Any]:
    """What sorts labels that are no dates: numbers, or times of one day, which rise."""
    others = [other for other in table.names if other != name and _part(other)]
    remedy = _spread([name, *others]) if others else f"give {option('date_format', '%d/%m/%Y')} or what fits"
    must_rise = _letters(name) in ("date", "dates", "datetime")
    if must_rise and all(map(_DAY_DIGITS.fullmatch, labels)):
        forms = digit_formats(labels)
        remedy = f"give {option('date_format', *forms)}" if forms else "write dates as 2020-01-31"
        raise CellError(
            0, f"{quoted(labels[0])} is a date in digits alone; {remedy}, or rename the column if it counts"
        )
    clocks = read_dates([f"2000-01-01 {label}" for label in labels]) if ":" in labels[0] else None
    keys: Sequence[Any] = clocks.values if clocks else [_number(label) for label in labels]
    for row, label in enumerate(labels):
        if keys[row] is None and is_missing(label):
            raise CellError(row, "the date is missing; fill it in or remove the row")
        if keys[row] is None:
            forms = short_year_formats(labels)
            remedy = f"its year has two digits; give {option('date_format', *forms)}" if forms else remedy
            raise CellError(row, f"{quoted(label)} was not read as a date; {remedy}")
    for row in range(1, len(labels) if must_rise or clocks else 0):
        if keys[row] <= keys[row - 1]:
            what = f"{quoted(labels[row])} comes after {quoted(labels[row - 1])}"
            raise CellError(row, f"{what}, so that the column does not date the rows; {remedy}")
    return keys


def _number(label: str) -> float | None:
    try:
        number = float(label.replace("_", "?"))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


# --- what speaks against the order ------------------------------------------------------------------------------------


def refuse_wide(table: Table) -> None:
    """Raise DataError where columns are times: one series a row."""
    first, names = table.columns[0], table.names
    dated = [name for name in names if is_full_date(name) or short_year_formats([name])]
    numbered = Counter(re.sub(r"\d+$", "", name) for name in names if name[-1:].isdecimal())
    [(stem, count)] = numbered.most_common(1) or [("", 0)]
    if len(dated) < 3 and count > len(names) / 2 and len(set(first.cells)) == len(table):
        dated = [name for name in names if re.fullmatch(re.escape(stem) + r"\d+", name)]
    if len(dated) >= 3:
        what = f"{len(dated)} columns are times ({listed(dated, 3)}): one series a row"
        raise table.refusal(f"{what}; transpose the table, so that there is one row for each time")


def _steps(column: Column) -> tuple[str, int]:
    """Whether a column that counts or dates "falls" or "repeats", and the first row that does; "" if neither."""
    runs = [re.findall(r"\d{1,15}", cell.removesuffix(".0")) for cell in column.cells]
    is_value = not _part(column.name) and re.search(r"\d[.,]\d", column.cells[0].removesuffix(".0"))
    if len(runs) < 3 or not runs[0] or len({len(run) for run in runs}) > 1 or is_value:
        return "", 0
    steps = np.diff(np.array(runs, dtype=np.int64), axis=0)
    falls, rises = (steps < 0).sum(axis=0), (steps > 0).sum(axis=0)
    (usual, count), *_ = Counter(steps[:, -1].tolist()).most_common(1)
    if steps.shape[1] == 1 and (usual == 0 or 2 * count <= len(steps)):
        return "", 0  # such as whole numbers that are values
    if (falls > 2 * rises).any() and not (rises > 2 * falls).any():
        return "falls", int((steps < 0).any(axis=1).argmax()) + 1
    first = {cell: row for row, cell in reversed([*enumerate(column.cells)])}
    row = next((row for row, cell in enumerate(column.cells) if first[cell] < row), 0)
    return "repeats" if row else "", row


def _keys(free: Sequence[Column]) -> list[Column]:
    """The columns that may tell series apart: texts or whole numbers, each several times."""
    whole = [c for c in free[:_SAMPLE] if c.numbers is None or (np.floor(c.numbers) == c.numbers).all()]
    keys = [column for column in whole if all(map(_may_be_key, column.cells[:_SAMPLE]))]
    return [column for column in keys if 1 < len(set(column.cells)) <= len(column.cells) / 2][:_MAX_KEYS]


def _may_be_key(cell: str) -> bool:
    return not is_missing(cell.strip()) and (not may_be_number(cell) or cell.strip().isdecimal())


def _are_unique(columns: Sequence[Sequence[str]]) -> bool:
    """Whether no two rows are alike in all columns; the first thousand are looked at first."""
    heads, rows = ({*zip(*(cells[:end] for cells in columns), strict=True)} for end in (1000, None))
    return len(heads) == min(1000, len(columns[0])) and len(rows) == len(columns[0])


def _changes(column: Column) -> int:
    return sum(a != b for a, b in pairwise(column.cells))


def _several(keys: Sequence[Column]) -> str:
    names, kinds = listed(column.name for column in keys), listed(dict.fromkeys(keys[0].cells), 3)
    remedy = options("where", [f"{column.name}={column.cells[0].strip()}" for column in keys])
    return f"several series found (column{'s' * (len(keys) > 1)} {names}: {kinds}); keep one by {remedy}"


def _spread(names: Sequence[str]) -> str:
    ordered = sorted(names, key=_rank)
    return f"the time is spread over {len(names)} columns ({listed(ordered)}); give {options('time', ordered)}"


def _labels(cells: Sequence[str]) -> Sequence[str]:
    """The cells without needless spaces."""
    text = "\n".join(cells)
    has_more = "  " in text or " \n" in text or "\n " in text or text != text.strip() or not set(text) <= _PLAIN
    return [" ".join(text.split()) for text in cells] if has_more else cells


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def is_index(name: str) -> bool:
    """Whether a column numbers or dates the rows, as its name has it."""
    return (_letters(name) or name) in _INDEX_NAMES or _counts(name)


def _counts(name: str) -> bool:
    """Whether a column counts the times of rows, as its name has it."""
    return _letters(name) in (*_TIME_NAMES, "t", "step", "period") or bool(_part(name) or _WEEK.search(name))


def _part(name: str) -> str:
    """The part of a time that a column says, as its name has it; empty for none."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    return next((part for part, known in _PARTS.items() if not words.isdisjoint(known.split())), "")


def _rank(name: str) -> int:
    """The place of a column's part of a time, from the year down; a whole date comes first."""
    return [*_PARTS].index(part) if (part := _part(name)) else -1
