"""The generated page of results, ``benchmarks/conformance.md``."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Context
from typing import Any

from benchmarks.conformance.cases import Case, Peer

KINDS = ("outputs", "gradients")

CONVENTIONS = (
    "**Differences.** Each number is the largest absolute difference of two elements, divided by the largest absolute "
    "element of their array (or not divided if that array is all zeros). Each row shows the maximum over all arrays "
    "and cases, rounded up. Sections with absolute differences say so. Gradients are those of the input, the initial "
    "state and every weight and bias, from random gradients of the hidden states at all steps and of the final states.",
    "**Gate order.** gru-xp stacks update z, reset r, candidate n and computes `h' = (1 - z) * h + z * n`. PyTorch "
    "stacks r, z, n; Keras and ONNX stack z, r, n. All three compute `h' = z * h + (1 - z) * n`, so conversion flips "
    "the sign of the rows for z. They have a second bias for every gate, which is random here; conversion adds it to "
    'the first bias for z and r, and for n only with `reset="before"`.',
    "**Sequences of length 0.** gru-xp and Keras return the initial state as the final state. ONNX and onnxruntime "
    "return 0, so our final state is replaced with 0 before the comparison. PyTorch rejects length 0.",
    "**Padded steps.** After the end of a sequence, gru-xp, PyTorch and onnxruntime output 0. Keras repeats the last "
    "output, or outputs 0 with `zero_output_for_mask=True`, which `Bidirectional` sets; otherwise, only steps "
    "before the end are compared. With `return_sequences=False`, Keras outputs 0 for a sequence of length 0, although "
    "its final state is the initial state.",
    "**Reverse direction.** gru-xp, PyTorch, ONNX and Keras' `Bidirectional` return each output at its own time step. "
    "A Keras layer with `go_backwards=True` returns outputs in reverse order; they are put in chronological order "
    "before the comparison.",
    "**Masks with gaps.** At a masked step, Keras keeps the state and repeats it as the output. In gru-xp, this is "
    "zoneout of every element, through `update_mask`. Keras ignores the mask of a `Masking` layer if `initial_state` "
    "is given, so cases with this layer have no initial state.",
    "**float64 in Keras.** On backends other than TensorFlow, Keras' `matmul` rounds float64 to float32. float64 is "
    "compared only where Keras does not use it: with `reset_after=True` and no mask.",
    "**ONNX `clip`** has no counterpart in gru-xp. Half of the onnxruntime cases set it to an upper bound of all gate "
    "arguments, so that it has no effect.",
    "**Dropout.** Each library draws different random numbers. Dropout is therefore compared at rate 0, in prediction, "
    "and with gru-xp's masks applied to PyTorch's layers. No other library here has recurrent dropout of the "
    "candidate (Semeniuta et al. 2016; Keras' `recurrent_dropout` is a different method); its gradients are tested "
    "against finite differences in `tests/nn`.",
    '**`mse_loss`** with `reduction="sum"` sums over sequences and averages over outputs; PyTorch\'s sum is divided by '
    "the number of outputs. Labels that gru-xp's `mask` excludes are set to PyTorch's `ignore_index`.",
    "**Other array libraries.** gru-xp also runs on arrays of PyTorch, JAX, dask and array-api-strict; `tests/nn` "
    "compares the results with those on NumPy arrays, and gradients with those of PyTorch's autograd and `jax.grad`.",
)


@dataclass
class Row:
    """All cases of one variant in one precision."""

    variant: str
    dtype: str
    limit: float
    cases: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all cases were computed and are within the limit."""
        return not self.problems and all(found <= self.limit for found in self.largest.values())

    def add(self, found: dict[str, float]) -> None:
        """Include the differences of one more case."""
        for kind, number in found.items():
            self.largest[kind] = max(self.largest.get(kind, 0.0), math.inf if math.isnan(number) else number)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of this row in the table."""
        numbers = [difference_text(self.largest.get(kind), self.limit) for kind in KINDS]
        return self.variant, self.dtype, str(self.cases), *numbers, f"{self.limit:.0e}".replace("e-0", "e-")


@dataclass
class Section:
    """All rows of one library."""

    peer: Peer
    versions: dict[str, str]
    missing: list[str]
    rows: list[Row] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """Number of cases."""
        return sum(row.cases for row in self.rows)

    def run(self, case: Case) -> Row:
        """Run a case, include its differences in its row, and return that row."""
        key = (case.variant, case.dtype, case.limit)
        row = next((row for row in self.rows if (row.variant, row.dtype, row.limit) == key), None)
        if row is None:
            row = Row(*key)
            self.rows.append(row)
        row.cases += 1
        try:
            row.add(case.measure())
        except Exception as error:  # the other cases still run
            reason = " ".join(str(error).split()) or type(error).__name__
            row.problems.append(f"{case.id}: {type(error).__name__}: {reason}")
        return row


def difference_text(found: float | None, limit: float) -> str:
    """Format a difference with two digits, rounded up; bold above the limit, empty for None."""
    if found is None:
        return ""
    text = "not finite" if not math.isfinite(found) else upwards(found)
    return text if found <= limit else f"**{text}**"


def upwards(number: float) -> str:
    """Round up to two digits, such as ``3.2e-16``."""
    if number == 0:
        return "0"
    return f"{Context(prec=2, rounding=ROUND_UP).create_decimal(repr(number)):.1e}"


def page(sections: Sequence[Section], machine: dict[str, Any], versions: dict[str, Any], date: str) -> str:
    """Return the whole page in Markdown."""
    return "\n".join(_lines(sections, machine, versions, date)) + "\n"


def _lines(sections: Sequence[Section], machine: dict[str, Any], versions: dict[str, Any], date: str) -> Iterator[str]:
    total = sum(section.cases for section in sections)
    wrong = [(section, row) for section in sections for row in section.rows if not row.ok]
    yield "# Agreement with other libraries"
    yield ""
    yield (
        f"Generated by `python -m benchmarks conformance` on {date}: {total} comparisons, "
        + ("all within their limits." if not wrong else f"but {len(wrong)} row{'s' * (len(wrong) != 1)} failed.")
    )
    yield "`tests/benchmarks/test_conformance.py` runs the same comparisons."
    yield ""
    yield (
        f"{machine['system']}, {machine['cpu']}; gru-xp {versions['gru-xp']}, Python {versions['python']}, "
        f"NumPy {versions['numpy']}."
    )
    yield ""
    yield from _table(("library", "version", "cases", "outputs", "gradients"), list(_summary(sections)), left=2)
    yield ""
    yield (
        "*outputs* and *gradients* are the largest differences in any row below, for float64, then for float32, and "
        "with CUDA then for TF32."
    )
    for section in sections:
        if section.missing:
            yield ""
            yield f"Not compared with {section.peer.name}; missing here: {', '.join(section.missing)}."
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
                yield f"**Failed**: {problem}"


def _summary(sections: Sequence[Section]) -> Iterator[tuple[str, ...]]:
    for section in sections:
        if section.missing:
            yield section.peer.name, "not compared", "0", "", ""
            continue
        versions = ", ".join(f"{package} {version}" for package, version in section.versions.items())
        yield section.peer.name, versions, str(section.cases), *(_largest(section, kind) for kind in KINDS)


def _largest(section: Section, kind: str) -> str:
    """Return the largest difference in each precision."""
    texts = []
    for dtype in ("float64", "float32", "tf32"):
        rows = [row for row in section.rows if row.dtype == dtype and kind in row.largest]
        if rows:
            worst = max(rows, key=lambda row: row.largest[kind])
            texts.append(difference_text(worst.largest[kind], worst.limit))
    return ", ".join(texts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """Yield the lines of a Markdown table whose first `left` columns are left-aligned."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('---' if number < left else '--:' for number in range(len(header)))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
