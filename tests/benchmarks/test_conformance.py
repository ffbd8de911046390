"""Comparisons with other libraries, which ``python -m benchmarks conformance`` runs too, and its page of results."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.conformance import command, onnx_cases, onnxruntime_cases, page
from benchmarks.conformance.cases import PEERS, Case, Peer, difference, draw_problem, our_stack
from gru_xp.interop.gates import PeerGates, from_peer

BY_KEY = {peer.key: peer for peer in PEERS}


def kind_of(peer: Peer, case: Case) -> str:
    """The first word or words of the variant; the ONNX node tests are one kind."""
    return "all" if peer.key == "onnx" else case.dtype if peer.key == "cuda" else case.variant.partition(",")[0]


MARKS = {"cuda": (pytest.mark.cuda, pytest.mark.slow), "jax": (pytest.mark.peer, pytest.mark.slow)}
"""Where quick tests in other folders compare the same things."""

KINDS = [
    pytest.param(key, kind, marks=MARKS.get(key, pytest.mark.peer))
    for key, kind in dict.fromkeys((peer.key, kind_of(peer, case)) for peer in PEERS for case in peer.cases())
]


def skip_without(key: str) -> None:
    if missing := BY_KEY[key].missing():  # importing Keras would choose its backend
        pytest.skip(f"could not import '{missing[0]}'")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread: on several, it takes much longer for such small arrays."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def too_large(case: Case) -> dict[str, float]:
    """The differences of a case that are above its limit, or not a number."""
    found = case.measure()
    assert found, case.id
    return {name: number for name, number in found.items() if not number <= case.limit}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("key", "kind"), KINDS, ids=lambda text: text.replace(" ", "-"))
def test_same_results(key: str, kind: str) -> None:
    skip_without(key)
    cases = [case for case in BY_KEY[key].cases() if kind_of(BY_KEY[key], case) == kind]
    failures = {case.id: found for case in cases if (found := too_large(case))}
    assert not failures


# --- what is compared -------------------------------------------------------------------------------------------


def test_limits_of_the_cases() -> None:
    """Of each precision; every case is in the report under a name of its own."""
    limits = {(key, "float64"): 1e-12 for key in BY_KEY} | {(key, "float32"): 1e-5 for key in BY_KEY}
    limits |= {(key, "float32"): 1e-6 for key in ("onnx", "onnxruntime")} | {("cuda", "tf32"): 1e-2}
    for key, peer in BY_KEY.items():
        cases = peer.cases()
        assert [name for name, count in Counter(case.id for case in cases).items() if count > 1] == []
        assert {case.id: case.limit for case in cases} == {case.id: limits[key, case.dtype] for case in cases}


def test_stacks_compared_with_torch() -> None:
    """Each depth with each direction, with and without lengths and initial states, in both precisions."""
    cases = BY_KEY["torch"].cases()
    for layers in ("1 layer", "2 layers", "3 layers"):
        for directions in ("one direction", "both directions"):
            for lengths in ("", ", lengths"):
                variant = f"{layers}, {directions}{lengths}"
                found = {(case.dtype, case.name.startswith("h0")) for case in cases if case.variant == variant}
                assert found == {(dtype, h0) for dtype in ("float64", "float32") for h0 in (False, True)}, variant


@pytest.mark.peer
def test_node_tests_are_those_of_the_installed_onnx() -> None:
    """If this fails with another version of onnx, add its tests to NODE_TESTS."""
    skip_without("onnx")
    assert sorted(onnx_cases.carried_tests()) == sorted(onnx_cases.NODE_TESTS)


def test_unknown_node_tests_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = dict.fromkeys((*onnx_cases.NODE_TESTS, "test_gru_of_another_version"))
    monkeypatch.setattr(onnx_cases, "carried_tests", lambda: tests)
    with pytest.raises(LookupError, match="test_gru_of_another_version"):
        onnx_cases.compare(onnx_cases.NODE_TESTS[0])


@pytest.mark.peer
def test_swapped_gates_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the random cases; all but one of ONNX' own tests would pass."""
    skip_without("onnxruntime")

    def swapped(gates: PeerGates, order: str, reset: Any) -> Any:
        def swap(array: Any) -> Any:
            if array is None:
                return None
            z, r, n = np.split(array, 3)
            return np.concatenate([r, z, n])

        return from_peer(PeerGates(*map(swap, gates)), order, reset)

    monkeypatch.setattr(onnx_cases, "from_peer", swapped)
    node_tests = [case.measure()["outputs"] <= case.limit for case in BY_KEY["onnx"].cases()]
    assert node_tests.count(True) == len(node_tests) - 1
    assert min(case.measure()["outputs"] for case in onnxruntime_cases.cases()) > 1e-3


@pytest.mark.peer
def test_an_initial_state_kept_by_empty_sequences_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX returns 0 for them."""
    skip_without("onnxruntime")
    monkeypatch.setattr(onnx_cases, "zero_if_empty", lambda h_last, lengths: h_last)
    cases = [c for c in onnxruntime_cases.cases() if "some 0" in c.variant and c.name.startswith("h0")]
    assert min(case.measure()["outputs"] for case in cases) > 1e-3


def test_the_clip_is_above_all_arguments() -> None:
    problem = draw_problem("clip", order="zrn", reset="after", dtype="float32")
    ((gates,),) = problem.gates
    assert problem.h0 is not None
    states = np.concatenate([problem.h0.swapaxes(0, 1), our_stack(problem)[0]["h"]], 1)
    of_input = np.abs(problem.x @ gates.weight_ih.T + gates.bias_ih)
    of_state = np.abs(states[:, :-1] @ gates.weight_hh.T + gates.bias_hh)
    assert np.max(of_input + of_state) < onnxruntime_cases.largest_argument(problem) < np.inf


# --- random problems --------------------------------------------------------------------------------------------


def test_problems_depend_on_their_name_and_have_no_zeros() -> None:
    sizes: dict[str, Any] = {"order": "rzn", "num_layers": 2, "directions": 2, "lengths": "zeros"}
    first, same, other = (draw_problem(name, **sizes) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first.x, same.x)
    assert first.x.shape != other.x.shape or not np.array_equal(first.x, other.x)
    for gates in (gates for layer in first.gates for gates in layer):
        assert all(np.all(array != 0) for array in gates)
    assert first.h0 is not None
    assert np.all(first.h0 != 0)
    assert first.lengths is not None
    assert 0 in first.lengths
    assert first.inside.sum(1).tolist() == first.lengths.tolist()


# --- differences ------------------------------------------------------------------------------------------------


def test_differences_are_relative_to_the_largest_element() -> None:
    desired = {"a": np.asarray([1.0, -4.0]), "b": np.asarray([100.0])}
    assert difference(desired, desired) == 0
    assert difference({"a": np.asarray([1.5, -4.0]), "b": np.asarray([101.0])}, desired) == 0.125
    assert difference({"a": np.asarray([1.5, -4.0]), "b": np.asarray([101.0])}, desired, relative=False) == 1
    assert difference({"a": np.asarray([0.5])}, {"a": np.zeros(1)}) == 0.5
    assert difference({"a": np.asarray([1.0, math.nan]), "b": desired["b"]}, desired) == math.inf


def test_arrays_of_other_names_shapes_and_dtypes_are_not_compared() -> None:
    others: list[dict[str, Any]] = [
        {},
        {"b": np.ones(2)},
        {"a": np.ones(1)},
        {"a": np.ones((1, 2))},
        {"a": np.ones(2, "float32")},
    ]
    for actual in others:
        with pytest.raises(ValueError, match=r"the arrays are|a is float"):
            difference(actual, {"a": np.ones(2)})


# --- the page ---------------------------------------------------------------------------------------------------


def test_numbers_are_rounded_up() -> None:
    texts = {0.0: "0", 1.0e-12: "1.0e-12", 1.01e-12: "1.1e-12", 9.91e-7: "1.0e-6", 0.123: "1.3e-1", 2.0: "2.0e+0"}
    assert {number: page.upwards(number) for number in texts} == texts


def fake(monkeypatch: pytest.MonkeyPatch, *cases: Case, packages: tuple[str, ...] = ()) -> None:
    """Make a library with these cases the only one."""

    class Fake(Peer):
        def cases(self) -> list[Case]:
            return list(cases)

    monkeypatch.setattr(command, "PEERS", (Fake("fake", "a fake peer", packages, (), "For tests."),))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command.conformance, arguments)


def test_the_page_and_the_file_have_every_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(
        monkeypatch,
        Case("one", "1", "float64", 1e-12, lambda: {"outputs": 1.01e-13, "gradients": 0.0}),
        Case("one", "2", "float64", 1e-12, lambda: {"outputs": 1e-14, "gradients": 3e-13}),
        Case("one", "1", "float32", 1e-5, lambda: {"outputs": 1e-6}),
    )
    done = run("--page", str(tmp_path / "page.md"), "--json", str(tmp_path / "rows.json"))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| one | float64 | 2 | 1.1e-13 | 3.0e-13 | 1e-12 |" in text
    assert "| one | float32 | 1 | 1.0e-6 |  | 1e-5 |" in text
    assert "3 comparisons, all within their limits" in text
    assert f"NumPy {np.__version__}" in text
    assert "JAX" in text
    result = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert result["benchmark"] == "conformance"
    assert [(row["cases"], row["ok"]) for row in result["rows"]] == [(2, True), (1, True)]
    assert result["rows"][0]["largest"] == {"outputs": 1.01e-13, "gradients": 3e-13}


@pytest.mark.parametrize("found", [1.1e-12, math.nan, math.inf])
def test_a_difference_above_the_limit_fails_and_is_on_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: float
) -> None:
    fake(
        monkeypatch,
        Case("one", "1", "float64", 1e-12, lambda: {"outputs": found, "gradients": 1e-13}),
        Case("two", "1", "float64", 1e-12, lambda: {"outputs": 1e-13}),
    )
    done = run("--page", str(tmp_path / "page.md"))
    assert done.exit_code == 1
    text = "not finite" if not math.isfinite(found) else "1.1e-12"
    last = done.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert all(part in last for part in ("a fake peer", "one", "float64", "outputs", text, "1e-12"))
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert f"| one | float64 | 1 | **{text}** | 1.0e-13 | 1e-12 |" in written
    assert "1 row failed" in written


def test_a_case_that_raises_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("it does\nnot work")

    fake(
        monkeypatch,
        Case("one", "1", "float64", 1e-12, broken),
        Case("two", "1", "float64", 1e-12, lambda: {"outputs": 1e-13}),
    )
    done = run("--page", str(tmp_path / "page.md"))
    assert done.exit_code == 1
    assert "one-1-float64: RuntimeError: it does not work" in done.output
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "**Failed**: one-1-float64: RuntimeError: it does not work" in written
    assert "| two | float64 | 1 | 1.0e-13 |  | 1e-12 |" in written


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch, Case("one", "1", "float64", 1e-12, dict), packages=("no_such_package",))
    done = run("--page", str(tmp_path / "page.md"))
    assert done.exit_code == 1
    assert "no-such-package" in done.output
    lines = (tmp_path / "page.md").read_text(encoding="utf-8").splitlines()
    assert any(all(part in line for part in ("Not", "a fake peer", "no-such-package")) for line in lines)


@pytest.mark.peer
def test_with_one_library_the_page_stays_as_it_is(tmp_path: Path) -> None:
    skip_without("onnxruntime")
    before = command.PAGE.read_bytes()
    written = tmp_path / "rows.json"
    done = run("--peer", "onnxruntime", "--json", str(written))
    assert done.exit_code == 0, done.output
    rows = json.loads(written.read_text(encoding="utf-8"))["rows"]
    assert {row["peer"] for row in rows} == {"onnxruntime"}
    assert all(row["ok"] for row in rows)
    assert command.PAGE.read_bytes() == before


def test_the_generated_page_has_every_library() -> None:
    """Old results are fine; missing libraries and failures are not. A machine may have no CUDA device."""
    text = command.PAGE.read_text(encoding="utf-8")
    assert "all within their limits" in text
    for peer in PEERS:
        assert f"## {peer.name}\n" in text or (peer.key == "cuda" and f"Not compared with {peer.name};" in text)
