"""The page of results: ``benchmarks/conformance.md``."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Context
from typing import Any

from benchmarks.conformance.cases import Case, Peer

KINDS = ("outputs", "gradients")

CONVENTIONS = (
    "**Differences** are the largest of any element, in units of the largest element of the array that it is in (of "
    "the array itself where all of it is 0), and the largest of all arrays and cases; numbers are rounded up. "
    "Where it is another one, the peer's section says so. "
    "Gradients are those of the input, the first state and every weight and bias, for random gradients with respect "
    "to all states and the last ones.",
    "**Gates.** We stack update z, reset r, candidate n, and `h' = (1 - z) * h + z * n`. PyTorch stacks r, z, n, Keras "
    "and ONNX z, r, n; all three have `h' = z * h + (1 - z) * n`, so the rows of z change their sign. They have a "
    "second bias of every gate, random here: for z and r it is added to the first one, for n only with "
    '`reset="before"`.',
    "**Length 0.** Ours leaves the first state as the last one, as Keras does. An ONNX GRU gives 0 for it "
    "(onnxruntime does), and we compare with 0 there. PyTorch refuses it.",
    "**After a sequence's end**, ours, PyTorch and onnxruntime give 0. Keras repeats the last output, or gives 0 with "
    "`zero_output_for_mask=True`, which `Bidirectional` sets; without it, only steps before the end are compared. "
    "With `return_sequences=False`, its output for a sequence of length 0 is 0, though its state is the first one.",
    "**Against time.** Ours has the outputs at their own steps, as `Bidirectional`, PyTorch and ONNX do. Keras' "
    "`go_backwards=True` alone has them in reverse order; they are turned round first.",
    "**A mask with gaps** in Keras keeps the state and repeats it as output: zoneout of all elements, our "
    "`update_mask`. A `Masking` layer's mask is lost in Keras when `initial_state` is given, so that is compared "
    "without.",
    "**float64 in Keras.** Outside TensorFlow its `matmul` rounds float64 to float32, so that float64 is compared only "
    "where it goes another way: with `reset_after=True` and no mask.",
    "**clip** of ONNX is not in ours. Half of the cases set it, to a bound of all arguments, so that it never acts.",
    "**Dropout** draws other numbers in every library. It is compared with rate 0, in prediction, and with the masks "
    "that we draw put into PyTorch's layers. Recurrent dropout of the candidate (Semeniuta et al. 2016), which no "
    "peer has (Keras' `recurrent_dropout` is another one), is held against finite differences only.",
    '**mse_loss** with `reduction="sum"` is a sum over sequences, but a mean over outputs; PyTorch\'s sum is divided '
    "by their number. Labels that our `mask` leaves out have PyTorch's `ignore_index`.",
    "**JAX** is no peer here: its arrays cannot be written in place, which our passes do "
    "([gru_xp/nn/README.md](../gru_xp/nn/README.md) says why).",
)


@dataclass
class Row:
    """A variant's cases in one precision."""

    variant: str
    dtype: str
    limit: float
    cases: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all was computed, and is within the limit."""
        return not self.problems and all(found <= self.limit for found in self.largest.values())

    def add(self, found: dict[str, float]) -> None:
        """One more case."""
        for kind, number in found.items():
            self.largest[kind] = max(self.largest.get(kind, 0.0), math.inf if math.isnan(number) else number)

    def cells(self) -> tuple[str, ...]:
        """Of the page's table."""
        numbers = [difference_text(self.largest.get(kind), self.limit) for kind in KINDS]
        return self.variant, self.dtype, str(self.cases), *numbers, f"{self.limit:.0e}".replace("e-0", "e-")


@dataclass
class Section:
    """A peer's rows."""

    peer: Peer
    versions: dict[str, str]
    missing: list[str]
    rows: list[Row] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many."""
        return sum(row.cases for row in self.rows)

    def run(self, case: Case) -> Row:
        """Take a case's difference into its row, which is returned."""
        key = (case.variant, case.dtype, case.limit)
        row = next((row for row in self.rows if (row.variant, row.dtype, row.limit) == key), None)
        if row is None:
            row = Row(*key)
            self.rows.append(row)
        row.cases += 1
        try:
            row.add(case.measure())
        except Exception as error:  # the others are compared all the same
            reason = " ".join(str(error).split()) or type(error).__name__
            row.problems.append(f"{case.id}: {type(error).__name__}: {reason}")
        return row


def difference_text(found: float | None, limit: float) -> str:
    """Two digits, rounded up; bold above the limit, empty if there is none."""
    if found is None:
        return ""
    text = "not finite" if not math.isfinite(found) else upwards(found)
    return text if found <= limit else f"**{text}**"


def upwards(number: float) -> str:
    """Such as ``3.2e-16``, rounded up."""
    if number == 0:
        return "0"
    return f"{Context(prec=2, rounding=ROUND_UP).create_decimal(repr(number)):.1e}"


def page(sections: Sequence[Section], machine: dict[str, Any], versions: dict[str, Any], date: str) -> str:
    """The whole page."""
    return "\n".join(_lines(sections, machine, versions, date)) + "\n"


def _lines(sections: Sequence[Section], machine: dict[str, Any], versions: dict[str, Any], date: str) -> Iterator[str]:
    total = sum(section.cases for section in sections)
    wrong = [(section, row) for section in sections for row in section.rows if not row.ok]
    yield "# Agreement with others"
    yield ""
    yield (
        f"Written by `python -m benchmarks conformance` on {date}: {total} comparisons, "
        + ("all within their limits." if not wrong else f"of which those of {len(wrong)} rows are not right.")
    )
    yield "The tests run the same ones, case by case (`tests/benchmarks/test_conformance.py`)."
    yield ""
    yield (
        f"{machine['system']}, {machine['cpu']}; gru-xp {versions['gru-xp']}, Python {versions['python']}, "
        f"NumPy {versions['numpy']}."
    )
    yield ""
    yield from _table(("held against", "version", "cases", "outputs", "gradients"), list(_summary(sections)), left=2)
    yield ""
    yield "*outputs* and *gradients* are the largest of any row below, float64 before float32 where there are both."
    for section in sections:
        if section.missing:
            yield ""
            yield f"Not held against {section.peer.name}: not installed: {', '.join(section.missing)}."
    yield ""
    yield "## Conventions"
    yield ""
    for convention in CONVENTIONS:
        yield f"- {convention}"
    for section in sections:
        if not section.missing:
            yield ""
            yield f"## {section.peer.name}"
            yield ""
            yield section.peer.text
            yield ""
            header = ("variant", "precision", "cases", "outputs", "gradients", "limit")
            yield from _table(header, [row.cells() for row in section.rows], left=2)
            for problem in (problem for row in section.rows for problem in row.problems):
                yield ""
                yield f"**Not computed**: {problem}"


def _summary(sections: Sequence[Section]) -> Iterator[tuple[str, ...]]:
    for section in sections:
        if section.missing:
            yield section.peer.name, "not installed", "0", "", ""
            continue
        versions = ", ".join(f"{package} {version}" for package, version in section.versions.items())
        yield section.peer.name, versions, str(section.cases), *(_largest(section, kind) for kind in KINDS)


def _largest(section: Section, kind: str) -> str:
    """In each precision."""
    texts = []
    for dtype in ("float64", "float32"):
        rows = [row for row in section.rows if row.dtype == dtype and kind in row.largest]
        if rows:
            worst = max(rows, key=lambda row: row.largest[kind])
            texts.append(difference_text(worst.largest[kind], worst.limit))
    return ", ".join(texts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """In Markdown, the first `left` columns flush left."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('---' if number < left else '--:' for number in range(len(header)))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
