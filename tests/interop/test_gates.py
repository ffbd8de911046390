"""Gates: order, sign and biases, checked against the peers' own equations; what is refused; the self-check."""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from gru_xp.errors import ArgumentError, CheckpointError, GruXpError, ShapeError
from gru_xp.interop.checking import Trial, check_forecaster
from gru_xp.interop.gates import (
    PeerNames,
    from_peer,
    host_layers,
    layers_from_peer,
    layers_to_peer,
    to_peer,
)
from gru_xp.interop.peers import EXTRAS, import_peer
from gru_xp.nn import GRUParams, gru_forward

ORDERS = ["rzn", "zrn"]
NAMES = PeerNames("wi", "wh", "bi", "bh")

every_order = pytest.mark.parametrize("order", ORDERS)


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def peer_step(x, h, gates, order, reset):
    """One step as the peers' manuals write it."""
    U = dict(zip(order, np.split(gates.weight_hh, 3), strict=True))
    b = dict(zip(order, np.split(gates.bias_hh, 3), strict=True))
    a = dict(zip(order, np.split(x @ gates.weight_ih.T + gates.bias_ih, 3, axis=1), strict=True))
    z, r = (sigmoid(a[gate] + h @ U[gate].T + b[gate]) for gate in "zr")
    inner = r * (h @ U["n"].T + b["n"]) if reset == "after" else (r * h) @ U["n"].T + b["n"]
    return (1.0 - z) * np.tanh(a["n"] + inner) + z * h


def run_peer(x, h, gates, order, reset):
    for t in range(x.shape[1]):
        h = peer_step(x[:, t], h, gates, order, reset)
    return h


@pytest.mark.compat
@every_order
def test_a_peer_computes_the_same(draw, draw_params, order, reset):
    params, x, h0 = draw_params(np, 3, 5), draw(np, (4, 6, 3)), draw(np, (4, 5))
    _, h_last, _ = gru_forward(x, h0, params)
    gates = to_peer(params, order)
    np.testing.assert_allclose(run_peer(x, h0, gates, order, reset), h_last, rtol=0, atol=1e-14)


@every_order
def test_two_biases_of_a_peer_become_one(rng, draw, order, reset):
    gates = PeerNames(*(rng.standard_normal(shape) for shape in ((15, 3), (15, 5), (15,), (15,))))
    x, h0 = draw(np, (4, 6, 3)), draw(np, (4, 5))
    _, h_last, _ = gru_forward(x, h0, from_peer(gates, order, reset))
    np.testing.assert_allclose(run_peer(x, h0, gates, order, reset), h_last, rtol=0, atol=1e-14)


@every_order
def test_there_and_back_changes_nothing(draw_layers, assert_same_layers, order, reset):
    for dtype in ("float32", "float64"):
        layers = draw_layers(2, 2, dtype=dtype)
        gates = layers_to_peer(layers, order)
        back = layers_from_peer(gates, order, reset, [[NAMES] * 2] * 2)
        assert_same_layers(back, layers)
        assert not any(np.shares_memory(a, b) for a, b in zip(back[0][0], gates[0][0], strict=True)), dtype


def test_biases_that_are_not_there_are_zero(draw_params, reset):
    gates = to_peer(draw_params(np, 3, 5), "rzn", reset)
    params = from_peer((*gates[:2], None, None), "rzn", reset)
    assert not params.bias.any()
    assert params.bias_hn is None if reset == "before" else not params.bias_hn.any()
    only_one = from_peer((*gates[:3], None), "rzn", reset)
    np.testing.assert_array_equal(only_one.bias, from_peer((*gates[:3], 0 * gates[3]), "rzn", reset).bias)


def test_what_is_no_gru_is_refused_by_name(draw_params, refused):
    def nan_at_the_end(array):
        return np.where(array == array.flat[-1], np.nan, array)

    for position, change, *parts in (
        (1, nan_at_the_end, "wh", "NaN"),
        (3, nan_at_the_end, "bh", "NaN"),
        (0, lambda a: a.astype(int), "wi has dtype int64", "float32 or float64"),
        (2, lambda a: a.astype("float16"), "bi has dtype float16"),
        (2, lambda a: a.astype("float32"), "bi has dtype float32", "wi has float64"),
        (1, lambda a: None, "wh is missing"),
        (1, lambda a: np.ones((20, 5)), "wh has shape (20, 5)", "LSTM"),
        (1, lambda a: np.ones((5, 5)), "wh has shape (5, 5)", "plain RNN"),
        (1, lambda a: a[:, :2], "wh has shape (15, 2)", "proj_size"),
        (1, lambda a: a[0], "wh has shape (5,)", "(3H, H)"),
        (0, lambda a: a[1:], "wi has shape (14, 3)", "(15, I)"),
        (0, lambda a: a[:, :0], "wi has shape (15, 0)"),
        (2, lambda a: a[1:], "bi has shape (14,)", "(15,)"),
        (3, lambda a: a[:, None], "bh has shape (15, 1)"),
    ):
        gates = [*to_peer(draw_params(np, 3, 5), "rzn")]
        gates[position] = change(gates[position])
        with refused(CheckpointError, *parts, case=parts):
            from_peer(gates, "rzn", "after", names=NAMES)


def test_layers_must_fit_on_one_another(draw_layers):
    names = [[NAMES], [PeerNames("wi1", "wh1", "bi1", "bh1")]]

    def convert(first, second):
        return layers_from_peer(
            [layers_to_peer((layer,), "rzn")[0] for layer in (first, second)], "rzn", "after", names
        )

    first, second = draw_layers(2, 1)
    assert len(convert(first, second)) == 2
    with pytest.raises(CheckpointError, match=r"wi1 has shape \(15, 3\); .* \(15, 5\)"):
        convert(first, first)
    with pytest.raises(CheckpointError, match=r"wh1 has shape \(12, 4\); it must be \(15, 5\)"):
        convert(first, draw_layers(1, 1, 5, 4)[0])
    with pytest.raises(CheckpointError, match=r"wi1 has dtype float32; .* float64"):
        convert(first, draw_layers(1, 1, 5, 5, "float32")[0])


def test_own_layers_are_checked(draw_layers):
    layers = draw_layers(2, 1)
    ((params,), _) = layers
    with pytest.raises(CheckpointError, match="weight_hh holds NaN"):
        to_peer(params._replace(weight_hh=params.weight_hh * np.nan), "rzn", "after")
    with pytest.raises(ShapeError, match="bias has shape"):
        to_peer(params._replace(bias=params.bias[1:]), "rzn", "after")
    with pytest.raises(ArgumentError, match=r"reset is 'before'; it must be 'after', the form of params"):
        to_peer(params, "rzn", "before")
    with pytest.raises(ArgumentError, match=r"reset is 'before'; it must be 'after', the form of layers"):
        host_layers(layers, "before")
    for wrong in (params, layers[0], list(layers), (), ((),), (params, params)):
        with pytest.raises(ShapeError):
            host_layers(wrong)
    with pytest.raises(ShapeError, match="weight_ih"):
        host_layers((layers[0], layers[0]))


# --- the self-check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trial_lets_rounding_pass_and_nothing_else(draw_layers, refused, dtype):
    for reset in ("before", "after"):
        trial = Trial(draw_layers(2, 2, dtype=dtype, reset=reset))
        assert trial.h0.any()
        assert len(set(trial.lengths)) > 2
        assert not trial.inside.all()
        eps = np.finfo(dtype).eps
        trial.check("as it is", trial.h, trial.h_last)
        trial.check("rounded", trial.h * (1 + eps), trial.h_last)
        for name in ("h", "h_last"):
            moved = {"h": trial.h.copy(), "h_last": trial.h_last.copy()}
            moved[name].flat[0] += 1e5 * eps
            with refused(CheckpointError, "moved: ", f"{name} differs by ", "more than rounding", case=(reset, name)):
                trial.check("moved", **moved)
            moved[name].flat[0] = np.nan
            with refused(CheckpointError, f"{name} differs by nan", case=(reset, name)):
                trial.check("moved", **moved)


@pytest.mark.parametrize("field", GRUParams._fields)
def test_a_trial_sees_every_parameter(draw_layers, refused, field):
    """That is, a mistake in the conversion of any of them, if only in one row of one gate."""
    layers = draw_layers(2, 2, dtype="float32")
    trial = Trial(layers)
    for layer, direction in itertools.product((0, 1), (0, 1)):
        array = getattr(layers[layer][direction], field)
        for row in range(0, len(array), 4):
            moved = array.copy()
            moved[row] = -moved[row]
            changed = [list(params) for params in layers]
            changed[layer][direction] = layers[layer][direction]._replace(**{field: moved})
            other = Trial(tuple(map(tuple, changed)))
            with refused(CheckpointError, "more than rounding", case=(layer, direction, row)):
                trial.check("swapped", other.h, other.h_last)


def test_a_result_of_another_shape_is_refused(draw_layers):
    trial = Trial(draw_layers(1, 1))
    with pytest.raises(CheckpointError, match=r"h has shape \(5, 6, 4\) instead of \(5, 6, 5\)"):
        trial.check("short", trial.h[..., :4], trial.h_last)


@pytest.mark.parametrize("scaling", ["last", "standard"])
def test_predictions_may_differ_by_rounding_only(learn, scaling):
    forecaster = learn(scaling=scaling)

    def predict(windows):
        rows = np.concatenate([windows[0], windows[1:, -1]])
        return forecaster.predict(np.concatenate([rows, rows[-1:]]))[:, None, None]

    check_forecaster(forecaster, predict, "as it is")
    for wrong in (lambda w: predict(w) + 1e-3, lambda w: predict(w[:, ::-1]), lambda w: predict(w) * np.nan):
        with pytest.raises(CheckpointError, match=r"^wrong: .* prediction differs by"):
            check_forecaster(forecaster, wrong, "wrong")
    with pytest.raises(CheckpointError, match=r"predictions have shape \(6, 1, 1\) instead of \(7, 1, 1\)"):
        check_forecaster(forecaster, lambda w: predict(w)[1:], "short")


def test_a_library_that_is_not_there_is_asked_for(monkeypatch, refused):
    for package, extra in EXTRAS.items():
        monkeypatch.setitem(sys.modules, package, None)
        with refused(GruXpError, f"needs {package}", f"pip install 'gru-xp[{extra}]'", case=package):
            import_peer(package)


def test_every_library_that_is_asked_for_comes_with_an_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert [need for need in extras[extra] if re.fullmatch(rf"{package}\b.*", need)], package


def test_a_library_that_does_not_start_is_told_from_one_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text("import no_such_part_of_it")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GruXpError, match=r"^broken_peer .*no_such_part_of_it"):
        import_peer("broken_peer")


def test_keras_without_its_backend_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text("import no_such_backend")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(GruXpError, match=r"no_such_backend.*KERAS_BACKEND="):
        import_peer("keras")


def test_peers_are_imported_when_they_are_called():
    modules = [f"gru_xp.interop.{name}" for name in ("files", "gates", "checking", "torch", "keras", "onnx")]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(modules) <= set(out.split())
    assert not set(out.split()) & {"torch", "keras", "onnx", "onnxruntime", "tensorflow", "jax"}
