"""The comparisons that ``python -m benchmarks conformance`` writes a page of, one by one, and that page."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.conformance import command, onnx_cases, onnxruntime_cases, page
from benchmarks.conformance.cases import PEERS, Case, Peer, difference, draw_problem, our_stack
from gru_xp.interop.gates import PeerGates, from_peer

ROOT = Path(__file__).resolve().parents[2]
BY_KEY = {peer.key: peer for peer in PEERS}
CASES = [
    pytest.param(peer, case, id=f"{peer.key}-{case.id}", marks=[pytest.mark.slow] if "2000" in case.id else [])
    for peer in PEERS
    for case in peer.cases()
]


def skip_without(key: str) -> None:
    if missing := BY_KEY[key].missing():
        pytest.skip(f"{' and '.join(missing)} not installed")


@pytest.mark.parametrize(("peer", "case"), CASES)
def test_agreement(peer: Peer, case: Case) -> None:
    skip_without(peer.key)
    found = case.measure()
    assert found
    assert max(found.values()) <= case.limit, found


# --- what is compared -------------------------------------------------------------------------------------------


def test_there_are_as_many_cases_as_promised() -> None:
    cases = {key: peer.cases() for key, peer in BY_KEY.items()}
    assert len(cases["onnxruntime"]) >= 200
    stacks = [case for case in cases["torch"] if "layer" in case.variant]
    for dtype, limit in (("float64", 1e-12), ("float32", 1e-5)):
        for layers in ("1 layer", "2 layers", "3 layers"):
            for directions in ("one direction", "both directions"):
                for lengths in ("", ", lengths"):
                    variant = f"{layers}, {directions}{lengths}"
                    same = [case for case in stacks if (case.variant, case.dtype) == (variant, dtype)]
                    assert len(same) >= 4, variant
                    assert {case.limit for case in same} == {limit}
    assert {case.limit for key in ("onnx", "onnxruntime") for case in cases[key]} == {1e-6}
    assert {case.limit for case in cases["differences"]} == {1e-7}
    assert {case.limit for key in ("array-api-strict", "torch-tensors") for case in cases[key]} == {1e-12}
    assert any("T = 2000" in case.variant for case in cases["single"])


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)
def test_every_case_has_a_name_of_its_own(peer: Peer) -> None:
    assert [name for name, count in Counter(case.id for case in peer.cases()).items() if count > 1] == []


def test_onnx_carries_these_tests_and_no_others() -> None:
    """Should this fail with another onnx: its tests have to be in NODE_TESTS."""
    skip_without("onnx")
    assert sorted(onnx_cases.carried_tests()) == sorted(onnx_cases.NODE_TESTS)
    assert len(onnx_cases.NODE_TESTS) >= 6


def test_another_onnx_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = dict.fromkeys((*onnx_cases.NODE_TESTS, "test_gru_of_another_time"))
    monkeypatch.setattr(onnx_cases, "carried_tests", lambda: tests)
    with pytest.raises(LookupError, match="test_gru_of_another_time"):
        onnx_cases.compare(onnx_cases.NODE_TESTS[0])


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


def test_a_first_state_for_empty_sequences_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX gives 0 for them."""
    skip_without("onnxruntime")
    monkeypatch.setattr(onnx_cases, "zero_if_empty", lambda h_last, lengths: h_last)
    cases = [c for c in onnxruntime_cases.cases() if "some 0" in c.variant and c.name.startswith("h0")]
    assert len(cases) >= 20
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


def test_problems_are_the_same_for_the_same_name_and_have_all_that_matters() -> None:
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


def test_differences_are_in_units_of_the_largest_element() -> None:
    desired = {"a": np.asarray([1.0, -4.0]), "b": np.asarray([100.0])}
    assert difference(desired, desired) == 0
    assert difference({"a": np.asarray([1.5, -4.0]), "b": np.asarray([101.0])}, desired) == 0.125
    assert difference({"a": np.asarray([1.5, -4.0]), "b": np.asarray([101.0])}, desired, relative=False) == 1
    assert difference({"a": np.asarray([0.5])}, {"a": np.zeros(1)}) == 0.5
    assert difference({"a": np.asarray([1.0, math.nan]), "b": desired["b"]}, desired) == math.inf


@pytest.mark.parametrize(
    "actual", [{}, {"b": np.ones(2)}, {"a": np.ones(1)}, {"a": np.ones((1, 2))}, {"a": np.ones(2, "float32")}]
)
def test_arrays_of_another_kind_are_not_compared(actual: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the arrays are|a is float"):
        difference(actual, {"a": np.ones(2)})


# --- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (1.0e-12, "1.0e-12"), (1.01e-12, "1.1e-12"), (9.91e-7, "1.0e-6"), (0.123, "0.13"), (2.0, "2.0")],
)
def test_numbers_are_rounded_up(number: float, text: str) -> None:
    assert float(page.upwards(number)) == pytest.approx(float(text), rel=1e-12)
    assert float(page.upwards(number)) >= number


def fake(monkeypatch: pytest.MonkeyPatch, *cases: Case, packages: tuple[str, ...] = ()) -> None:
    """Nothing but a peer with these cases."""

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
def test_a_limit_that_is_exceeded_fails_and_stands_on_the_page(
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
    assert f"Error: a fake peer, one, float64: outputs differ by {text}, more than 1e-12" in done.output
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert f"| one | float64 | 1 | **{text}** | 1.0e-13 | 1e-12 |" in written
    assert "not right" in written


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
    assert "**Not computed**: one-1-float64: RuntimeError: it does not work" in written
    assert "| two | float64 | 1 | 1.0e-13 |  | 1e-12 |" in written


def test_a_peer_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch, Case("one", "1", "float64", 1e-12, dict), packages=("no_such_package",))
    done = run("--page", str(tmp_path / "page.md"))
    assert done.exit_code == 1
    assert "nothing was compared; pip install no-such-package" in done.output
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Not held against a fake peer: not installed: no-such-package." in text


def test_the_command_from_the_root(tmp_path: Path) -> None:
    written = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "conformance", "--peer", "plain", "--json", str(written)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'reset="after"' in done.stdout
    assert "conformance.md" not in done.stderr
    rows = json.loads(written.read_text(encoding="utf-8"))["rows"]
    assert {row["dtype"] for row in rows} == {"float32", "float64"}
    assert all(row["ok"] for row in rows)


def test_the_page_in_the_repository_is_of_all_peers_and_right() -> None:
    text = command.PAGE.read_text(encoding="utf-8")
    assert "all within their limits" in text
    for peer in PEERS:
        assert f"## {peer.name}\n" in text
        for variant in {case.variant for case in peer.cases()}:
            assert f"\n| {variant} | " in text, f"{peer.name}: {variant}; write the page again"
