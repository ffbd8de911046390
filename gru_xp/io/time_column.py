"""Which columns date the rows of a table, and what the table itself says against the order of its rows."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import combinations, takewhile
from math import prod
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
_FILLERS = {"ending", "end", "start", "of", "the", "local", "utc", "num", "number", "date"}
_ROW_NAMES = ("", "index", "unnamed", "no", "nr", "row", "level")
_INDEX_NAMES = (*_ROW_NAMES, "id")
_STEP_NAMES = (*_ROW_NAMES, "t", "step")
_COUNTER_NAMES = (*_TIME_NAMES, *_STEP_NAMES, "period")
_TIME_WORD = re.compile("date|time|stamp|epoch|unix|^ts$", re.IGNORECASE)
_PARTS = {
    "year": "year yr yyyy yy jahr jaar år año ano année anno rok vuosi год 年",
    "month": "month mo mon quarter qtr monat maand mes mês mois mese kuukausi месяц 月",
    "day": "day dy dd tag dag día dia jour giorno päivä день 日",
    "hour": "hour hours h hr hh he hhmm hhmmss time clock hora heure ora stunde uhrzeit zeit tid aika час время"
    " 时间 時刻 시간",
    "minute": "minute min",
}
_QUARTER = re.compile("quarter|qtr", re.IGNORECASE)
_WEEK = re.compile(r"(?<![a-z])(weeks?|wk)(?![a-z])", re.IGNORECASE)
_YEAR_WEEK = re.compile(r"\d{4}[-/]\d\d?|\d\d?[-/]\d{4}")
_YEAR_POINT_MONTH = re.compile(r"(1[89]|2[01])\d\d\.(0[1-9]|1[0-2])")
_CLOCK_TEXT = re.compile(r"(\d\d?)[.:](\d\d)(?:[.:](\d\d))?(?: ?[-–] ?\d\d?[.:]\d\d)?")
_NEEDLESS = ("  ", " \n", "\n ", "\t", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f")
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
    names = tuple(table.column(name).name for name in how.time) or _find(table, how, used)
    if not names:
        return None
    if how.time and (taken := [name for name in names if name in used]):
        raise table.refusal(f"column {quoted(taken[0])} is the target; name another one by {option('time')}")
    try:
        labels, form = _join(table, names, how.date_format)
        if how.date_format is None and _WEEK.search(names[0]) and all(map(_YEAR_WEEK.fullmatch, labels)):
            raise CellError(0, f"{quoted(labels[0])} may be a week or a month; write weeks as 2024-W01")
        if how.date_format is None and all(map(_YEAR_POINT_MONTH.fullmatch, labels)):
            remedy = option("date_format", "%Y.%m")
            raise CellError(0, f"{quoted(labels[0])} may be a month or a fraction of a year; for months, give {remedy}")
        is_time = bool(how.time or _TIME_WORD.search(names[0]))
        dates = read_dates(labels, form or _digit_format(labels), table.where, is_time=is_time)
        return Times(names, labels, dates, dates.keys if dates else _counter(names[0], labels))
    except CellError as error:
        raise table.cell_refusal(names[0], error) from error


def _find(table: Table, how: ReadOptions, used: Collection[str]) -> tuple[str, ...]:
    """The name of the column that dates the rows; empty if no column does."""
    date_format = how.date_format
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if not free or len(table.columns) == 1:
        return ()
    named = [column for name in _TIME_NAMES for column in free if _letters(column.name) == name]
    others = free if date_format is not None else _first(table, free)
    found = [column for column in (*named, *others) if _has_dates(column, date_format)]
    if not found:
        days = _columns_of_days(free)
        found = days if len(days) == 1 else named if date_format is None else [*named, *others]
    if not found and how.order is None:
        refuse_wide(table)
        # if no target is named, a column of numbers may be it
        others = [c for c in free if used or _is_counter_name(c.name) or not may_be_number(c.cells[0])]
        if not tell_rows_apart(table, None, used).values and not any(_order_problems(table, others)):
            found = [column for column in free if _letters(column.name) != "id" and counts_rows(column)]
    return tuple(column.name for column in found[:1])


def _first(table: Table, free: Sequence[Column]) -> list[Column]:
    """The first column, and the first one that varies and does not number the rows, if they are free."""
    others = (c for c in table.columns if _letters(c.name) not in _INDEX_NAMES and len(set(c.cells)) > 1)
    first = table.columns[0]
    return [column for column in dict.fromkeys((first, next(others, first))) if column in free]


def _has_dates(column: Column, date_format: str | None) -> bool:
    """Whether a column has dates: most cells of a sample, or, where they are numbers, all cells."""
    sample = _labels(column.cells[:_SAMPLE])
    if date_format is not None or not all(may_be_number(label) or is_missing(label) for label in sample):
        likely = (may_be_date(label, date_format) or (not date_format and _is_short(label)) for label in sample)
        return 2 * sum(likely) > len(sample)
    labels = _labels(column.cells)
    if all(map(_YEAR_POINT_MONTH.fullmatch, labels)):
        return True
    if all(re.fullmatch(r"\d{4}", label) for label in labels):
        return _letters(column.name) in ("year", *_TIME_NAMES) or set(np.diff(_numbers(labels))) in ({1}, {-1})
    is_epoch = _TIME_WORD.search(column.name) and len(sample[0]) >= 10 and may_be_date(sample[0], is_time=True)
    return bool(is_epoch) or _digit_format(labels) is not None


def _is_short(label: str) -> bool:
    """Whether a label is a date with a year of two digits."""
    return not may_be_number(label) and short_year_formats([label]) != ()


def _columns_of_days(columns: Sequence[Column]) -> list[Column]:
    """The columns of which every cell is a day with its year, in digits alone if it has eight or more."""

    def are_days(labels: Sequence[str]) -> bool:
        return all(map(is_full_date, labels)) or (len(labels[0]) > 7 and _digit_format(labels) is not None)

    return [column for column in columns if are_days(_labels(column.cells))]


def _counts_up(column: Column) -> bool:
    """Whether a column has whole numbers that rise, so that they may count or date the rows."""
    numbers = _numbers(column.cells)
    return bool((np.floor(numbers) == numbers).all() and (np.diff(numbers) > 0).all())


def _join(table: Table, names: Sequence[str], date_format: str | None) -> tuple[list[str], str | None]:
    """What the columns say of each row, one after the other, and the format that reads it.

    Times of day in digits alone, or with the hour 24, are added to the date, which then is in ISO 8601.
    """
    first, *others = (table.column(name) for name in names)
    labels, date_format = _labels(first.cells), None if first.is_dated else date_format
    for column in others:
        cells, part = _labels(column.cells), _part(column.name)
        may_be_clock = part in ("hour", "minute") or (part == "" and is_full_date(labels[0]))
        clocks = _clocks(cells, part) if may_be_clock else None
        is_text = all(":" in cell and not cell.startswith("24") and len(cell) < 9 for cell in cells)
        if clocks and not is_text and (dates := read_dates(labels, date_format, table.where)):
            labels = [str(date + clock) for date, clock in zip(dates.values, clocks, strict=True)]
            date_format = None
            continue
        sign = " " if part in ("hour", "minute", "") else "-"
        sign = "-Q" if _QUARTER.search(column.name) and cells[0].isdecimal() else sign
        labels = [f"{label}{sign}{cell}" for label, cell in zip(labels, cells, strict=True)]
    return labels, date_format


def _clocks(cells: Sequence[str], part: str) -> list[timedelta] | None:
    """Times of day: hours up to 24, minutes, HHMM, or hours and minutes with a sign, the first of two."""
    if all(map(str.isdecimal, cells)):
        numbers = list(map(int, cells))
        if part == "minute" or max(numbers) <= 24:
            return [timedelta(hours=number) * (1 / 60 if part == "minute" else 1) for number in numbers]
        if max(numbers) < 100:
            return None
        size = 10_000 if max(numbers) >= 10_000 else 100
        parts = [(n // size, n % size * 100 // size, n % 100 if size > 100 else 0) for n in numbers]
    else:
        matches = [_CLOCK_TEXT.fullmatch(cell) for cell in cells]
        parts = [(int(m[1]), int(m[2]), int(m[3] or 0)) for m in matches if m]
    if len(parts) < len(cells) or any(hour > 24 or minute > 59 for hour, minute, _ in parts):
        return None
    return [timedelta(hours=hour, minutes=minute, seconds=second) for hour, minute, second in parts]


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
    kinds = {column: len(set(column.cells)) for column in _keys([c for c in free if c.name not in names])}
    ids = [column for column, count in kinds.items() if 2 * count <= len(table) and not _part(column.name)]
    labels = times.labels if times else ()
    if not times:
        if any(_counts_up(c) for c in free if _is_counter_name(c.name) and _letters(c.name) not in _INDEX_NAMES):
            return Apart()
        changes = {column: sum(map(ne, column.cells, column.cells[1:])) for column in kinds}
        if blocks := [key for key in ids if changes[key] < kinds[key] and not may_be_number(key.cells[0])]:
            return _several(blocks[:1])
        # the time is the one that counts, or changes most often
        likely = [key for key in kinds if _is_counter_name(key.name) or _order_problem(key)[1]]
        if not likely:
            return Apart()
        time = max(likely, key=lambda key: (_is_counter_name(key.name), changes[key]))
        ids, labels = [key for key in ids if key is not time], time.cells
    times_count = len(set(labels))
    for some in (some for count in (1, 2, 3) for some in combinations(ids, count)):
        is_panel = 2 * len(table) >= times_count * prod(kinds[key] for key in some)  # and not unique by chance
        if (times or is_panel) and _are_unique([labels, *(key.cells for key in some)]):
            return _several(some)
    return Apart()


def _several(keys: Sequence[Column]) -> Apart:
    kinds = listed(dict.fromkeys(keys[0].cells), 3)
    found = f"several series found (column{'s' * (len(keys) > 1)} {listed(key.name for key in keys)}: {kinds})"
    values = [f"{key.name}={key.cells[0].strip()}" for key in keys]
    return Apart(f"{found}; keep one by {options('where', values)}", "where", values)


def repeats_remedy(table: Table, times: Times, used: Collection[str]) -> str:
    """What to do about rows of the same time."""
    one_row = f"keep one row of each time, or give {option('on_duplicate', 'first', 'last', 'mean')}"
    return tell_rows_apart(table, times, used).message or one_row


def _keys(columns: Sequence[Column]) -> list[Column]:
    """The columns that may tell series apart: texts or whole numbers, each several times."""

    def is_key(cell: str) -> bool:
        return is_missing(cell) or cell.strip().removesuffix(".0").isdecimal() or not may_be_number(cell)

    keys = [column for column in columns[:_SAMPLE] if all(map(is_key, column.cells[:_SAMPLE]))]
    limit = {key: len(key.cells) - 1 if _is_counter_name(key.name) else len(key.cells) / 2 for key in keys}
    return [column for column in keys if 1 < len(set(column.cells)) <= limit[column]][:_MAX_KEYS]


def _are_unique(columns: Sequence[Sequence[str]]) -> bool:
    """Whether no two rows are alike in all columns; the first thousand are looked at first."""
    parts = ([cells[:end] for cells in columns] for end in (1000, None))
    return all(len({*zip(*part, strict=True)}) == len(part[0]) for part in parts)


def _parts_of_time(names: Sequence[str], times: Sequence[str]) -> list[str]:
    """The columns that a time is spread over: year, month and so on, or a date, such as in `times`, and hours."""
    calendar = _first_parts(names, _PARTS)
    clock = _first_parts([name for name in names if name not in times], ("hour", "minute"))
    parts = calendar if set(times) <= set(calendar) else [*times, *clock]
    return parts if len(parts) > max(len(times), 1) else []


def _first_parts(names: Sequence[str], parts: Iterable[str]) -> list[str]:
    """The columns of the first parts of a time, as far as there are any; of a month rather than a quarter."""
    preferred = sorted(names, key=lambda name: bool(_QUARTER.search(name)))
    by_part = {_part(name): name for name in reversed(preferred)}
    return [by_part[part] for part in takewhile(by_part.__contains__, parts)]


# --- what speaks against the order --------------------------------------------------------------------------------


def check_order(table: Table, used: Collection[str]) -> str:
    """See whether rows without a time may be in chronological order, and return what to say of them.

    Raises
    ------
    DataError
        A counter falls or repeats, or several series are one below the other.
    """
    as_is = f"if the rows are in chronological order, give {option('order', 'oldest-first')}"
    free = [column for column in table.columns if column.name not in used][:_SAMPLE]
    if apart := tell_rows_apart(table, None, used).message:
        raise table.refusal(f"{apart}; {as_is}")
    for name, row, problem in _order_problems(table, free):
        raise table.cell_refusal(name, CellError(row, f"{problem}, or, {as_is}"))
    if not free:
        return f"no time column found; rows are taken as oldest first; if not, give {option('order', 'newest-first')}"
    looked = f"column {quoted((_first(table, free) or free)[-1].name)} was not read as dates"
    if len(days := [column.name for column in _columns_of_days(free)]) > 1:
        looked = f"{len(days)} columns look like dates: {listed(days)}"
    return f"no time column found ({looked}); rows are taken as oldest first; name one with {option('time', 'NAME')}"


def refuse_wide(table: Table) -> None:
    """Raise DataError where columns are times: one series a row."""
    others = table.names[1:]
    named = [c for c in table.columns[:3] if not any(map(may_be_number, c.cells)) and len(set(c.cells)) == len(table)]
    texts = {name: re.sub(r"[\[(].*", "", name).strip() for name in table.names}
    times = [name for name, text in texts.items() if _is_dated(text)]
    if len(times) < 3 and named:  # a series in each row
        stems = {name: re.sub(r"\d+", "#", name) for name in others if re.search(r"\d", name)}
        numbered = Counter(stems.values())
        counted = [name for name, stem in stems.items() if 2 * numbered[stem] > len(others) + 1]
        times = counted or [name for name in others if _is_part_of_time(texts[name])]
    if len(times) >= 3:
        what = f"{len(times)} columns are times ({listed(times, 3)}): one series a row"
        raise table.refusal(f"{what}; transpose the table, so that there is one row for each time")


def _is_dated(name: str) -> bool:
    """Whether the name of a column is a date, or a period with its year."""
    return (may_be_date(name) and (not name.isdecimal() or name.startswith(("19", "20")))) or _is_short(name)


def _is_part_of_time(name: str) -> bool:
    """Whether the name of a column is that of a month, or a time of day."""
    is_month = not name[-1:].isdecimal() and may_be_date(f"1 {name} 2000")
    return is_month or (":" in name and may_be_date(f"2000-01-01 {name}"))


def _order_problems(table: Table, free: Sequence[Column]) -> Iterator[tuple[str, int, str]]:
    """The columns that count or date the rows, but fall or repeat, in which row, and what to do."""
    first = _first(table, free)
    for column in free:
        if column in first or _letters(column.name) in (*_STEP_NAMES, "id"):
            row, problem = _order_problem(column)
            if problem:
                yield column.name, row, problem


def _order_problem(column: Column) -> tuple[int, str]:
    """What a column shows that counts or dates the rows, in whatever words, but falls or repeats, and in which row."""
    cells = [cell.strip().removesuffix(".0") for cell in column.cells]
    runs = [re.findall(r"\d{1,15}", cell) for cell in cells]
    newest = f"give {option('order', 'newest-first')} if the rows are newest-first"
    numbers = _numbers(cells)
    if len(cells) > 7 and (np.diff(numbers) < 0).all():
        return 1, f"falls, from {quoted(cells[0])} to {quoted(cells[-1])}; {newest}"
    has_fractions = re.search(r"\d[.,]\d", cells[0]) and not _part(column.name)
    if len(runs) < 3 or not runs[0] or len(set(map(len, runs))) > 1 or has_fractions:
        return 0, ""
    steps = np.diff(np.array(runs, dtype=np.int64), axis=0)
    (usual, count), *_ = Counter(steps[:, -1].tolist()).most_common(1)
    is_value = steps.shape[1] == 1 and (usual == 0 or 2 * count <= len(steps))
    is_index = _letters(column.name) in _ROW_NAMES and len(set(cells)) == len(cells)
    if is_value and not is_index and not (_is_counter_name(column.name) and (steps >= 0).all()):
        return 0, ""
    falls, rises = (steps < 0).sum(axis=0), (steps > 0).sum(axis=0)
    if (falls > 2 * rises).any() and not (rises > 2 * falls).any():
        what = f"falls, from {quoted(cells[0])} to {quoted(cells[-1])}"
        return int((steps < 0).any(axis=1).argmax()) + 1, f"{what}; {newest}"
    first = {cell: row for row, cell in reversed([*enumerate(cells)])}
    if row := next((row for row, cell in enumerate(cells) if first[cell] < row), 0):
        what = f"{quoted(cells[row])} repeats, so that the column does not date the rows"
        return row, f"{what}; name one by {option('time', 'NAME')}"
    if steps.shape[1] == 1 and _letters(column.name) in _STEP_NAMES and (steps < 0).any():
        row = int((steps < 0).argmax()) + 1
        what = f"{quoted(cells[row])} comes after {quoted(cells[row - 1])}"
        return row, f"{what}; to sort the rows by it, give {option('time', column.name)}"
    return 0, ""


# --- cells and names ----------------------------------------------------------------------------------------------


def _labels(cells: Sequence[str]) -> list[str]:
    """The cells with single spaces."""
    text = "\n".join(cells)
    if text.isascii() and text == text.strip() and not any(sign in text for sign in _NEEDLESS):
        return list(cells)
    return [" ".join(cell.split()) for cell in cells]


def _numbers(cells: Sequence[str]) -> Floats:
    """The numbers of cells, NaN for others."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return numbers.replace([np.inf, -np.inf], np.nan).to_numpy(np.float64)


def _letters(name: str) -> str:
    """The small letters of a name, and its digits, but for those that pandas adds."""
    return re.sub(r"^(unnamed|level)\d+$", r"\1", re.sub("[^a-z0-9]", "", name.lower())) or name


def counts_rows(column: Column) -> bool:
    """Whether a column counts the rows or their times, as its name and its numbers have it."""
    return (_letters(column.name) == "id" or _is_counter_name(column.name)) and _counts_up(column)


def is_calendar(name: str) -> bool:
    """Whether a column says a part of a time, as its name has it."""
    return bool(_part(name)) or _letters(name) in ("week", "weeks", "wk", "weekofyear", "yearweek")


def _is_counter_name(name: str) -> bool:
    return _letters(name) in _COUNTER_NAMES or is_calendar(name)


def _part(name: str) -> str:
    """The part of a time that a column says, as its name has it; empty for none."""
    if name in ("MM", "mm"):
        return "month" if name == "MM" else "minute"
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)} - _FILLERS or {name.strip().lower()}
    words = {name.strip().lower()} if re.search(r"\d|[^\x00-\x7f]", name) else words
    return next((part for part, known in _PARTS.items() if words <= set(known.split())), "")
