"""Files of all sorts, drawn by hypothesis: what is read is what Python's csv module and `float` find there."""

import csv
import gzip
import io
import math
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from gru_xp.errors import DataError
from gru_xp.io.options import CHOICES, ReadOptions
from gru_xp.io.read import read

LARGEST = 1e150
EMPTY = ["", "NA", "N/A", "nan", "NULL", "None", "#N/A", "-", '""']


class File(NamedTuple):
    """A file and what it was made of."""

    content: bytes
    header: list[str]
    rows: list[list[str]]
    delimiter: str
    options: ReadOptions
    encoding: str


# --- drawing ----------------------------------------------------------------------------------------------------

floats = st.floats(allow_nan=False, allow_infinity=False, min_value=-LARGEST, max_value=LARGEST)
plain = st.one_of(
    floats.map(repr),
    st.integers(-(10**18), 10**18).map(str),
    st.builds("{:.{}{}}".format, floats, st.integers(0, 12), st.sampled_from("eg")),
    st.builds(
        "{}{}{}".format, st.sampled_from(["", " ", "  "]), floats.map("{:+.3g}".format), st.sampled_from(["", " "])
    ),
)
grouped = st.one_of(
    st.builds("{:,.2f}".format, st.floats(-1e12, 1e12)), st.integers(-(10**12), 10**12).map("{:,}".format)
)
wild = st.one_of(
    plain,
    grouped,
    st.sampled_from(EMPTY),
    st.sampled_from(
        ["inf", "-Infinity", "1e400", "1_000", "0x1p3", "(5.0)", "1.5.2", "$5", "5 €", "7%", "\u22123", "1,5"]
    ),
    st.text(max_size=6),
    st.text(alphabet='0123456789.,-+eE "\u2009\u2212$%;', max_size=8),
)
names = st.text(alphabet="abcXYZ_ ()%,;\"'|#é\n", min_size=1, max_size=8).map(lambda text: " ".join(text.split()))


@st.composite
def files(draw, cells=wild, names=names, damaged=False):
    """A file of a few columns, written by Python's csv module in one of many ways."""
    count = draw(st.integers(1, 4))
    header = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    header = [name.strip() or f"c{i}" for i, name in enumerate(header)]
    rows = draw(st.lists(st.lists(cells, min_size=count, max_size=count), min_size=1, max_size=6))
    if draw(st.booleans()):
        header = ["Date", *header]
        days = draw(st.permutations([f"2020-01-{day:02d}" for day in range(1, len(rows) + 1)]))
        rows = [[day, *row] for day, row in zip(days, rows, strict=True)]
    delimiter = draw(st.sampled_from(",;\t|"))
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=delimiter,
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerows([header, *rows])
    text = text.getvalue()
    for _ in range(draw(st.integers(1, 4)) if damaged else 0):
        position = draw(st.integers(0, len(text)))
        end = position + draw(st.integers(0, 3))
        text = text[:position] + draw(st.text(alphabet="0123456789eE+-.,;\t|\"' \n\r:/aNn€\0", max_size=3)) + text[end:]
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    content = text.encode(encoding, "replace")
    content = gzip.compress(content, 1) if draw(st.integers(0, 3)) == 0 else content
    options = ReadOptions(
        decimal=draw(st.sampled_from([None, None, ".", ","])),
        missing=draw(st.sampled_from(CHOICES["missing"])),
        on_duplicate=draw(st.sampled_from([None, "first"])),
    )
    return File(content, header, rows, delimiter, options, encoding)


# --- judging ----------------------------------------------------------------------------------------------------


def tables(file):
    """The rows of the file by Python's csv module, for each delimiter that it may have."""
    content = gzip.decompress(file.content) if file.content.startswith(b"\x1f\x8b") else file.content
    text = content.decode(file.encoding)
    for delimiter in ",;\t|":
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
        except csv.Error:
            continue
        yield [row for row in rows if any(cell.strip() for cell in row) or len(row) == len(rows[0]) == 1]


def number(text, decimal):
    """A cell as `float` reads it, without thousands, units and unicode minus; nan where it is missing; else None."""
    text = text.strip().replace("\u2212", "-")
    if text.lower() in ("", "-", "--", ".", "na", "n/a", "nan", "+nan", "-nan", "null", "none", "#n/a"):
        return math.nan
    if (plain := as_float(text)) is not None and decimal != ",":
        return plain
    other = "." if decimal == "," else ","
    for sign in (other, "\u2009", "\u00a0", "\u202f", "$", "€", "%", " "):
        text = text.replace(sign, "")
    return as_float(text.replace(",", "."))


def as_float(text):
    try:
        return float(text)
    except ValueError:
        return None


def as_found(series, table, options):
    """Whether the values of the series are those of the rows of a table, by label where they have one."""
    header, *rows = table
    header = [" ".join(name.split()) for name in header]
    if series.target not in header or any(len(row) < len(header) for row in rows):
        return False
    target = header.index(series.target)
    if series.labels is None:
        return agrees(series.values[:, 0].tolist(), [number(row[target], options.decimal) for row in rows], options)
    return any(
        agrees_by_label(series, [(" ".join(row[index].split()), number(row[target], options.decimal)) for row in rows])
        for index in range(len(header))
    )


def agrees(values, column, options):
    """Whether values are those of a column, whose missing ones were treated."""
    if None in column:
        return False
    there = [value for value in column if not math.isnan(value)]
    if options.missing == "drop" or len(there) == len(column):
        return values == there
    if options.missing == "ffill":
        column = column[next(i for i, value in enumerate(column) if not math.isnan(value)) :]
    same = len(values) == len(column)
    return same and all(a == b for a, b in zip(values, column, strict=True) if not math.isnan(b))


def agrees_by_label(series, cells):
    """Whether each label is one of the cells, and stands beside its value, if that was not missing."""
    found = {}
    for label, value in cells:
        found.setdefault(label, []).append(value)
    if not set(series.labels) <= set(found):
        return False
    return all(
        any(other is not None and (other == value or math.isnan(other)) for other in found[label])
        for label, value in zip(series.labels, series.values[:, 0].tolist(), strict=True)
    )


def check(path, file, target):
    """Read the file: refused in one line, or with the numbers that are there."""
    path.write_bytes(file.content)
    try:
        series = read(path, target, (), file.options)
    except DataError as error:
        assert str(error).isprintable()  # noqa: PT017 (both ways are right)
        return
    assert all(map(math.isfinite, series.values.ravel()))
    assert any(as_found(series, table, file.options) for table in tables(file)), series


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "drawn.csv"


def draw_files(test, examples):
    """Run ``test(data)`` for as many files as `examples`, the same ones each time."""
    settings = hypothesis.settings(
        max_examples=max(1, round(examples)),
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(st.data())(test))()


@pytest.mark.slow
def test_files_of_all_sorts(path, share):
    def test(data):
        file = data.draw(files())
        check(path, file, data.draw(st.sampled_from([*file.header, None])))

    draw_files(test, 2000 * share)


@pytest.mark.slow
def test_damaged_files(path, share):
    def test(data):
        file = data.draw(files(cells=st.one_of(plain, grouped), damaged=True))
        check(path, file, data.draw(st.sampled_from([*file.header, None])))

    draw_files(test, 1500 * share)


@pytest.mark.slow
def test_files_of_numbers_are_read(path, share):
    """They must not be refused, and every bit is the one that `float` gives."""

    def test(data):
        file = data.draw(files(cells=plain, names=st.text(alphabet="abcXYZé", min_size=1, max_size=8)))
        target = data.draw(st.sampled_from([name for name in file.header if name != "Date"]))
        path.write_bytes(file.content)
        series = read(path, target, (), ReadOptions(order="oldest-first"))
        column = file.header.index(target)
        rows = sorted(file.rows) if "Date" in file.header else file.rows
        assert series.values[:, 0].tolist() == [float(row[column]) for row in rows]
        assert series.columns == (target,)

    draw_files(test, 1500 * share)
