"""ONNX: models of layers and of forecasters, run by onnxruntime; other programs' models; what is refused."""

import copy
import json
import sys
import warnings

import numpy as np
import pytest

from gru_xp.errors import CheckpointError, GruXpError, NotFittedError
from gru_xp.forecasting import Forecaster
from gru_xp.interop import onnx_graph, onnx_gru, onnx_nodes
from gru_xp.interop.onnx import from_onnx, gru_from_onnx, gru_to_onnx, load_onnx, save_onnx, to_onnx
from gru_xp.nn.params import map_arrays
from gru_xp.nn.stack import gru_stack_forward

onnx = pytest.importorskip("onnx", minversion="1.17")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.peer
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

FLOAT32 = {"rtol": 0, "atol": 5e-6}
"""States are about 1, and every layer adds its rounding."""

STACKS = [(1, 1), (1, 2), (2, 1), (3, 2)]
"""Layers, directions."""


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


# --- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("L", "D"), STACKS)
def test_onnxruntime_computes_what_the_stack_does(draw_layers, rng, L, D, reset, dtype):
    layers = draw_layers(L, D, dtype=dtype)
    B, T, H = 7, 9, 5
    x, h0 = rng.standard_normal((B, T, 3)), rng.standard_normal((L * D, B, H))
    lengths = np.asarray([0, 9, 3, 1, 0, 8, 9])
    past = np.arange(T) >= lengths[:, None]
    model = gru_to_onnx(layers)

    exact = map_arrays(lambda array: array.astype("float64"), layers)
    h, h_last, _ = gru_stack_forward(x, h0, exact, lengths=lengths)
    x[past] = np.nan  # which nobody looks at
    got_h, got_last = run(model, x=x.astype("float32"), lengths=lengths, h0=h0.astype("float32"))

    np.testing.assert_allclose(got_h, h, **FLOAT32)
    np.testing.assert_allclose(got_last, h_last, **FLOAT32)
    np.testing.assert_array_equal(got_h[past], 0)
    np.testing.assert_array_equal(got_last[:, lengths == 0], h0.astype("float32")[:, lengths == 0])


def test_rows_without_steps_alone_keep_their_initial_states(draw_layers, rng, reset):
    layers = draw_layers(2, 2)
    h0 = rng.standard_normal((4, 3, 5)).astype("float32")
    x = rng.standard_normal((3, 2, 3)).astype("float32")
    h, h_last = run(gru_to_onnx(layers), x=x, lengths=np.zeros(3, "int64"), h0=h0)
    np.testing.assert_array_equal(h, np.zeros((3, 2, 10)))
    np.testing.assert_array_equal(h_last, h0)


@pytest.mark.parametrize(("L", "D"), STACKS)
def test_layers_come_back_to_the_bit(assert_same_layers, draw_layers, tmp_path, L, D, reset):
    for dtype in ("float32", "float64"):
        layers = draw_layers(L, D, dtype=dtype)
        model = gru_to_onnx(layers)
        assert_same_layers(gru_from_onnx(model)[0], layers)
        onnx.save(model, tmp_path / "gru.onnx")
        for path in (tmp_path / "gru.onnx", str(tmp_path / "gru.onnx")):
            back, form = gru_from_onnx(path)
            assert form == reset
            assert_same_layers(back, layers)


def test_the_model_is_valid_and_says_what_it_is(draw_layers):
    model = gru_to_onnx(draw_layers(2, 2))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True)
    assert model.opset_import[0].version >= 22
    assert [node.op_type for node in model.graph.node].count("GRU") == 2
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.input, *inferred.graph.output)
    }
    assert shapes == {
        "x": ["B", "T", 3],
        "lengths": ["B"],
        "h0": [4, "B", 5],
        "h": ["B", "T", 10],
        "h_last": [4, "B", 5],
    }


def test_layers_that_do_not_fit_are_refused(draw_layers):
    layers = draw_layers(2, 1)
    with pytest.raises(GruXpError, match="layers"):
        gru_to_onnx((*layers, *draw_layers(1, 1, I=4)))
    with pytest.raises(ValueError, match="reset is 'sideways'"):
        gru_to_onnx(layers, reset="sideways")
    layers[1][0].bias[2] = np.nan
    with pytest.raises(CheckpointError, match="bias holds NaN"):
        gru_to_onnx(layers)


# --- models that others wrote -----------------------------------------------------------------------------------


def node_model(rng, L=1, D=1, *, I=3, H=4, bias=True, dtype="float32", opset=17, change=None, **attributes):  # noqa: E741
    """Stacked GRU nodes as PyTorch's exporter connects them, with time as the first axis, weights of ONNX' own.

    ``change(nodes, tensors)`` may put others in their place.
    """
    nodes, tensors, x = [], {}, "input"
    for layer in range(L):
        shapes = {"W": (D, 3 * H, D * H if layer else I), "R": (D, 3 * H, H)} | ({"B": (D, 6 * H)} if bias else {})
        weights = {f"{name}{layer}": (0.7 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}
        tensors |= weights
        if layer and D == 1:
            tensors["one"] = np.asarray([1])
            nodes.append(helper.make_node("Squeeze", [x, "one"], [f"x{layer}"], name=f"squeeze{layer}"))
        elif layer:
            tensors["shape"] = np.asarray([0, 0, -1])
            nodes.append(helper.make_node("Transpose", [x], [f"turned{layer}"], perm=[0, 2, 1, 3], name=f"turn{layer}"))
            nodes.append(helper.make_node("Reshape", [f"turned{layer}", "shape"], [f"x{layer}"], name=f"join{layer}"))
        fixed = {"direction": "bidirectional" if D == 2 else "forward", "hidden_size": H, "name": f"gru{layer}"}
        outputs = [f"h{layer}", f"last{layer}"]
        nodes.append(helper.make_node("GRU", [f"x{layer}" if layer else x, *weights], outputs, **(fixed | attributes)))
        x = f"h{layer}"
    if change is not None:
        change(nodes, tensors)
    return make_model(nodes, tensors, {"input": ("T", "B", I)}, {x: ("T", D, "B", H)}, opset)


def make_model(nodes, tensors, inputs, outputs, opset=17, dtype=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def assert_layers_compute(model, rng, I=3):  # noqa: E741
    """The layers that are read of a `node_model` give what onnxruntime gives of all of it."""
    layers, reset = gru_from_onnx(model)
    x = rng.standard_normal((6, 5, I)).astype("float32")
    exact = map_arrays(lambda array: array.astype("float64"), layers)
    h, _, _ = gru_stack_forward(x.astype("float64"), None, exact)
    (got,) = run(model, input=x.swapaxes(0, 1))
    np.testing.assert_allclose(got.transpose(2, 0, 1, 3).reshape(h.shape), h, **FLOAT32)
    return layers, reset


@pytest.mark.parametrize("linear_before_reset", [0, 1])
@pytest.mark.parametrize(("L", "D"), STACKS)
def test_gru_nodes_of_others_are_read(rng, L, D, linear_before_reset):
    model = node_model(rng, L, D, linear_before_reset=linear_before_reset)
    layers, reset = assert_layers_compute(model, rng)
    assert reset == ("after" if linear_before_reset else "before")
    assert (len(layers), len(layers[0])) == (L, D)


def as_constants(nodes, tensors):
    """What exporters write, too: constants as nodes, behind an Identity."""
    for name, array in [*tensors.items()]:
        if name != "B0":
            del tensors[name]
            nodes[:0] = [
                helper.make_node("Constant", [], [f"{name}.stored"], value=numpy_helper.from_array(array)),
                helper.make_node("Identity", [f"{name}.stored"], [name]),
            ]


def with_dropout(nodes, tensors):
    (squeeze,) = (node for node in nodes if node.op_type == "Squeeze")
    squeeze.output[0] = "full"
    nodes.insert(nodes.index(squeeze) + 1, helper.make_node("Dropout", ["full"], ["x1"]))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((1, 1), {"bias": False}),
        ((2, 2), {"bias": False, "linear_before_reset": 1}),
        ((1, 2), {"activations": ["sigmoid", "TANH"] * 2}),
        ((1, 1), {"opset": 7}),
        ((2, 1), {"opset": 22, "change": with_dropout}),
        ((2, 2), {"change": as_constants, "linear_before_reset": 1}),
        ((1, 1), {"H": 1, "I": 1}),
    ],
    ids=["no bias", "no bias, after", "activations", "opset 7", "dropout", "constants", "one unit"],
)
def test_forms_that_nodes_of_others_have(rng, sizes, options):
    assert_layers_compute(node_model(rng, *sizes, **options), rng, options.get("I", 3))


def test_without_hidden_size_the_weights_say_it(assert_same_layers, rng):
    model = node_model(rng, 2, 1, linear_before_reset=1)
    expected, _ = gru_from_onnx(model)
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name != "hidden_size"]
        del node.attribute[:]
        node.attribute.extend(kept)
    assert_same_layers(gru_from_onnx(model)[0], expected)


def test_weights_of_float64_are_read_as_they_are(rng):
    """onnxruntime has no such GRU, but the weights can be read, and checked in float32."""
    tensors = {name: rng.standard_normal(shape) for name, shape in (("W", (1, 12, 3)), ("R", (1, 12, 4)))}
    node = helper.make_node("GRU", ["input", *tensors], ["h"], hidden_size=4)
    model = make_model([node], tensors, {"input": ("T", "B", 3)}, {"h": ("T", 1, "B", 4)}, dtype=TensorProto.DOUBLE)
    layers, _ = gru_from_onnx(model)
    np.testing.assert_array_equal(layers[0][0].weight_ih[4:], tensors["W"][0, 4:])
    np.testing.assert_array_equal(layers[0][0].weight_hh[:4], -tensors["R"][0, :4])


@pytest.mark.parametrize(
    "settings",
    [{"num_layers": 2, "bidirectional": True, "batch_first": True}, {"num_layers": 3, "dropout": 0.5}],
    ids=["bidirectional", "dropout"],
)
def test_models_that_pytorch_exported_are_read(rng, tmp_path, settings):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    gru = torch.nn.GRU(3, 4, **settings).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that is on its way out, but writes GRU nodes
        try:
            torch.onnx.export(gru, (torch.zeros(5, 6, 3),), tmp_path / "gru.onnx", dynamo=False)
        except (ImportError, TypeError, RuntimeError) as error:
            pytest.skip(f"this PyTorch does not export so: {error}")
    layers, reset = gru_from_onnx(tmp_path / "gru.onnx")
    assert reset == "after"
    assert (len(layers), len(layers[0])) == (settings["num_layers"], 2 if "bidirectional" in settings else 1)
    exact = map_arrays(lambda array: array.astype("float64"), layers)
    x = torch.from_numpy(rng.standard_normal((6, 5, 3)))
    with torch.no_grad():
        expected, _ = gru.double()(x)
    x, expected = (a.numpy() if gru.batch_first else a.numpy().swapaxes(0, 1) for a in (x, expected))
    np.testing.assert_allclose(gru_stack_forward(x, None, exact)[0], expected, rtol=0, atol=1e-6)


# --- models that are refused ------------------------------------------------------------------------------------


def computed(nodes, tensors):
    tensors["W0.half"] = tensors.pop("W0") / 2
    nodes.insert(0, helper.make_node("Add", ["W0.half", "W0.half"], ["W0"], name="doubled"))


def cast_from_half(nodes, tensors):
    tensors["R0"] = tensors["R0"].astype("float16")
    nodes.insert(0, helper.make_node("Cast", ["R0"], ["R0.float"], to=TensorProto.FLOAT))
    nodes[1].input[2] = "R0.float"


def cast_through_half(nodes, tensors):
    nodes[:0] = [
        helper.make_node("Cast", ["R0"], ["R0.half"], to=TensorProto.FLOAT16, name="shorten"),
        helper.make_node("Cast", ["R0.half"], ["R0.float"], to=TensorProto.FLOAT),
    ]
    nodes[2].input[2] = "R0.float"


def relu_between(nodes, tensors):
    (squeeze,) = (node for node in nodes if node.op_type == "Squeeze")
    squeeze.output[0] = "full"
    nodes.insert(nodes.index(squeeze) + 1, helper.make_node("Relu", ["full"], ["x1"], name="relu"))


def whole_numbers_between(nodes, tensors):
    (squeeze,) = (node for node in nodes if node.op_type == "Squeeze")
    squeeze.output[0] = "full"
    at = nodes.index(squeeze) + 1
    nodes[at:at] = [
        helper.make_node("Cast", ["full"], ["cut"], to=TensorProto.INT64, name="cut"),
        helper.make_node("Cast", ["cut"], ["x1"], to=TensorProto.FLOAT),
    ]


def without_w(nodes, tensors):
    del tensors["W0"]
    nodes[0].input[1] = ""


def side_by_side(nodes, tensors):
    tensors["W1"] = tensors["W0"].copy()
    del nodes[1]
    nodes[1].input[0] = "input"


def side_by_side_of_other_sizes(nodes, tensors):
    del nodes[1]
    nodes[1].input[0] = "input"


def unturned(nodes, tensors):
    """Without the transpose, directions and sequences are mixed up; every shape is right."""
    (turn,) = (node for node in nodes if node.op_type == "Transpose")
    nodes.remove(turn)
    tensors["mixed"] = np.asarray([0, -1, 8])
    (join,) = (node for node in nodes if node.op_type == "Reshape")
    join.input[:] = ["h0", "mixed"]


def mixed_forms(nodes, tensors):
    nodes[-1].attribute.append(helper.make_attribute("linear_before_reset", 1))


def mixed_directions(nodes, tensors):
    """Two directions below, one above."""
    tensors |= {name: tensors[name][:1] for name in ("W1", "R1", "B1")}
    direction = next(attribute for attribute in nodes[-1].attribute if attribute.name == "direction")
    direction.s = b"forward"


def stored_start(nodes, tensors):
    tensors["start"] = np.full((1, 2, 4), 0.25, "float32")
    nodes[0].input.extend(["", "start"])


def stored_lengths(nodes, tensors):
    tensors["lengths"] = np.asarray([3, 2], "int32")
    nodes[0].input.append("lengths")


def replaced(name, array):
    def change(nodes, tensors):
        tensors[name] = array if not callable(array) else array(tensors[name])

    return change


def with_nan(array):
    array[0, 3] = np.nan
    return array


REFUSED = {
    "activations": ((1, 1), {"activations": ["HardSigmoid", "Tanh"]}, "activations 'HardSigmoid, Tanh'"),
    "activations of one direction": ((1, 2), {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"]}, "Relu"),
    "too few activations": ((1, 2), {"activations": ["Sigmoid", "Tanh"]}, "activations 'Sigmoid, Tanh'"),
    "activation_alpha": ((1, 1), {"activation_alpha": [0.3]}, "activation_alpha"),
    "activation_beta": ((1, 1), {"activation_beta": [0.3]}, "activation_beta"),
    "clip": ((1, 1), {"clip": 3.0}, "has clip"),
    "layout": ((1, 1), {"layout": 1}, "layout=1"),
    "reverse": ((1, 1), {"direction": "reverse"}, "direction 'reverse'"),
    "mixed forms": ((2, 1), {"change": mixed_forms}, "'gru1'", "linear_before_reset", "'gru0'"),
    "mixed directions": ((2, 2), {"change": mixed_directions}, "'gru1'", "another direction", "'gru0'"),
    "computed": ((1, 1), {"change": computed}, "W of GRU node 'gru0'", "Add node 'doubled'"),
    "float16": ((1, 1), {"change": cast_from_half}, "R[0] of GRU node 'gru0' has dtype float16"),
    "through float16": ((1, 1), {"change": cast_through_half}, "R of GRU node 'gru0'", "Cast node"),
    "mixed dtypes": (
        (1, 1),
        {"change": replaced("R0", np.ones((1, 12, 4)))},
        "R[0] of GRU node 'gru0' has dtype float64",
        "W[0]",
        "float32",
    ),
    "NaN": ((1, 1), {"change": replaced("B0", with_nan)}, "Wb[0] of GRU node 'gru0'", "NaN"),
    "shape of W": ((1, 1), {"change": replaced("W0", np.ones((1, 11, 3), "float32"))}, "W ", "shape (1, 11, 3)"),
    "shape of R": ((1, 1), {"change": replaced("R0", np.ones((12, 4), "float32"))}, "R ", "shape (12, 4)"),
    "shape of B": ((1, 1), {"change": replaced("B0", np.ones((1, 12), "float32"))}, "B ", "shape (1, 12)"),
    "number of directions": ((1, 2), {"direction": "forward"}, "shape", "D = 1"),
    "hidden_size": ((1, 1), {"hidden_size": 5}, "hidden_size 5", "4 columns"),
    "relu between": ((2, 1), {"change": relu_between}, "Relu node 'relu'"),
    "whole numbers between": ((2, 1), {"change": whole_numbers_between}, "Cast node 'cut'"),
    "no W": ((1, 1), {"change": without_w}, "not a valid ONNX model", "input 1"),
    "side by side": ((2, 1), {"I": 4, "change": side_by_side}, "'gru1' is not stacked directly on", "'gru0'"),
    "other sizes": ((2, 1), {"change": side_by_side_of_other_sizes}, "is not stacked directly on"),
    "mixed up": ((2, 2), {"change": unturned}, "on random input, h"),
    "initial state": ((1, 1), {"change": stored_start}, "stored initial state"),
    "lengths": ((1, 1), {"change": stored_lengths}, "stored lengths"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nodes_that_no_layer_computes_are_refused_by_name(rng, refused, case):
    sizes, options, *parts = REFUSED[case]
    with refused(CheckpointError, *parts, case=case):
        gru_from_onnx(node_model(rng, *sizes, **options))


def test_weights_that_are_inputs_are_refused():
    node = helper.make_node("GRU", ["x", "W", "R"], ["h"], hidden_size=4, name="gru")
    inputs = {"x": ("T", "B", 3), "W": (1, 12, 3), "R": (1, 12, 4)}
    model = make_model([node], {}, inputs, {"h": ("T", 1, "B", 4)})
    with pytest.raises(CheckpointError, match="W of GRU node 'gru' is an input"):
        gru_from_onnx(model)


def test_other_files_are_never_opened(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = node_model(rng)
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(CheckpointError, match=r"model\.onnx: tensor 'W0' lies in another file"):
        gru_from_onnx("model.onnx")
    with pytest.raises(CheckpointError, match="lies in another file"):
        gru_from_onnx(onnx.load("model.onnx", load_external_data=False))


def make_lstm(rng):
    tensors = {"W": np.ones((1, 16, 3), "float32"), "R": np.ones((1, 16, 4), "float32")}
    node = helper.make_node("LSTM", ["x", *tensors], ["h"], hidden_size=4)
    return make_model([node], tensors, {"x": ("T", "B", 3)}, {"h": ("T", 1, "B", 4)})


def make_function(rng):
    model = node_model(rng, opset=17)
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def make_twice(rng):
    model = node_model(rng)
    model.graph.initializer.append(model.graph.initializer[0])
    return model


def make_unsorted(rng):
    model = node_model(rng, 2)
    nodes = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    return model


def make_short(rng):
    model = node_model(rng)
    model.graph.initializer[1].raw_data = model.graph.initializer[1].raw_data[:-3]
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_lstm, "has no GRU node"),
        (make_function, "functions of its own"),
        (make_twice, "two tensors under one name"),
        (make_unsorted, "not a valid ONNX model"),
        (make_short, "not a valid ONNX model|is damaged"),
        (lambda rng: node_model(rng, opset=3), "opset 3 is too old"),
        (lambda rng: onnx.ModelProto(), "it has no nodes"),
        (lambda rng: 3, "the model is a int; it must be a path or an onnx.ModelProto"),
    ],
    ids=["LSTM", "function", "twice", "unsorted", "short", "old", "empty", "number"],
)
def test_what_is_no_readable_model_is_refused(rng, make, message):
    with pytest.raises(CheckpointError, match=message) as error:
        gru_from_onnx(make(rng))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [gru_from_onnx, load_onnx])
def test_files_that_are_no_models_are_refused(draw_layers, tmp_path, monkeypatch, read):
    path = tmp_path / "model.onnx"
    cases = {"x,y\n1,2\n" * 9: "not an ONNX model", "": "not an ONNX model; it has", "\0" * 99: "not an ONNX model"}
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(CheckpointError, match=rf"model\.onnx: {message}") as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="is a directory"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read(tmp_path / "other.onnx")
    data = gru_to_onnx(draw_layers(1, 1)).SerializeToString()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model\.onnx: not a"):
        read(path)
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", len(data) // 2 - 1)
    with pytest.raises(CheckpointError, match="larger than"):
        read(path)


def test_both_packages_must_be_there(draw_layers, monkeypatch):
    layers = draw_layers(1, 1)
    for package in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(GruXpError, match=rf"needs {package}, .* pip install 'gru-xp\[onnx\]'$"):
            gru_to_onnx(layers)


# --- forecasters ------------------------------------------------------------------------------------------------


SETTINGS = [
    dict(zip(("scaling", "reset", "num_layers", "bidirectional", "dtype"), values, strict=True))
    for values in (
        ("last", "before", 1, False, "float32"),
        ("last", "after", 1, True, "float64"),
        ("last", "before", 2, False, "float64"),
        ("last", "after", 3, True, "float32"),
        ("standard", "after", 1, False, "float64"),
        ("standard", "before", 1, True, "float32"),
        ("standard", "after", 2, False, "float32"),
        ("standard", "before", 3, True, "float64"),
    )
]
"""In which each two values of two settings meet."""
every_setting = pytest.mark.parametrize(
    "settings", SETTINGS, ids=["-".join(map(str, settings.values())) for settings in SETTINGS]
)


def windows_of(series, seq_length):
    return np.stack([series[i : i + seq_length] for i in range(len(series) - seq_length)])


@every_setting
def test_onnxruntime_predicts_what_the_forecaster_does(learn, series, settings):
    forecaster = learn(**settings)
    (predictions,) = run(to_onnx(forecaster), windows=windows_of(series, 5))
    assert predictions.dtype == np.float64
    unit = (forecaster.scaler.change_std if settings["scaling"] == "last" else forecaster.scaler.std)[0]
    np.testing.assert_allclose(predictions, forecaster.predict(series), rtol=0, atol=2e-6 * unit)


HORIZONS = {
    "horizon": {"horizon": 3, "scaling": "robust"},
    "patches": {"patches": 5, "seq_length": 10, "scaling": "none"},
    "filled patches": {"patches": 2, "scaling": "window", "reset": "after", "bidirectional": True},
    "skip": {"linear_skip": True, "scaling": "window", "dtype": "float64"},
    "all": {"horizon": 4, "patches": 3, "linear_skip": True, "seq_length": 4, "hidden_size": 4, "scaling": "window"},
    "quantiles": {"loss": "quantile", "quantiles": (0.1, 0.4, 0.9), "horizon": 3, "scaling": "window"},
    "one quantile": {"loss": "quantile", "quantiles": (0.9,), "scaling": "none", "linear_skip": True},
    "gaussian": {"loss": "gaussian", "horizon": 2, "linear_skip": True, "scaling": "last"},
    "gaussian of one step": {"loss": "gaussian", "scaling": "standard"},
}


@pytest.mark.parametrize("settings", HORIZONS.values(), ids=HORIZONS)
def test_onnxruntime_predicts_several_steps(learn, series, settings):
    """From patches, beside a skip, with other scalings; and what is read of the model does so, too."""
    forecaster = learn(**settings)
    model = to_onnx(forecaster)
    L, h = forecaster.seq_length, forecaster.horizon
    predictions, *quantiles = run(model, windows=windows_of(series, L))
    assert predictions.shape == ((len(series) - L,) if h == 1 else (len(series) - L, h))
    expected, *of_quantiles = forecaster.forecast_distributions(series, range(L, len(series)), h).values()
    assert len(quantiles) == (1 if of_quantiles else 0)
    tolerance = 3e-6 * max(forecaster.scaler.std[0], np.abs(series[:, 0]).max() if settings["scaling"] == "none" else 0)
    np.testing.assert_allclose(predictions.reshape(expected.shape), expected, rtol=0, atol=tolerance)
    for array in quantiles:
        np.testing.assert_allclose(array, np.stack(of_quantiles, axis=1), rtol=0, atol=tolerance)
    back = from_onnx(model, device="cpu")
    assert json.dumps(back.describe()) == json.dumps(forecaster.describe())
    np.testing.assert_array_equal(back.forecast(series, 6), forecaster.forecast(series, 6))


TRANSFORMED = {
    "mean": {"transform": "log", "scaling": "window"},
    "median": {"transform": "sqrt", "loss": "mae", "horizon": 2, "columns": 1},
    "mean of several steps": {"transform": "sqrt", "horizon": 2},
    "gaussian": {"transform": "log", "loss": "gaussian", "linear_skip": True},
    "quantiles": {"transform": "sqrt", "loss": "quantile", "horizon": 2},
    "limits alone": {"columns": 1},
}


@pytest.mark.parametrize("settings", TRANSFORMED.values(), ids=TRANSFORMED)
def test_onnxruntime_transforms_and_limits(learn, series, settings):
    forecaster = copy.copy(learn(**settings))
    if "gaussian" not in settings.values():
        forecaster.minimum, forecaster.maximum = 480, 505.0
    series = series[:, : len(forecaster.columns)]
    results = run(to_onnx(forecaster), windows=windows_of(series, 5))
    expected = forecaster.forecast_distributions(series, range(5, len(series)), forecaster.horizon)
    found = np.concatenate([array.reshape(len(series) - 5, -1, forecaster.horizon) for array in results], axis=1)
    np.testing.assert_allclose(found, np.stack(list(expected.values()), axis=1), rtol=1e-6)
    back = from_onnx(to_onnx(forecaster), device="cpu")
    np.testing.assert_array_equal(back.forecast(series, 6), forecaster.forecast(series, 6))


def test_changes_have_no_windows_in_the_file(learn):
    with pytest.raises(CheckpointError, match="transform='diff' cannot be represented"):
        to_onnx(learn(transform="diff"))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("scaling", ["last", "standard"])
def test_onnxruntime_forecasts_step_by_step(learn, series, columns, scaling):
    forecaster = learn(columns, scaling=scaling, num_layers=2)
    model = to_onnx(forecaster)
    window = series[-5:, :columns].copy()
    forecasts = []
    for _ in range(6):
        (prediction,) = run(model, windows=window[None])
        forecasts.append(prediction[0])
        window = np.concatenate([window[1:], window[-1:]])
        window[-1, 0] = prediction[0]
    unit = forecaster.scaler.std[0]
    np.testing.assert_allclose(forecasts, forecaster.forecast(series[:, :columns], 6), rtol=0, atol=1e-5 * unit)


@every_setting
def test_a_forecaster_comes_back(assert_same_layers, learn, series, settings):
    forecaster = learn(**settings)
    back = from_onnx(to_onnx(forecaster), device="cpu")
    assert_same_layers(back.params.gru, forecaster.params.gru)
    for array, other in zip(back.params.linear, forecaster.params.linear, strict=True):
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)
    assert json.dumps(back.describe()) == json.dumps(forecaster.describe())
    np.testing.assert_array_equal(back.predict(series), forecaster.predict(series))


def test_a_forecaster_goes_through_a_file(assert_same_layers, learn, series, tmp_path):
    forecaster = learn(num_layers=2, bidirectional=True, dropout=0.2)
    path = tmp_path / "model.onnx"
    path.write_text("what was there before")
    save_onnx(forecaster, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    back = load_onnx(path, device="cpu")
    np.testing.assert_array_equal(back.predict(series), forecaster.predict(series))
    layers, _ = gru_from_onnx(path)
    assert_same_layers(layers, forecaster.params.gru)


def test_the_weights_are_those_of_the_graph(learn, series):
    """Not a second copy of them: the numbers in the graph are changed, and what is read changes likewise."""
    forecaster = learn(reset="after")
    model = to_onnx(forecaster)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "gru.0.R")
    array = numpy_helper.to_array(tensor).copy()
    array[0, 5, 2] += 0.5  # a row of r
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    weight = from_onnx(model, device="cpu").params.gru[0][0].weight_hh
    changed = np.argwhere(weight != forecaster.params.gru[0][0].weight_hh)
    np.testing.assert_array_equal(changed, [[5, 2]])
    assert weight[5, 2] == array[0, 5, 2]


def test_a_forecaster_must_have_learned_and_be_representable(learn):
    with pytest.raises(NotFittedError, match="not fitted"):
        to_onnx(Forecaster())
    with pytest.raises(CheckpointError, match=r"zoneout=0\.1 cannot be represented"):
        to_onnx(learn(zoneout=0.1))
    with pytest.raises(CheckpointError, match=r"loss='poisson' cannot be represented"):
        to_onnx(learn(loss="poisson"))


def tensor_of(model, name):
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    return tensor


def other_scale(model, description):
    tensor = tensor_of(model, "change_std")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * [1.0, 1.3, 1.0], tensor.name))


def other_level(model, description):
    """The prediction is of a column that is not the target."""
    tensor_of(model, "level.all.start").CopyFrom(numpy_helper.from_array(np.asarray([1]), "level.all.start"))
    tensor_of(model, "level.all.end").CopyFrom(numpy_helper.from_array(np.asarray([2]), "level.all.end"))


def other_operator(model, description):
    model.graph.node.insert(0, helper.make_node("Sin", ["windows"], ["unused"], name="sine"))


def other_result(model, description):
    """float64 as text."""
    (last,) = (node for node in model.graph.node if "predictions" in node.output)
    last.output[0] = "numbers"
    model.graph.node.append(helper.make_node("Cast", ["numbers"], ["predictions"], to=TensorProto.STRING))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING


def whole_output(model, description):
    tensor_of(model, "linear.bias").CopyFrom(numpy_helper.from_array(np.asarray([1]), "linear.bias"))


def second_output_layer(model, description):
    (gemm,) = (node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.node.append(helper.make_node("Gemm", gemm.input, ["second"], transB=1))


def nan_output(model, description):
    tensor_of(model, "linear.bias").CopyFrom(numpy_helper.from_array(np.asarray([np.nan], "float32"), "linear.bias"))


def settings_of(**settings):
    def change(model, description):
        description["settings"] |= settings

    return change


DAMAGED = {
    "scale": (other_scale, "prediction differs"),
    "level": (other_level, "prediction differs"),
    "operator": (other_operator, "Sin node 'sine'"),
    "output layers": (second_output_layer, "has 2 output layers"),
    "result": (other_result, "object", "float64"),
    "integers": (whole_output, "linear.bias has dtype int64", "float32 or float64"),
    "NaN": (nan_output, "linear.bias", "NaN"),
    "sizes": (settings_of(hidden_size=5), "shapes"),
    "layers": (settings_of(num_layers=2), "shapes"),
    "reset": (settings_of(reset="before"), "reset='after'", "'before'"),
    "zoneout": (settings_of(zoneout=0.5), "zoneout=0.0", "0.5"),
    "dtype": (settings_of(dtype="float64"), "weights are not float64"),
    "window": (settings_of(seq_length=6), "onnxruntime does not run the model"),
    "long window": (settings_of(seq_length=10**9), "too large for the check"),
    "unknown setting": (settings_of(depth=3), "description is damaged"),
    "no scaler": (lambda model, description: description.pop("scaler"), "description is damaged"),
    "scaler of zeros": (
        lambda model, description: description["scaler"].update(change_std=[0.0, 1.0, 1.0]),
        "change_std",
        "0.0",
    ),
    "short scaler": (
        lambda model, description: description["scaler"]["std"].pop(),
        "scaler",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", DAMAGED)
def test_forecasters_that_are_not_what_they_are_described_as_are_refused(learn, refused, case):
    change, *parts = DAMAGED[case]
    model = to_onnx(learn(reset="after"))
    (entry,) = model.metadata_props
    description = json.loads(entry.value)
    change(model, description)
    entry.value = json.dumps(description)
    with refused(CheckpointError, *parts, case=case):
        from_onnx(model, device="cpu")


def test_descriptions_that_are_none_are_refused(learn, refused):
    model = to_onnx(learn(reset="after"))
    for text in ("", "{", "[1]", "[" * 10**5):
        model.metadata_props[0].value = text
        with refused(CheckpointError, "description is damaged", case=text[:9]):
            from_onnx(model, device="cpu")


def test_two_descriptions_are_refused(learn):
    model = to_onnx(learn(reset="after"))
    model.metadata_props.add(key="gru_xp", value="{}")
    with pytest.raises(CheckpointError, match="duplicate keys"):
        from_onnx(model, device="cpu")


def test_names_that_are_no_text_are_refused(learn, tmp_path):
    """They are read as bytes, which no other check expects."""
    content = to_onnx(learn(reset="after")).SerializeToString()
    path = tmp_path / "model.onnx"
    for text in (b"weights", b"gru_xp", b"Gemm", b"linear.bias"):
        path.write_bytes(content.replace(text, b"\xff" * len(text)) if text in content else b"")
        with pytest.raises(CheckpointError, match=r"model\.onnx: .*(names that are no text|not an ONNX model)"):
            from_onnx(path, device="cpu")


def test_models_that_are_no_forecasters_are_told_from_them(draw_layers):
    with pytest.raises(CheckpointError, match=r"without a gru-xp Forecaster.*gru_from_onnx"):
        from_onnx(gru_to_onnx(draw_layers(1, 1)), device="cpu")


# --- the check of each conversion -------------------------------------------------------------------------------


def swapped(original):
    """Conversion of weights with z and r in each other's place."""

    def convert(*args):
        def swap(array):
            z, r, n = np.split(array, 3)
            return np.concatenate([r, z, n])

        return [[type(gates)(*map(swap, gates)) for gates in layer] for layer in original(*args)]

    return convert


def test_a_wrong_conversion_is_noticed_and_nothing_is_written(draw_layers, learn, tmp_path, monkeypatch):
    forecaster, layers = learn(), draw_layers(1, 1)
    model = gru_to_onnx(layers)
    path = tmp_path / "model.onnx"
    path.write_text("what was there before")
    monkeypatch.setattr(onnx_gru, "layers_to_peer", swapped(onnx_gru.layers_to_peer))
    with pytest.raises(CheckpointError, match="to ONNX: on random input"):
        gru_to_onnx(layers)
    with pytest.raises(CheckpointError, match="to ONNX: on random windows"):
        save_onnx(forecaster, path)
    assert path.read_text() == "what was there before"
    assert len([*tmp_path.iterdir()]) == 1

    monkeypatch.setattr(onnx_nodes, "ORDER", "rzn")
    with pytest.raises(CheckpointError, match="from ONNX: on random input"):
        gru_from_onnx(model)


def test_the_wrong_form_is_noticed(draw_layers, monkeypatch):
    """The two forms of the reset differ little where weights are small; not little enough to be taken for rounding."""
    layers = map_arrays(lambda array: 0.1 * array, draw_layers(1, 1))
    model = gru_to_onnx(layers)
    for attribute in next(node for node in model.graph.node if node.op_type == "GRU").attribute:
        if attribute.name == "linear_before_reset":
            attribute.i = 0
    monkeypatch.setattr(onnx_gru, "read_gru_layers", lambda model: layers)
    with pytest.raises(CheckpointError, match="from ONNX: on random input"):
        gru_from_onnx(model)


def test_files_that_cannot_be_written(learn, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="is a directory"):
        save_onnx(learn(), tmp_path)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_onnx(learn(), tmp_path / "missing" / "model.onnx")
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 100)
    with pytest.raises(CheckpointError, match="bytes"):
        save_onnx(learn(), tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]


def test_layers_are_no_forecaster(draw_network):
    with pytest.raises(ValueError, match=r"forecaster is a tuple; .* Forecaster"):
        to_onnx(draw_network(np, 2, 3, 1).gru)
